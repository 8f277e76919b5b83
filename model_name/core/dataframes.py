"""Validation of pandas frames against a schema, and conversion between frames and typed columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model_name.core.schemas import Label, Outputs, TableSchema, Target
from model_name.core.schemas.columns import (
    FLOAT32_MAX,
    Column,
    Columns,
    and_more,
    display_value,
    is_missing,
    label_text,
)
from model_name.core.schemas.decoding import decode_column, parse_number
from model_name.core.schemas.lags import compute_lags
from model_name.core.schemas.validation import CheckReport, ValidationIssues
from model_name.errors import DataError

if TYPE_CHECKING:
    import pandera.pandas as pa

Frame = pd.DataFrame

DTYPE_BY_KIND = {
    "numeric": "float64",
    "boolean": "float64",
    "datetime": "datetime64[us]",
    "category": "object",
    "text-id": "object",
}


@dataclass(frozen=True)
class CheckedFrame:
    """A validated frame.

    Attributes:
        frame: Typed rows that fit the schema.
        report: Counts of what the check dropped and changed.
    """

    frame: Frame
    report: CheckReport


def check_frame(frame: Frame, schema: TableSchema, *, with_target: bool = True) -> CheckedFrame:
    """Validate a frame against its schema; the rows keep their order.

    Args:
        frame: A raw table with the columns of the schema, and the target if `with_target`.
        schema: Schema of the table.
        with_target: Whether the target must be present; otherwise it is left out of the result.

    Returns:
        The typed frame, columns in the order of the schema, and a report of dropped rows, clipped values and ignored
        columns.

    Raises:
        DataError: The schema refuses a column or a value, the table is empty, or the target is constant.
    """
    if frame.empty:
        raise DataError("the table is empty: it has no rows", hint="check the path and the limit of its reader")
    ignored = _find_extra_columns(frame, schema)
    names = list(schema.columns)
    columns = schema.decode({str(name): frame[name].array.to_numpy() for name in frame.columns}, names=names)
    columns, keep, report = schema.check_columns(columns, may_drop=True)
    report.ignored = ignored
    typed = from_columns(columns, schema).set_axis(frame.index)
    if with_target:
        typed[schema.target.name] = decode_target(frame, schema.target)
    typed = typed.loc[keep]
    typed = _drop_duplicates(typed, schema, report)
    if typed.empty:
        raise DataError("no row of the table is left after the check: " + "; ".join(report.messages()))
    if with_target and typed[schema.target.name].nunique() < 2:
        value = typed[schema.target.name].iloc[0]
        raise DataError(f"the target {schema.target.name} is constant: {value}; there is nothing to learn")
    report.kept = len(typed)
    check_pandera_schema(typed, schema, with_target=with_target)
    return CheckedFrame(typed, report)


def add_lag_columns(frame: Frame, schema: TableSchema) -> Frame:
    """Compute the lag columns of a raw table; those that it already has are kept.

    Raises:
        DataError: A source column of a lag is absent or cannot be decoded.
    """
    specs = {name: column.history for name, column in schema.lag_columns.items() if name not in frame.columns}
    if not specs:
        return frame
    _check_duplicate_names(frame)
    computed = {}
    for name, spec in specs.items():
        if spec is None:  # for mypy: set in all of `lag_columns`
            continue
        sources = [spec.of, str(schema.time), *spec.by]
        absent = [column for column in sources if column not in frame.columns]
        if absent:
            hint = f"bring it, or bring {name} itself"
            raise DataError(f"{name}: is a history of {absent[0]}, which is not a column of the table", hint=hint)
        times, values = (_decode_lag_source(frame, schema, column) for column in (str(schema.time), spec.of))
        computed[name] = compute_lags(spec, times, _entity_codes(frame, spec.by), values)
    return frame.assign(**computed)


def _entity_codes(frame: Frame, by: Sequence[str]) -> np.ndarray:
    """Number the entity of each row; all rows are of one entity if no column identifies it."""
    if not by:
        return np.zeros(len(frame), dtype=np.int64)
    return frame.groupby(list(by), dropna=False, sort=False, observed=True).ngroup().to_numpy()


def lag_warnings(frame: Frame, schema: TableSchema) -> list[str]:
    """Warn of lag columns that average several rows of the same entity and time.

    Args:
        frame: The raw table, before `add_lag_columns`.
        schema: Schema of the table.
    """
    warnings = []
    for name, column in schema.lag_columns.items():
        spec = column.history
        if spec is None or name in frame.columns:  # a present column is not computed
            continue
        group = [*spec.by, str(schema.time)]
        shared = int(frame.duplicated(group, keep=False).sum())
        if shared:
            warnings.append(f"{name}: {shared} rows share their {', '.join(group)}; it is the mean over such rows")
    return warnings


def _decode_lag_source(frame: Frame, schema: TableSchema, name: str) -> np.ndarray:
    """Decode the time or source column of a lag to datetimes or numbers.

    A binary target becomes 1 for the positive class, else 0. The target may be missing, in rows to predict.
    """
    values = frame[name].array.to_numpy()
    if name != schema.target.name:
        return schema.decode({name: values}, names=[name])[name]
    if schema.classes:
        positive = label_text(schema.classes[1])
        return np.array([np.nan if is_missing(value) else float(label_text(value) == positive) for value in values])
    issues = ValidationIssues()
    decoded = decode_column(name, Column(kind="numeric", nullable=True), values, issues)
    issues.raise_if_any()
    return decoded


def pandera_schema(schema: TableSchema, *, with_target: bool = True) -> "pa.DataFrameSchema":
    """Derive the Pandera schema of checked frames."""
    import pandera.pandas as pa

    columns = {name: _pandera_column(column) for name, column in schema.columns.items()}
    if with_target:
        labels = list(schema.classes)
        checks = [pa.Check.isin(labels)] if labels else [pa.Check(np.isfinite, name="finite")]
        columns[schema.target.name] = pa.Column("object" if labels else "float64", checks=checks)
    return pa.DataFrameSchema(columns, strict=True, ordered=True, unique=list(schema.key) or None)


def check_pandera_schema(frame: Frame, schema: TableSchema, *, with_target: bool = True) -> None:
    """Check that a frame obeys the derived Pandera schema.

    Raises:
        DataError: The frame violates the Pandera schema.
    """
    import pandera.pandas as pa

    try:
        pandera_schema(schema, with_target=with_target).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as err:
        cases = err.failure_cases.head(5)
        failures = "; ".join(_describe_failure(case, schema) for case in cases.itertuples())
        raise DataError(f"the table does not obey the schema {schema.name}: {failures}") from err


def to_columns(frame: Frame, schema: TableSchema) -> Columns:
    """Decode and check the input columns of a frame, such as a checked frame or the rows of a request.

    Raises:
        DataError: An input is absent, or the schema refuses a value.
    """
    _check_duplicate_names(frame)
    return schema.check_request(
        {str(name): frame[name].array.to_numpy() for name in frame.columns if name != schema.target.name}
    )


def from_columns(columns: Columns, schema: TableSchema) -> Frame:
    """Convert typed columns to a frame."""
    return Frame(
        {name: pd.Series(values, dtype=DTYPE_BY_KIND[schema.columns[name].kind]) for name, values in columns.items()}
    )


def decode_target(frame: Frame, target: Target) -> np.ndarray:
    """Decode the target of a frame: float64 for a regression, labels for a classification.

    Raises:
        DataError: The target is absent, missing in a row, infinite, or not one of the classes.
    """
    if target.name not in frame.columns:
        raise DataError(
            f"{target.name}: the target is not a column of the table",
            hint=f"the columns are {', '.join(map(str, frame.columns))}",
        )
    values = frame[target.name].array.to_numpy()
    if target.classes is None and values.dtype.kind in "fiu" and np.isfinite(values).all():
        return np.asarray(values, dtype=np.float64)  # the common case of a regression; far faster than value by value
    labels = {label_text(label): label for label in target.classes or ()}
    decoded = np.empty(len(values), dtype=object if labels else np.float64)
    issues = ValidationIssues()
    for row, value in enumerate(values):
        decoded[row], reason = _decode_label(value, labels)
        if reason:
            issues.add(target.name, [row], lambda _, text=reason: text, len(values))
    issues.raise_if_any()
    return decoded


def target_codes(frame: Frame, schema: TableSchema) -> np.ndarray:
    """Encode the target of a checked frame for fitting: numbers of a regression, else positions in the classes.

    Raises:
        DataError: A class has no row in the frame.
    """
    targets = frame[schema.target.name]
    if not schema.classes:
        return targets.to_numpy(dtype=np.float64)
    positions = {label: code for code, label in enumerate(schema.classes)}
    codes = np.array([positions[label] for label in targets])
    absent = [label for code, label in enumerate(schema.classes) if not (codes == code).any()]
    if absent:
        raise DataError(
            f"the training part has no row of class {absent[0]!r}",
            hint="take it out of the schema's classes, bring rows of it, or split otherwise",
        )
    return codes


def is_time_sorted(frame: Frame, schema: TableSchema) -> bool:
    """Return whether the rows are sorted by time, so that the last ones are the newest."""
    return schema.time is not None and bool(frame[schema.time].is_monotonic_increasing)


def fingerprint(frame: Frame) -> str:
    """Compute the SHA-256 of a table's column names, values and row order."""
    digest = sha256(repr(list(frame.columns)).encode())
    digest.update(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    return digest.hexdigest()


def outputs_frame(outputs: Outputs, index: pd.Index | None = None) -> Frame:
    """Convert the outputs of a model to a frame with the index of its rows."""
    return Frame(outputs.columns, index=index)


def _decode_label(value: object, labels: dict[str, Label]) -> tuple[Label | float | None, str]:
    """Decode one value of the target.

    Returns:
        The value, and the reason why it is invalid, which is empty for a valid one.
    """
    invalid = None if labels else np.nan
    if is_missing(value):
        return invalid, "the target is missing"
    if labels:
        text = label_text(value.decode(errors="replace") if isinstance(value, bytes) else value)
        return (labels[text], "") if text in labels else (invalid, f"{value!r} is not one of its classes")
    try:
        number = parse_number(value)
    except (ValueError, TypeError, OverflowError):
        return invalid, f"{value!r} is not a number"
    return number, "" if np.isfinite(number) else f"{value} is not finite"


def _find_extra_columns(frame: Frame, schema: TableSchema) -> tuple[str, ...]:
    _check_duplicate_names(frame)
    extra = tuple(str(name) for name in frame.columns if name not in schema.columns and name != schema.target.name)
    if extra and schema.extra == "refuse":
        raise DataError(
            f"{extra[0]}: is not a column of the schema {schema.name}{and_more(extra[1:])}",
            hint="add it to the schema, or set `extra: drop` there",
        )
    return extra


def _check_duplicate_names(frame: Frame) -> None:
    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{name}: the table has this column twice")


def _describe_failure(case: Any, schema: TableSchema) -> str:
    column = schema.columns.get(case.column)
    return f"{case.column}: {case.check} ({display_value(column, case.failure_case) if column else case.failure_case})"


def _drop_duplicates(frame: Frame, schema: TableSchema, report: CheckReport) -> Frame:
    if not schema.key and schema.duplicates == "refuse":  # without a key, equal rows may be distinct cases
        return frame
    is_duplicate = frame.duplicated(subset=list(schema.key) or None)
    if not is_duplicate.any():
        return frame
    if schema.duplicates == "refuse":
        first = frame.loc[is_duplicate].iloc[0]
        key = ", ".join(f"{name}={display_value(schema.columns[name], first[name])}" for name in schema.key)
        raise DataError(
            f"{int(is_duplicate.sum())} rows have the key of an earlier row, the first is {key}",
            hint="mend the table, or set `duplicates: drop` in the schema",
        )
    report.dropped["key of an earlier row" if schema.key else "equal to an earlier row"] = int(is_duplicate.sum())
    return frame.loc[~is_duplicate]


def _pandera_column(column: Column) -> "pa.Column":
    import pandera.pandas as pa

    checks = []
    if column.min is not None:
        checks.append(pa.Check.ge(column.min))
    if column.max is not None:
        checks.append(pa.Check.le(column.max))
    if column.kind == "numeric":
        checks.append(pa.Check(lambda values: np.abs(values) <= FLOAT32_MAX, name="finite"))
    if column.values is not None and column.unseen == "refuse":
        checks.append(pa.Check.isin(list(column.values)))
    if column.kind == "boolean":
        checks.append(pa.Check.isin([0.0, 1.0]))
    return pa.Column(DTYPE_BY_KIND[column.kind], checks=checks, nullable=column.nullable)
