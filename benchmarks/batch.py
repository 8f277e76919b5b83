"""Throughput of batch inference: streamed through the bundle, compared with `mlflow.pyfunc` on one data frame.

Each runs in a process of its own, from a Parquet file to a Parquet file of predictions. Both use the same version, and
their predictions for the same rows are compared.

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

from benchmarks.harness import OUTPUT_DIRECTORY, Step, conclude, emit_result, print_table, run_step

DIRECTORY = OUTPUT_DIRECTORY / "batch"
CONFS = "confs/flights"
TABLE_FILE = DIRECTORY / "table.parquet"
OUTPUTS = DIRECTORY / "predictions"
PYFUNC_FILE = DIRECTORY / "pyfunc.parquet"
WEEK_DAYS = 7
COPIES = 50  # of the example per row group, about a million rows

# The pyfunc runs the same decoder and features as the stream, so that most of its time is the forward pass of
# scikit-learn, for which ONNX Runtime takes half the time.
MIN_RATIO = 1.5
MAX_PEAK_MB = 1500.0
TOLERANCE = 1e-4  # relative to the prediction or the standard deviation, whichever is larger; as in the export check


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a limit is missed."""
    options = parse_arguments(argv)
    if options.step:
        STEPS[options.step](options)
        return 0
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    trained = run_step(__spec__.name, ["--step", "train"]).found
    run_step(__spec__.name, ["--step", "table", "--rows", str(options.rows)])
    streamed, pyfunc = [], []
    for _ in range(options.rounds):  # alternating, so that other load on the machine affects both
        streamed.append(run_step(__spec__.name, ["--step", "stream", "--bundle", trained["bundle"]]))
        arguments = ["--step", "pyfunc", "--version", trained["version"], "--pyfunc-rows", str(options.pyfunc_rows)]
        pyfunc.append(run_step(__spec__.name, arguments))
    difference = run_step(__spec__.name, ["--step", "compare"]).found["difference"]
    return report(streamed, pyfunc, difference)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000, help="number of rows of the table")
    parser.add_argument("--pyfunc-rows", type=int, default=500_000, help="number of rows of the data frame")
    parser.add_argument("--rounds", type=int, default=3)
    for hidden in ("--step", "--bundle", "--version"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def report(streamed: list[Step], pyfunc: list[Step], difference: float) -> int:
    """Print and write the results, and check the limits."""
    ratios = [rows_per_second(stream) / rows_per_second(frame) for stream, frame in zip(streamed, pyfunc, strict=True)]
    predict_ratios = [
        rows_per_second(stream) / (frame.found["rows"] / frame.found["predict_seconds"])
        for stream, frame in zip(streamed, pyfunc, strict=True)
    ]
    ratio, peak_mb = statistics.median(ratios), max(step.peak_mb for step in streamed)
    print_table(
        "Batch inference: Parquet in, Parquet out",
        [table_row("InferenceJob, streamed", streamed, ratio), table_row("mlflow.pyfunc, one frame", pyfunc, 1.0)],
    )
    limits = {
        f"ratio {ratio:.2f} is at least {MIN_RATIO}": ratio >= MIN_RATIO,
        f"peak {peak_mb:.0f} MB is below {MAX_PEAK_MB:.0f}": peak_mb < MAX_PEAK_MB,
        f"difference {difference:.2g} is at most {TOLERANCE:g}": difference <= TOLERANCE,
    }
    return conclude(
        "batch",
        {
            "ratio": ratio,
            "ratios": ratios,
            "ratios_to_predict_alone": predict_ratios,
            "peak_mb": peak_mb,
            "difference": difference,
            "streamed": [vars(step) for step in streamed],
            "pyfunc": [vars(step) for step in pyfunc],
        },
        limits,
    )


def table_row(title: str, steps: list[Step], ratio: float) -> dict[str, Any]:
    """Build a row of the table: medians, and the maximum of the peaks."""
    return {
        "": title,
        "rows": steps[0].found["rows"],
        "seconds": statistics.median(step.found["seconds"] for step in steps),
        "rows/s": statistics.median(map(rows_per_second, steps)),
        "peak MB": max(step.peak_mb for step in steps),
        "ratio": ratio,
    }


def rows_per_second(step: Step) -> float:
    """Compute the rows per second of a step."""
    return float(step.found["rows"] / step.found["seconds"])


def train_model(_: argparse.Namespace) -> None:
    """Train a default BoostedTrees on the example, in a registry of its own."""
    from model_name.settings import load_job

    sets = [
        f"job.mlflow.tracking_uri={tracking_uri()}",
        f"job.mlflow.artifacts={DIRECTORY.absolute()}/mlartifacts",
        f"job.build={DIRECTORY}",
        "job.model={KIND: BoostedTrees}",
        "job.interval=null",
    ]
    with load_job([f"{CONFS}/training.yaml"], sets, {}) as job:
        result: Any = job.run()
    emit_result(bundle=result.bundle, version=f"models:/{job.name}/{result.version}")


def write_table(options: argparse.Namespace) -> None:
    """Write copies of the example, each shifted by weeks so that keys are unique."""
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
    # Before and after the example, because MLflow supports no date after the year 2262.
    left, copy = options.rows, -(options.rows // len(example) // 2)
    with pq.ParquetWriter(TABLE_FILE, plain.append_column(time_column, pa.array(moments)).schema) as writer:
        while left > 0:
            group = [
                plain.append_column(time_column, pa.array(moments + np.timedelta64(WEEK_DAYS * weeks * number, "D")))
                for number in range(copy, copy + COPIES)
            ]
            rows = pa.concat_tables(group).slice(0, left)
            writer.write_table(rows)
            left, copy = left - rows.num_rows, copy + COPIES
    emit_result(rows=options.rows)


def run_inference_job(options: argparse.Namespace) -> None:
    """Predict with the job of this project."""
    from model_name.settings import load_job

    table = f"job.table.path={TABLE_FILE}"
    sets = ["job.KIND=InferenceJob", table, f"job.bundle={options.bundle}", f"job.outputs={OUTPUTS}"]
    with load_job([f"{CONFS}/project.yaml"], sets, {}) as job:
        start = time.perf_counter()
        result: Any = job.run()
        seconds = time.perf_counter() - start
    emit_result(rows=result.predicted, seconds=seconds)


def run_pyfunc(options: argparse.Namespace) -> None:
    """Predict as one would with MLflow and pandas alone."""
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
    pd.DataFrame(predictions).to_parquet(PYFUNC_FILE)
    times.append(time.perf_counter())
    read, predict, write = (end - start for start, end in itertools.pairwise(times))
    seconds = times[-1] - times[0]
    emit_result(rows=len(frame), seconds=seconds, read_seconds=read, predict_seconds=predict, write_seconds=write)


def read_frame(rows: int, columns: list[str]) -> Any:
    """Read the first rows of the table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    batches, count = [], 0
    for batch in pq.ParquetFile(TABLE_FILE).iter_batches(columns=columns):
        batches.append(batch)
        count += batch.num_rows
        if count >= rows:
            break
    return pa.Table.from_batches(batches).slice(0, rows).to_pandas()[columns]


def compare_predictions(_: argparse.Namespace) -> None:
    """Compute the largest difference between the two on the rows that both predicted."""
    import numpy as np
    import pyarrow.parquet as pq

    expected = pq.read_table(PYFUNC_FILE)["prediction"].to_numpy()
    actual = pq.read_table(OUTPUTS, columns=["prediction"])["prediction"].to_numpy()[: len(expected)]
    scale = np.maximum(np.abs(expected), np.std(expected))
    emit_result(difference=float(np.max(np.abs(expected - actual) / scale)))


def tracking_uri() -> str:
    """Return the tracking URI of this benchmark."""
    return f"sqlite:///{DIRECTORY.absolute()}/mlflow.db"


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train": train_model,
    "table": write_table,
    "stream": run_inference_job,
    "pyfunc": run_pyfunc,
    "compare": compare_predictions,
}

if __name__ == "__main__":
    sys.exit(main())
