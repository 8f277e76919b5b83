"""Export a fitted model as a bundle, and check the parity of the bundle with the model."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model_name.core import dataframes
from model_name.core.models import Model
from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.columns import Column
from model_name.errors import ExportError
from model_name.serving.bundle import GRAPH_FILE, Bundle, ColumnProfile, Manifest, file_hash, write_manifest
from model_name.serving.dataplane import DataPlane

PARITY_ROWS = 1000
PARITY_TOLERANCE = 1e-4
MAX_PARITY_CATEGORIES = 200  # per column; more would make the parity check slow
QUANTILES = np.linspace(0, 1, 21)
UNVERSIONED_SEMVER = "0.0.0"
UNSEEN_CATEGORY = "a category that no table has"


def export_bundle(
    model: Model,
    directory: Path,
    train: pd.DataFrame,
    test: pd.DataFrame,
    *,
    name: str,
    run_id: str,
    metrics: dict[str, float],
) -> Bundle:
    """Write a bundle, load it as a server does, and check its parity. `set_version` sets the version later.

    Args:
        model: Fitted model.
        directory: Empty directory of the bundle.
        train: Rows that the model was fitted on, for the column profiles.
        test: Held-out rows, for the parity check.
        name: Name of the registered model.
        run_id: MLflow run ID of the training.
        metrics: Metrics of the model on the held-out rows.

    Raises:
        ExportError: The scores of the bundle differ from those of the model.
    """
    model.export(directory)
    schema = model.schema_
    write_manifest(
        directory,
        Manifest(
            name=name,
            semver=UNVERSIONED_SEMVER,
            version="0",
            run_id=run_id,
            kind=model.KIND,
            table=schema,
            features=model.features,
            decision=model.decision,
            profile={name: column_profile(column, train[name]) for name, column in schema.inputs.items()},
            metrics=metrics,
            example=example_row(schema, test),
            files={GRAPH_FILE: file_hash(directory / GRAPH_FILE)},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    bundle = Bundle.load(directory)
    check_parity(model, bundle, parity_rows(schema, test, seed=model.random_state))
    return bundle


def set_version(bundle: Bundle, *, semver: str, version: str) -> None:
    """Write the version that the registry assigned into the manifest of a bundle."""
    write_manifest(bundle.directory, bundle.manifest.model_copy(update={"semver": semver, "version": version}))


def check_parity(model: Model, bundle: Bundle, rows: pd.DataFrame) -> float:
    """Compare the scores of model and graph and return the largest difference.

    The decision is not applied, because both sides share its parameters and code: a step of an isotonic calibration, or
    a threshold, would only magnify the difference between the scores.

    Predictions of a regression may differ by 1e-4 relative to the prediction, or to the spread of the predictions if
    that is larger; probabilities by 1e-4.

    Raises:
        ExportError: A difference is larger than `PARITY_TOLERANCE`.
    """
    expected = model.raw_outputs(rows)
    plane = DataPlane(bundle)
    matrix = plane.matrix({str(name): rows[name].array.to_numpy() for name in rows.columns})
    served = Outputs.from_scores(plane.scores(matrix), plane.schema.classes)
    difference = prediction_difference(expected, served)
    worst = int(np.argmax(difference))
    if not difference[worst] <= PARITY_TOLERANCE:  # NaN is a difference too
        inputs = model.schema_.inputs
        shown = {name: rows[name].iloc[worst] for name in inputs if not inputs[name].sensitive}
        raise ExportError(
            f"{model.KIND}: the exported graph differs from the model by {difference[worst]:.2g} "
            f"(allowed are {PARITY_TOLERANCE:g}), e.g. for {shown}",
            hint="this is a defect of the model kind's to_onnx; nothing was registered",
        )
    return float(difference[worst])


def prediction_difference(expected: Outputs, served: Outputs) -> np.ndarray:
    """Compute the difference between two outputs for each row."""
    if expected.probabilities is not None and served.probabilities is not None:
        absolute: np.ndarray = np.abs(expected.probabilities - served.probabilities).max(axis=1)
        return absolute
    truth = np.asarray(expected.prediction, dtype=np.float64)
    scale = np.maximum(np.abs(truth), np.std(truth))
    relative: np.ndarray = np.abs(truth - served.prediction) / np.where(scale > 0, scale, 1.0)
    return relative


def parity_rows(schema: TableSchema, table: pd.DataFrame, *, seed: int = 42) -> pd.DataFrame:
    """Build rows for the parity check: real rows, missing values, every category, an unseen one, the bounds."""
    inputs = table[list(schema.inputs)]
    rows = [inputs.sample(min(PARITY_ROWS, len(inputs)), random_state=seed)]
    typical = inputs.iloc[[0]]
    nullable = [name for name, column in schema.inputs.items() if column.nullable]
    if nullable:
        rows.append(typical.assign(**dict.fromkeys(nullable, None)))
    for name, column in schema.inputs.items():
        rows += [typical.assign(**{name: [value]}) for value in edge_values(column, inputs[name])]
    joined = pd.concat([part.astype(object) for part in rows], ignore_index=True)
    raw = {str(name): joined[name].to_numpy() for name in joined.columns}
    return dataframes.from_columns(schema.decode(raw, names=list(raw)), schema)


def edge_values(column: Column, values: pd.Series) -> list[Any]:
    """List the edge cases of a column for the parity check."""
    edges: list[Any] = [None] if column.nullable else []
    if column.kind == "category":
        edges += list(column.values or values.dropna().unique())[:MAX_PARITY_CATEGORIES]
        if column.values is None or column.unseen == "other":
            edges.append(UNSEEN_CATEGORY)
    if column.kind == "numeric":
        bounds = [column.min, column.max, values.min(), values.max()]
        edges += [float(bound) for bound in bounds if bound is not None and np.isfinite(bound)]
    return edges


def column_profile(column: Column, values: pd.Series) -> ColumnProfile:
    """Compute the profile of a column in the training part."""
    known = values.dropna()
    missing = float(values.isna().mean())
    if column.kind in {"category", "boolean"}:
        shares = known.astype(str).value_counts(normalize=True)
        return ColumnProfile(missing=missing, shares={str(value): float(share) for value, share in shares.items()})
    if column.kind == "numeric" and len(known):
        return ColumnProfile(missing=missing, quantiles=tuple(float(q) for q in np.quantile(known, QUANTILES)))
    return ColumnProfile(missing=missing)


def example_row(schema: TableSchema, table: pd.DataFrame) -> dict[str, Any]:
    """Return the row with the fewest missing values as a client would send it."""
    inputs = table[list(schema.inputs)]
    row = inputs.iloc[int(np.argmin(inputs.isna().sum(axis=1).to_numpy()))]
    return {name: _to_json_value(column, row[name]) for name, column in schema.inputs.items()}


def _to_json_value(column: Column, value: Any) -> Any:
    if pd.isna(value):
        return None
    if column.kind == "datetime":
        return pd.Timestamp(value).isoformat()
    if column.kind == "boolean":
        return bool(value)
    return float(value) if column.kind == "numeric" else str(value)
