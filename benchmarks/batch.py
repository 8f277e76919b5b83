"""Batch inference, streamed from the bundle, beside `mlflow.pyfunc` on one frame.

Each works in a process of its own and does the whole job: a Parquet file in, a Parquet file of predictions out. Both
predict by the same version, and what they answer for the same rows is compared.

    python -m benchmarks.batch [--rows 5000000] [--pyfunc-rows 500000] [--rounds 3]
"""

import argparse
import itertools
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.measuring import BUILD, Step, console, run_step, show, tell, write

FOLDER = BUILD / "batch"
CONFS = "confs/flights"
TABLE = FOLDER / "table.parquet"
OUTPUTS = FOLDER / "predictions"
ANSWERS = FOLDER / "pyfunc.parquet"
WEEK_DAYS = 7
COPIES = 50  # of the example in a row group, some million rows

# The pyfunc runs the same decoder and features as the stream, so that most of its time is scikit-learn's own pass,
# which ONNX Runtime does in half the time.
MIN_RATIO = 1.5
MAX_PEAK_MB = 1500.0
TOLERANCE = 1e-4  # of the prediction, or of their spread where that is larger: as an export is checked


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if a limit is missed."""
    options = parse(argv)
    if options.step:
        STEPS[options.step](options)
        return 0
    shutil.rmtree(FOLDER, ignore_errors=True)
    trained = run_step(__spec__.name, ["--step", "train"]).found
    run_step(__spec__.name, ["--step", "table", "--rows", str(options.rows)])
    streamed, framed = [], []
    for _ in range(options.rounds):  # by turns, so that what else the machine does strikes both
        streamed.append(run_step(__spec__.name, ["--step", "stream", "--bundle", trained["bundle"]]))
        pyfunc = ["--step", "pyfunc", "--version", trained["version"], "--pyfunc-rows", str(options.pyfunc_rows)]
        framed.append(run_step(__spec__.name, pyfunc))
    difference = run_step(__spec__.name, ["--step", "compare"]).found["difference"]
    return judge(streamed, framed, difference)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="of the table")
    parser.add_argument("--pyfunc-rows", type=int, default=500_000, help="of the one frame")
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--step", "--bundle", "--version"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def judge(streamed: list[Step], framed: list[Step], difference: float) -> int:
    """Print, write and hold against the limits."""
    ratios = [rate(stream) / rate(frame) for stream, frame in zip(streamed, framed, strict=True)]
    predict_ratios = [
        rate(stream) / (frame.found["rows"] / frame.found["predict_seconds"])
        for stream, frame in zip(streamed, framed, strict=True)
    ]
    ratio, peak_mb = statistics.median(ratios), max(step.peak_mb for step in streamed)
    show(
        "Batch inference: Parquet in, Parquet out",
        [line("InferenceJob, streamed", streamed, ratio), line("mlflow.pyfunc, one frame", framed, 1.0)],
    )
    limits = {
        f"ratio {ratio:.2f} is at least {MIN_RATIO}": ratio >= MIN_RATIO,
        f"peak {peak_mb:.0f} MB is below {MAX_PEAK_MB:.0f}": peak_mb < MAX_PEAK_MB,
        f"difference {difference:.2g} is at most {TOLERANCE:g}": difference <= TOLERANCE,
    }
    for sentence, holds in limits.items():
        console.print(f"[{'green' if holds else 'red'}]{'holds' if holds else 'FAILS'}[/] {sentence}")
    write(
        "batch",
        {
            "ratio": ratio,
            "ratios": ratios,
            "ratios_to_predict_alone": predict_ratios,
            "peak_mb": peak_mb,
            "difference": difference,
            "limits": limits,
            "streamed": [vars(step) for step in streamed],
            "pyfunc": [vars(step) for step in framed],
        },
    )
    return 0 if all(limits.values()) else 1


def line(title: str, steps: list[Step], ratio: float) -> dict[str, Any]:
    """A row of the table: medians, and the highest peak."""
    return {
        "": title,
        "rows": steps[0].found["rows"],
        "seconds": statistics.median(step.found["seconds"] for step in steps),
        "rows/s": statistics.median(map(rate, steps)),
        "peak MB": max(step.peak_mb for step in steps),
        "ratio": ratio,
    }


def rate(step: Step) -> float:
    """Rows a second."""
    return float(step.found["rows"] / step.found["seconds"])


def train(_: argparse.Namespace) -> None:
    """A default BoostedTrees on the example, in a registry of its own."""
    from model_name.settings import load_job

    sets = [
        f"job.mlflow.tracking_uri={tracking_uri()}",
        f"job.mlflow.artifacts={FOLDER.absolute()}/mlartifacts",
        f"job.build={FOLDER}",
        "job.model={KIND: BoostedTrees}",
        "job.interval=null",
    ]
    with load_job([f"{CONFS}/training.yaml"], sets, {}) as job:
        result: Any = job.run()
    tell(bundle=result.bundle, version=f"models:/{job.name}/{result.version}")


def table(options: argparse.Namespace) -> None:
    """The example again and again, each time so many weeks earlier or later that no two rows share their key."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from model_name.core.dataframes import add_lag_columns
    from model_name.settings import load_job

    job = load_job([f"{CONFS}/training.yaml"], (), {})
    example, time_column = add_lag_columns(job.table.read(job.schema_), job.schema_), str(job.schema_.time)
    moments = example[time_column].to_numpy().astype("datetime64[us]")
    weeks = int((moments.max() - moments.min()) / np.timedelta64(WEEK_DAYS, "D")) + 1
    plain = pa.Table.from_pandas(example.drop(columns=time_column), preserve_index=False)
    # To both sides of the example, because MLflow knows no date behind the year 2262.
    left, copy = options.rows, -(options.rows // len(example) // 2)
    with pq.ParquetWriter(TABLE, plain.append_column(time_column, pa.array(moments)).schema) as writer:
        while left > 0:
            group = [
                plain.append_column(time_column, pa.array(moments + np.timedelta64(WEEK_DAYS * weeks * number, "D")))
                for number in range(copy, copy + COPIES)
            ]
            rows = pa.concat_tables(group).slice(0, left)
            writer.write_table(rows)
            left, copy = left - rows.num_rows, copy + COPIES
    tell(rows=options.rows)


def stream(options: argparse.Namespace) -> None:
    """The job of this project."""
    from model_name.settings import load_job

    table = f"job.table.path={TABLE}"
    sets = ["job.KIND=InferenceJob", table, f"job.bundle={options.bundle}", f"job.outputs={OUTPUTS}"]
    with load_job([f"{CONFS}/project.yaml"], sets, {}) as job:
        start = time.perf_counter()
        result: Any = job.run()
        seconds = time.perf_counter() - start
    tell(rows=result.predicted, seconds=seconds)


def pyfunc(options: argparse.Namespace) -> None:
    """What one would write with MLflow and pandas."""
    import mlflow
    import pandas as pd

    mlflow.set_tracking_uri(tracking_uri())
    mlflow.set_registry_uri(tracking_uri())
    model = mlflow.pyfunc.load_model(options.version)
    inputs = model.metadata.signature.inputs.input_names()
    times = [time.perf_counter()]
    frame = read_frame(options.pyfunc_rows, inputs)
    times.append(time.perf_counter())
    predictions = model.predict(frame)
    times.append(time.perf_counter())
    pd.DataFrame(predictions).to_parquet(ANSWERS)
    times.append(time.perf_counter())
    read, predict, written = (end - start for start, end in itertools.pairwise(times))
    seconds = times[-1] - times[0]
    tell(rows=len(frame), seconds=seconds, read_seconds=read, predict_seconds=predict, write_seconds=written)


def read_frame(rows: int, columns: list[str]) -> Any:
    """The first rows of the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches, found = [], 0
    for batch in pq.ParquetFile(TABLE).iter_batches(columns=columns):
        batches.append(batch)
        found += batch.num_rows
        if found >= rows:
            break
    return pa.Table.from_batches(batches).slice(0, rows).to_pandas()[columns]


def compare(_: argparse.Namespace) -> None:
    """The largest difference between the two on the rows that both predicted."""
    import numpy as np
    import pyarrow.parquet as pq

    expected = pq.read_table(ANSWERS)["prediction"].to_numpy()
    found = pq.read_table(OUTPUTS, columns=["prediction"])["prediction"].to_numpy()[: len(expected)]
    scale = np.maximum(np.abs(expected), np.std(expected))
    tell(difference=float(np.max(np.abs(expected - found) / scale)))


def tracking_uri() -> str:
    """The store of this benchmark."""
    return f"sqlite:///{FOLDER.absolute()}/mlflow.db"


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train,
    "table": table,
    "stream": stream,
    "pyfunc": pyfunc,
    "compare": compare,
}

if __name__ == "__main__":
    sys.exit(main())
