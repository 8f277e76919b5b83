"""Compute feature importances of a version, and the contributions of single rows."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

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
        ref: Which version: an alias, a number, a semantic version or `latest`.
        rows: How many held-out rows are explained, drawn by the seed.
        method: `shap`: contributions that add up to the score. `lime`: weights of a linear model around each row,
            which do not (needs the extra `explain`).
    """

    KIND: Literal["ExplanationsJob"] = "ExplanationsJob"
    ref: Ref = LATEST
    rows: int = Field(200, gt=0)
    method: Method = "shap"

    def run(self) -> ExplanationResult:
        """As of `Job`.

        Raises:
            DataError: The table does not fit its schema.
            NotFoundError: There is no such version.
            ExplanationError: The contributions of SHAP do not add up to the scores.
            DependencyError: LIME is asked for and not installed.
        """
        version = self.registry.resolve(self.ref)
        model = self.registry.load(version.version)
        split = self.read_split()
        sample = split.test.sample(min(self.rows, len(split.test)), random_state=self.seed).sort_index()
        samples, found = self._explain(model, split, sample)
        rows = samples.assign(**model.predict(sample)).reset_index(names="row")
        place = f"{self.build.rstrip('/')}/explanations/{self.name}-{version.version}.parquet"
        result = ExplanationResult(
            version=version.version,
            semver=version.semver,
            rows=len(sample),
            samples=ParquetWriter(path=place).write(rows),
            **found,
        )
        with self.mlflow.run("explain", experiment=self.name, run_id=version.run_id):
            mlflow.log_dict(result.model_dump(mode="json"), EXPLANATION_FILE)
            with tempfile.TemporaryDirectory() as folder:
                for path, frame in ((CONTRIBUTIONS_FILE, rows), (FEATURE_VALUES_FILE, feature_values(model, sample))):
                    mlflow.log_artifact(
                        ParquetWriter(path=str(Path(folder) / Path(path).name)).write(frame), SAMPLES_DIR
                    )
        first = ", ".join(list(result.importances)[:3])
        self.alerts.notify("explained", f"{version.title} looks most at {first}")
        return result

    def _explain(self, model: Model, split: TrainTestSplit, sample: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Any]]:
        """One row of contributions a row, and what is said of all of them."""
        if self.method == "lime":
            local = explain_with_lime(model, split.train, sample, seed=self.seed)
            said = {"scale": local.scale, "additivity_error": None, "fidelity": local.fidelity}
            return local.weights, {"method": "lime", "importances": local.importances} | said
        explanation = model.explain(sample)
        return model.to_sample_frame(explanation, sample), {
            "scale": explanation.scale,
            "additivity_error": explanation.additivity_error,
            "importances": explanation.importances,
        }


def feature_values(model: Model, table: pd.DataFrame) -> pd.DataFrame:
    """What the model saw, row by row: numbers, and categories as texts. Sensitive columns are left out."""
    matrix = model.matrix(table)
    values: dict[str, Any] = {}
    for position, feature in enumerate(model.features.columns):
        if not any(model.schema_.columns[name].sensitive for name in feature.sources):
            column = matrix[:, position]
            is_category = feature.kind == "category"
            values[feature.name] = categories_of(column, feature.values) if is_category else column
    return pd.DataFrame(values)


def categories_of(codes: NDArray[np.float32], values: tuple[str, ...]) -> list[str | None]:
    """The texts of the codes of a category; None where it is missing or unseen."""
    return [None if np.isnan(code) else values[int(code)] for code in codes]
