"""Artifacts of a version of each task, as the jobs store them, without MLflow."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Param, Run, RunData, RunInfo

from model_name.core import dataframes
from model_name.core.models import Model
from model_name.core.versions import Recipe
from model_name.io.registries import Version
from model_name.jobs.explanations import feature_values
from model_name.reports.artifacts import VersionArtifacts
from model_name.results import EvaluationResult, ExplanationResult
from model_name.serving.bundle import read_manifest
from tests.support.bundles import bundle_of

__all__ = ["bundle_of"]

METRICS = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}
COSTS = {"false_positive": 1.0, "false_negative": 4.0}
THRESHOLD = {"value": 0.3, "cost": 0.2, "cost_at_half": 0.25, "costs": COSTS}
HALVES = [{"predicted": 0.2, "observed": 0.25, "rows": 40}, {"predicted": 0.8, "observed": 0.7, "rows": 40}]
CURVES: dict[str, dict[str, Any]] = {
    "regression": {
        "predicted": [{"x": 1.0, "y": 1.5}, {"x": 3.0, "y": 2.5}],
        "residuals": [
            {"x": f"2024-0{month}-01T00:00:00", "low": -1.0, "middle": 0.1, "high": 1.0, "rows": 30}
            for month in (1, 2, 3)
        ],
        "coverage": [{"level": 0.8, "observed": 0.78, "width": 1.5}, {"level": 0.95, "observed": 0.94, "width": 2.5}],
    },
    "binary": {
        "roc": [{"x": 0.0, "y": 0.0}, {"x": 0.25, "y": 0.75}, {"x": 1.0, "y": 1.0}],
        "precision_recall": [{"x": 0.0, "y": 1.0}, {"x": 1.0, "y": 0.5}],
        "calibration": HALVES,
        "confusion": [[30, 10], [5, 35]],
    },
    "multiclass": {"calibration": HALVES, "confusion": [[30, 5, 1], [2, 20, 2], [0, 3, 17]]},
}


def evaluation_text(task: str, **changes: Any) -> str:
    """Return an evaluation as the current release stores it, in JSON."""
    metric = METRICS[task]
    document = {
        "version": "3",
        "semver": "1.2.0",
        "rows": 80,
        "measures": [{"name": metric, "threshold": 0.7}],
        "metrics": {metric: 0.6},
        "intervals": {metric: {"low": 0.5, "high": 0.65}},
        "resampled": "80 rows, drawn 500 times",
        "references": {"constant": {metric: 0.9}, "default trees": {metric: 0.61}},
        "champion": {"version": "2", "semver": "1.1.0", "metrics": {metric: 0.8}, "problem": ""},
        "differences": [
            {"against": "champion", "metric": metric, "value": -0.2, "low": -0.3, "high": -0.1},
            {"against": "default trees", "metric": metric, "value": -0.01, "low": -0.05, "high": 0.02},
        ],
        "slices": [{"column": "group", "value": "a", "rows": 25, "metrics": {metric: 0.7}, "champion": {metric: 0.9}}],
        "worst_slices": [
            {"words": "size above 40", "rows": 12, "metrics": {metric: 0.95}, "share": 0.25, "ratio": 1.6}
        ],
        "curves": CURVES[task],
        "calibration_error": None if task == "regression" else 0.05,
        "threshold": THRESHOLD if task == "binary" else None,
        "learning": [{"rows": 50, "score": 0.9}, {"rows": 160, "score": 0.6}],
    }
    return json.dumps(document | changes)


@pytest.fixture(scope="session")
def artifacts_of(
    bundle_of: Callable[[str], Path], fitted: Callable[[str, str], Model], make_schema: Any, make_table: Any
) -> Callable[..., VersionArtifacts]:
    """Return `artifacts_of(task, semver="1.2.0", params={}, **evaluation)` of an evaluated and explained version."""

    def artifacts(
        task: str, semver: str = "1.2.0", params: dict[str, str] | None = None, **changes: Any
    ) -> VersionArtifacts:
        model = fitted("BoostedTrees", task)
        table = dataframes.check_frame(make_table(task), make_schema(task)).frame[-40:]
        explained = model.explain(table)
        evaluation = EvaluationResult.model_validate_json(evaluation_text(task, semver=semver, **changes))
        info = RunInfo("f" * 32, "1", "someone", "FINISHED", 0, 1, "active")
        data = RunData(
            params=[Param(name, value) for name, value in ({"kind": "BoostedTrees"} | (params or {})).items()]
        )
        return VersionArtifacts(
            version=Version(
                name="things",
                version=evaluation.version,
                semver=semver,
                run_id="f" * 32,
                aliases=(),
                kind="BoostedTrees",
                recipe=Recipe(contract="c", model="m"),
                created="2024-05-01T10:00:00",
            ),
            run=Run(info, data),
            manifest=read_manifest(bundle_of(task)),
            bundle_bytes=2048,
            evaluation=evaluation,
            explanation=ExplanationResult(
                version=evaluation.version,
                semver=semver,
                rows=40,
                scale=explained.scale,
                additivity_error=explained.additivity_error,
                importances=explained.importances,
                samples="samples.parquet",
            ),
            contributions=model.to_sample_frame(explained, table).reset_index(drop=True),
            values=feature_values(model, table),
            gate=None,
            tags={"table": f"{semver}.parquet"},
        )

    return artifacts


@pytest.fixture(scope="session")
def artifacts(artifacts_of: Callable[..., VersionArtifacts]) -> VersionArtifacts:
    """Return the artifacts of a regression."""
    return artifacts_of("regression")
