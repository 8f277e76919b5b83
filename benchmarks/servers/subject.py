"""The model that every server serves, the rows that it is asked for, and what its pyfunc answers them.

Trained once, through the project's own jobs, by `python -m benchmarks.servers.subject`: a process of its own, because
the one that measures must stay light.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.measuring import BUILD, run_step, tell

FOLDER = BUILD / "serving"
SUBJECT = FOLDER / "subject.json"
CONFS = "confs/flights"
MODEL = "{KIND: TabularNetwork, max_epochs: 3}"  # how well it predicts is of no interest here
ROWS = 100

DATATYPES = {"numeric": "FP64", "boolean": "BOOL"}  # of the Open Inference Protocol; BYTES for all others


@dataclass(frozen=True)
class Subject:
    """What is served.

    Attributes:
        name: The model.
        bundle: The folder of the bundle.
        pyfunc: The folder of the MLflow model.
        rows: Held-out rows without missing values, which not every server understands.
        datatypes: The datatype of each input.
        expected: What the pyfunc predicts for the rows.
        spread: Their standard deviation.
    """

    name: str
    bundle: str
    pyfunc: str
    rows: list[dict[str, Any]]
    datatypes: dict[str, str]
    expected: list[float]
    spread: float

    def difference(self, found: list[float]) -> float:
        """The largest difference of predictions for the first rows, of the prediction or the spread."""
        pairs = zip(self.expected, found, strict=False)
        return max(abs(one - other) / max(abs(one), self.spread) for one, other in pairs)


def subject(*, is_fresh: bool = False) -> Subject:
    """The model, trained if it was not before or is to be fresh."""
    if is_fresh:
        shutil.rmtree(FOLDER, ignore_errors=True)
    if not SUBJECT.exists():
        found = run_step(__spec__.name, []).found
        SUBJECT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return Subject(**json.loads(SUBJECT.read_text(encoding="utf-8")))


def train() -> Subject:
    """Train, register, fetch the pyfunc and ask it."""
    import mlflow
    import numpy as np

    from model_name.settings import load_job

    tracking_uri = f"sqlite:///{FOLDER.absolute()}/mlflow.db"
    sets = [
        f"job.mlflow.tracking_uri={tracking_uri}",
        f"job.mlflow.artifacts={FOLDER.absolute()}/mlartifacts",
        f"job.build={FOLDER}",
        f"job.model={MODEL}",
        "job.interval=null",
    ]
    with load_job([f"{CONFS}/training.yaml"], sets, {}) as job:
        result: Any = job.run()
        held_out, schema = job.read_split().test, job.schema_
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    version = f"models:/{job.name}/{result.version}"
    pyfunc = mlflow.artifacts.download_artifacts(artifact_uri=version, dst_path=str(FOLDER / "pyfunc"))
    frame = held_out[list(schema.inputs)].dropna().head(ROWS).reset_index(drop=True)
    expected = np.asarray(mlflow.pyfunc.load_model(pyfunc).predict(frame)["prediction"], dtype=float)
    return Subject(
        name=job.name,
        bundle=str(Path(result.bundle).absolute()),
        pyfunc=str(Path(pyfunc).absolute()),
        rows=json.loads(frame.to_json(orient="records", date_format="iso", double_precision=15)),
        datatypes={name: DATATYPES.get(column.kind, "BYTES") for name, column in schema.inputs.items()},
        expected=expected.tolist(),
        spread=float(expected.std()),
    )


if __name__ == "__main__":
    tell(**asdict(train()))
