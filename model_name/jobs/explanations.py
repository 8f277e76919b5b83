"""Say what a version looks at: over all rows, and row by row."""

import tempfile
from pathlib import Path
from typing import Literal

import mlflow
from pydantic import Field

from model_name.core.versions import LATEST
from model_name.io.datasets import ParquetWriter
from model_name.jobs.base import Job, Result

EXPLANATION = "explanation.json"
SAMPLES = "explanations"


class ExplanationResult(Result):
    """What a version looks at.

    Attributes:
        version: Its number.
        semver: Its semantic version.
        rows: How many held-out rows were explained.
        scale: What the contributions add up to: the prediction, a probability or log-odds.
        additivity_error: How far they miss it at worst, as a share of the spread.
        importances: Mean absolute contribution of each feature, the largest first.
        samples: Where the contributions of each row are, Parquet.
    """

    version: str
    semver: str
    rows: int
    scale: str
    additivity_error: float
    importances: dict[str, float]
    samples: str


class ExplanationsJob(Job):
    """Explain a version by SHAP values on held-out rows.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        rows: How many held-out rows are explained, drawn by the seed.
    """

    KIND: Literal["ExplanationsJob"] = "ExplanationsJob"
    ref: str = LATEST
    rows: int = Field(200, gt=0)

    def run(self) -> ExplanationResult:
        """As of `Job`.

        Raises:
            DataError: The table does not fit its schema.
            NotFoundError: There is no such version.
            ArithmeticError: The contributions do not add up to the scores.
        """
        version = self.registry.resolve(self.ref)
        model = self.registry.load(version.version)
        test = self.read_parts().test
        sample = test.sample(min(self.rows, len(test)), random_state=self.seed).sort_index()
        explanation = model.explain(sample)
        samples = model.samples_of(explanation, sample)
        rows = samples.assign(**model.predict(sample)).reset_index(names="row")
        path = ParquetWriter(path=f"{self.build.rstrip('/')}/explanations/{self.name}-{version.version}.parquet").write(
            rows
        )
        result = ExplanationResult(
            version=version.version,
            semver=version.semver,
            rows=len(sample),
            scale=explanation.scale,
            additivity_error=explanation.additivity_error,
            importances=explanation.importances,
            samples=path,
        )
        with self.mlflow.run("explain", experiment=self.name, run_id=version.run_id):
            mlflow.log_dict(result.model_dump(mode="json"), EXPLANATION)
            with tempfile.TemporaryDirectory() as folder:
                mlflow.log_artifact(ParquetWriter(path=str(Path(folder) / "samples.parquet")).write(rows), SAMPLES)
        first = ", ".join(list(result.importances)[:3])
        self.alerts.notify("explained", f"{version.title} looks most at {first}")
        return result
