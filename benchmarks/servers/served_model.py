"""Model that all servers serve, with request rows and the predictions of its pyfunc.

Trained once with the project's own jobs by `python -m benchmarks.servers.served_model`, in a process of its own because
the measuring process must stay small.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import OUTPUT_DIRECTORY, emit_result, run_step

DIRECTORY = OUTPUT_DIRECTORY / "serving"
MODEL_FILE = DIRECTORY / "model.json"
CONFS = "confs/flights"
MODEL = "{KIND: TabularNetwork, max_epochs: 3}"  # the quality of the predictions is irrelevant here
ROWS = 100

DATATYPES = {"numeric": "FP64", "boolean": "BOOL"}  # of the Open Inference Protocol; BYTES for all others


@dataclass(frozen=True)
class ServedModel:
    """A trained model in both formats, with requests.

    Attributes:
        name: Name of the model.
        bundle: Directory of the bundle.
        pyfunc: Directory of the MLflow model.
        rows: Held-out rows without missing values, which some servers do not support.
        datatypes: Datatype of each input.
        expected: Predictions of the pyfunc for the rows.
        spread: Standard deviation of the predictions.
    """

    name: str
    bundle: str
    pyfunc: str
    rows: list[dict[str, Any]]
    datatypes: dict[str, str]
    expected: list[float]
    spread: float

    def difference(self, predictions: list[float]) -> float:
        """Compute the largest difference of predictions for the first rows, relative to prediction or spread."""
        pairs = zip(self.expected, predictions, strict=False)
        return max(abs(one - other) / max(abs(one), self.spread) for one, other in pairs)


def load_served_model(*, is_fresh: bool = False) -> ServedModel:
    """Load the model; train it if there is none, or if `is_fresh`."""
    if is_fresh:
        shutil.rmtree(DIRECTORY, ignore_errors=True)
    if not MODEL_FILE.exists():
        document = run_step(__spec__.name, []).found
        MODEL_FILE.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return ServedModel(**json.loads(MODEL_FILE.read_text(encoding="utf-8")))


def train_served_model() -> ServedModel:
    """Train and register the model, download its pyfunc and predict."""
    import mlflow
    import numpy as np

    from model_name.settings import load_job

    tracking_uri = f"sqlite:///{DIRECTORY.absolute()}/mlflow.db"
    sets = [
        f"job.mlflow.tracking_uri={tracking_uri}",
        f"job.mlflow.artifacts={DIRECTORY.absolute()}/mlartifacts",
        f"job.build={DIRECTORY}",
        f"job.model={MODEL}",
        "job.interval=null",
    ]
    with load_job([f"{CONFS}/training.yaml"], sets, {}) as job:
        result: Any = job.run()
        held_out, schema = job.read_split().test, job.schema_
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    version = f"models:/{job.name}/{result.version}"
    pyfunc = mlflow.artifacts.download_artifacts(artifact_uri=version, dst_path=str(DIRECTORY / "pyfunc"))
    frame = held_out[list(schema.inputs)].dropna().head(ROWS).reset_index(drop=True)
    expected = np.asarray(mlflow.pyfunc.load_model(pyfunc).predict(frame)["prediction"], dtype=float)
    return ServedModel(
        name=job.name,
        bundle=str(Path(result.bundle).absolute()),
        pyfunc=str(Path(pyfunc).absolute()),
        rows=json.loads(frame.to_json(orient="records", date_format="iso", double_precision=15)),
        datatypes={name: DATATYPES.get(column.kind, "BYTES") for name, column in schema.inputs.items()},
        expected=expected.tolist(),
        spread=float(expected.std()),
    )


if __name__ == "__main__":
    emit_result(**asdict(train_served_model()))
