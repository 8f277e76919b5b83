"""Compute feature importances of a version, and the contributions of single rows."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from model_name.core.models import Model
from model_name.core.models.lime import explain_with_lime
from model_name.core.versions import LATEST, Ref
from model_name.io.datasets import ParquetWriter
from model_name.jobs.base import Job, TrainTestSplit
from model_name.results import CONTRIBUTIONS_FILE, EXPLANATION_FILE, FEATURE_VALUES_FILE, SAMPLES_DIR, ExplanationResult

Method = Literal["shap", "lime"]


class ExplanationsJob(Job):
    """Explain a version on held-out rows.

    Attributes:
        ref: Version to explain: an alias, a number, a semantic version or `latest`.
        rows: Number of held-out rows to explain, drawn with the seed.
        method: Method of the explanation. `shap`: contributions that add up to the score. `lime`: weights of a linear
            model around each row, which do not add up (needs the extra `explain`).
    """

    KIND: Literal["ExplanationsJob"] = "ExplanationsJob"
    ref: Ref = LATEST
    rows: int = Field(200, gt=0)
    method: Method = "shap"

    @override
    def run(self) -> ExplanationResult:
        """Explain held-out rows, write their contributions and log them to the run.

        Raises:
            DataError: The table does not fit its schema.
            NotFoundError: The version does not exist.
            ExplanationError: The contributions of SHAP do not add up to the scores.
            DependencyError: The method is LIME, and the package `lime` is not installed.
        """
        version = self.registry.resolve(self.ref)
        model = self.registry.load(version.version)
        split = self.read_split()
        sample = split.test.sample(min(self.rows, len(split.test)), random_state=self.seed).sort_index()
        samples, fields = self._explain(model, split, sample)
        rows = samples.assign(**model.predict(sample)).reset_index(names="row")
        path = f"{self.build.rstrip('/')}/explanations/{self.name}-{version.version}.parquet"
        result = ExplanationResult(
            version=version.version,
            semver=version.semver,
            rows=len(sample),
            samples=ParquetWriter(path=path).write(rows),
            **fields,
        )
        with self.mlflow.run("explain", experiment=self.name, run_id=version.run_id):
            mlflow.log_dict(result.model_dump(mode="json"), EXPLANATION_FILE)
            with tempfile.TemporaryDirectory() as folder:
                for name, frame in ((CONTRIBUTIONS_FILE, rows), (FEATURE_VALUES_FILE, feature_values(model, sample))):
                    file = ParquetWriter(path=str(Path(folder) / Path(name).name)).write(frame)
                    mlflow.log_artifact(file, SAMPLES_DIR)
        top = ", ".join(list(result.importances)[:3])
        self.alerts.notify("explained", f"{version.title}: most important features {top}")
        return result

    def _explain(
        self, model: Model, split: TrainTestSplit, sample: pd.DataFrame
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return the contributions of each row, and the fields of the result that describe all rows."""
        if self.method == "lime":
            lime = explain_with_lime(model, split.train, sample, seed=self.seed)
            return lime.weights, {
                "method": "lime",
                "scale": lime.scale,
                "additivity_error": None,
                "fidelity": lime.fidelity,
                "importances": lime.importances,
            }
        explanation = model.explain(sample)
        return model.to_sample_frame(explanation, sample), {
            "scale": explanation.scale,
            "additivity_error": explanation.additivity_error,
            "importances": explanation.importances,
        }


def feature_values(model: Model, table: pd.DataFrame) -> pd.DataFrame:
    """Return the feature values of each row: numbers, and categories as texts. Sensitive columns are left out."""
    matrix = model.matrix(table)
    values: dict[str, Any] = {}
    for position, feature in enumerate(model.features.columns):
        if not any(model.schema_.columns[name].sensitive for name in feature.sources):
            column = matrix[:, position]
            is_category = feature.kind == "category"
            values[feature.name] = decode_categories(column, feature.values) if is_category else column
    return pd.DataFrame(values)


def decode_categories(codes: NDArray[np.float32], values: tuple[str, ...]) -> list[str | None]:
    """Return the categories of codes; None if a category is missing or unseen."""
    return [None if np.isnan(code) else values[int(code)] for code in codes]
