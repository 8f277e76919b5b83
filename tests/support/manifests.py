"""Manifests of any table without training, and data planes whose graph has the same scores for each row."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from model_name.core.decisions.decision import Decision, PredictionIntervals
from model_name.core.features import AnyFeature, DatePartFeature, Features, NumericFeature, OrdinalFeature
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.serving.bundle import GRAPH_INPUT, GRAPH_OUTPUT, Bundle, ColumnProfile, Manifest
from model_name.serving.dataplane import DataPlane

TARGETS: dict[str, dict[str, Any]] = {
    "regression": {"name": "price", "task": "regression"},
    "binary": {"name": "price", "task": "binary", "classes": [False, True]},
    "multiclass": {"name": "price", "task": "multiclass", "classes": ["low", "fair", "high"]},
}
FIXED_SCORES: dict[str, list[float]] = {"regression": [12.5], "binary": [0.25, 0.75], "multiclass": [0.2, 0.7, 0.1]}
PREDICTION_INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(), halves=((1.0,), (2.0,)), rows=100)
COLUMNS: dict[str, dict[str, Any]] = {
    "area": {"kind": "numeric", "min": 0, "max": 500, "description": "In square metres."},
    "age": {"kind": "numeric", "nullable": True},
    "rooms": {"kind": "numeric", "min": 1, "max": 9, "out_of_bounds": "clip"},
    "district": {"kind": "category", "values": ["", "east", "north", "3", "true"], "unseen": "refuse"},
    "heating": {"kind": "category", "nullable": True, "values": ["gas", "wood"]},
    "street": {"kind": "category"},
    "is_let": {"kind": "boolean", "nullable": True},
    "is_new": {"kind": "boolean"},
    "sold": {"kind": "datetime"},
    "seen": {"kind": "datetime", "nullable": True},
    "remark": {"kind": "text-id", "nullable": True},
    "agent": {"kind": "category", "feature": False},
}
EXAMPLE: dict[str, Any] = {
    "area": 61.5,
    "age": None,
    "rooms": 3.0,
    "district": "east",
    "heating": "gas",
    "street": "Elm",
    "is_let": None,
    "is_new": True,
    "sold": "2025-03-07T09:30:15",
    "seen": None,
}


def table_of(task: str = "regression", columns: dict[str, dict[str, Any]] | None = None, **more: Any) -> TableSchema:
    """Create a schema with a column of every kind and policy, or with other columns."""
    raw = {"name": "flats", "target": TARGETS[task], "columns": COLUMNS if columns is None else columns}
    return TableSchema.model_validate(raw | more)


def manifest_of(table: TableSchema, example: dict[str, Any] | None = None, **changes: Any) -> Manifest:
    """Create a manifest of a schema."""
    is_regression = table.target.task == "regression"
    fields: dict[str, Any] = {
        "name": "flats",
        "semver": "1.2.3",
        "version": "7",
        "run_id": "0123456789abcdef" * 2,
        "kind": "BoostedTrees",
        "table": table,
        "features": Features(columns=tuple(feature_of(name, column) for name, column in table.inputs.items())),
        "decision": Decision(intervals=PREDICTION_INTERVALS) if is_regression else Decision(),
        "profile": {name: profile_of(column) for name, column in table.inputs.items()},
        "metrics": {"rmse": 2.4928, "r2": 0.886},
        "example": EXAMPLE if example is None else example,
        "files": {"model.onnx": "ab" * 32},
        "created": "2026-11-21T13:41:26+00:00",
    }
    return Manifest(**fields | changes)


def plane_of(manifest: Manifest) -> DataPlane:
    """Create a data plane of a manifest."""
    session = FixedScores(FIXED_SCORES[manifest.table.target.task])
    return DataPlane(Bundle(Path(), manifest, cast(ort.InferenceSession, session)))


def feature_of(name: str, column: Column) -> AnyFeature:
    """Create one feature of a column."""
    if column.kind == "category":
        return OrdinalFeature(name=name, source=name, values=column.values or ("Elm", "Oak"))
    return (
        DatePartFeature(name=name, source=name, part="hour")
        if column.kind == "datetime"
        else NumericFeature(name=name, source=name)
    )


def profile_of(column: Column) -> ColumnProfile:
    """Create a profile of a column as training would."""
    missing = 0.25 if column.nullable else 0.0
    if column.kind == "numeric":
        return ColumnProfile(missing=missing, quantiles=tuple(np.linspace(0, 10, 21) ** 2))
    if column.kind == "datetime":
        return ColumnProfile(missing=missing)
    names = ("1.0", "0.0") if column.kind == "boolean" else (column.values or ("Elm", "Oak"))
    return ColumnProfile(missing=missing, shares={name: 1 / len(names) for name in names})


class FixedScores:
    """Graph with the same scores for every row."""

    def __init__(self, scores: list[float]) -> None:
        self.scores = scores

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[np.ndarray]:
        assert names == [GRAPH_OUTPUT]
        return [np.tile(np.array(self.scores, dtype=np.float32), (len(feeds[GRAPH_INPUT]), 1))]
