"""Pandas frames at the boundaries: checked against the schema, with what was done counted and told."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from model_name.core.columns import (
    LARGEST,
    CheckReport,
    Column,
    Columns,
    Problems,
    also,
    is_missing,
    label_text,
    read_number,
    shown,
)
from model_name.core.schemas import Label, Outputs, TableSchema, Target
from model_name.errors import DataError

if TYPE_CHECKING:
    import pandera.pandas as pa

Frame = pd.DataFrame

DTYPES = {
    "numeric": "float64",
    "boolean": "float64",
    "datetime": "datetime64[us]",
    "category": "object",
    "text-id": "object",
}


@dataclass(frozen=True)
class Checked:
    """A frame that fits its schema, and what had to be done to it."""

    frame: Frame
    report: CheckReport


def check(frame: Frame, schema: TableSchema, *, with_target: bool = True) -> Checked:
    """Hold a frame against its schema; the rows keep their order.

    Args:
        frame: A table with the columns of the schema, and the target where asked for.
        schema: What the table must be.
        with_target: Whether the target must be there; otherwise it is left out if it is.

    Returns:
        The typed frame, columns in the order of the schema, and a report of dropped rows, clipped values and ignored
        columns.

    Raises:
        DataError: A column or value that the schema refuses, an empty table, a constant target.
    """
    if frame.empty:
        raise DataError("the table is empty: it has no rows", hint="check the path and the limit of its reader")
    ignored = _extra_columns(frame, schema)
    names = list(schema.columns)
    columns = schema.decode({str(name): frame[name].array.to_numpy() for name in frame.columns}, names=names)
    columns, keep, report = schema.apply(columns, may_drop=True)
    report.ignored = ignored
    typed = from_columns(columns, schema).set_axis(frame.index)
    if with_target:
        typed[schema.target.name] = decode_target(frame, schema.target)
    typed = typed.loc[keep]
    typed = _without_duplicates(typed, schema, report)
    if typed.empty:
        raise DataError("no row of the table is left after the check: " + "; ".join(report.sentences()))
    if with_target and typed[schema.target.name].nunique() < 2:
        value = typed[schema.target.name].iloc[0]
        raise DataError(f"the target {schema.target.name} is constant: {value}; there is nothing to learn")
    report.kept = len(typed)
    validate(typed, schema, with_target=with_target)
    return Checked(typed, report)


def pandera_schema(schema: TableSchema, *, with_target: bool = True) -> "pa.DataFrameSchema":
    """The Pandera schema that a checked frame obeys."""
    import pandera.pandas as pa

    columns = {name: _pandera_column(column) for name, column in schema.columns.items()}
    if with_target:
        labels = list(schema.classes)
        checks = [pa.Check.isin(labels)] if labels else [pa.Check(np.isfinite, name="finite")]
        columns[schema.target.name] = pa.Column("object" if labels else "float64", checks=checks)
    return pa.DataFrameSchema(columns, strict=True, ordered=True, unique=list(schema.key) or None)


def validate(frame: Frame, schema: TableSchema, *, with_target: bool = True) -> None:
    """Assert that a frame obeys the derived Pandera schema.

    Raises:
        DataError: It does not.
    """
    import pandera.pandas as pa

    try:
        pandera_schema(schema, with_target=with_target).validate(frame, lazy=True)
    except pa.errors.SchemaErrors as err:
        cases = err.failure_cases.head(5)
        found = "; ".join(_failure(case, schema) for case in cases.itertuples())
        raise DataError(f"the table does not obey the schema {schema.name}: {found}") from err


def to_columns(frame: Frame, schema: TableSchema) -> Columns:
    """The typed input columns of a frame that was checked, or that a request brought.

    Raises:
        DataError: An input is missing or a value does not fit.
    """
    _no_name_twice(frame)
    return schema.check_request(
        {str(name): frame[name].array.to_numpy() for name in frame.columns if name != schema.target.name}
    )


def from_columns(columns: Columns, schema: TableSchema) -> Frame:
    """Typed columns as a frame."""
    return Frame({name: pd.Series(values, dtype=DTYPES[schema.columns[name].kind]) for name, values in columns.items()})


def decode_target(frame: Frame, target: Target) -> np.ndarray:
    """The typed target of a frame: float64 of a regression, labels of a classification.

    Raises:
        DataError: It is not there, missing in a row, infinite, or not one of the classes.
    """
    if target.name not in frame.columns:
        raise DataError(
            f"{target.name}: the target is not a column of the table",
            hint=f"the columns are {', '.join(map(str, frame.columns))}",
        )
    values = frame[target.name].array.to_numpy()
    labels = {label_text(label): label for label in target.classes or ()}
    decoded = np.empty(len(values), dtype=object if labels else np.float64)
    problems = Problems()
    for row, value in enumerate(values):
        decoded[row], reason = _decode_label(value, labels)
        if reason:
            problems.add(target.name, [row], lambda _, words=reason: words, len(values))
    problems.raise_if_any()
    return decoded


def outputs_frame(outputs: Outputs, index: pd.Index | None = None) -> Frame:
    """What a model answered, as a frame with the index of its rows."""
    return Frame(outputs.columns, index=index)


def _decode_label(value: object, labels: dict[str, Label]) -> tuple[Label | float | None, str]:
    """One value of the target, and what is wrong with it."""
    nothing = None if labels else np.nan
    if is_missing(value):
        return nothing, "the target is missing"
    if labels:
        text = label_text(value.decode(errors="replace") if isinstance(value, bytes) else value)
        return (labels[text], "") if text in labels else (nothing, f"{value!r} is not one of its classes")
    try:
        number = read_number(value)
    except (ValueError, TypeError, OverflowError):
        return nothing, f"{value!r} is not a number"
    return number, "" if np.isfinite(number) else f"{value} is not finite"


def _extra_columns(frame: Frame, schema: TableSchema) -> tuple[str, ...]:
    _no_name_twice(frame)
    extra = tuple(str(name) for name in frame.columns if name not in schema.columns and name != schema.target.name)
    if extra and schema.extra == "refuse":
        raise DataError(
            f"{extra[0]}: is not a column of the schema {schema.name}{also(extra[1:])}",
            hint="add it to the schema, or set `extra: drop` there",
        )
    return extra


def _no_name_twice(frame: Frame) -> None:
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{twice}: the table has this column twice")


def _failure(case: Any, schema: TableSchema) -> str:
    column = schema.columns.get(case.column)
    return f"{case.column}: {case.check} ({shown(column, case.failure_case) if column else case.failure_case})"


def _without_duplicates(frame: Frame, schema: TableSchema, report: CheckReport) -> Frame:
    if not schema.key:
        return frame
    again = frame.duplicated(subset=list(schema.key))
    if not again.any():
        return frame
    if schema.duplicates == "refuse":
        first = frame.loc[again].iloc[0]
        key = ", ".join(f"{name}={shown(schema.columns[name], first[name])}" for name in schema.key)
        raise DataError(
            f"{int(again.sum())} rows have the key of an earlier row, the first is {key}",
            hint="mend the table, or set `duplicates: drop` in the schema",
        )
    report.dropped["key of an earlier row"] = int(again.sum())
    return frame.loc[~again]


def _pandera_column(column: Column) -> "pa.Column":
    import pandera.pandas as pa

    checks = []
    if column.min is not None:
        checks.append(pa.Check.ge(column.min))
    if column.max is not None:
        checks.append(pa.Check.le(column.max))
    if column.kind == "numeric":
        checks.append(pa.Check(lambda values: np.abs(values) <= LARGEST, name="finite"))
    if column.values is not None and column.unseen == "refuse":
        checks.append(pa.Check.isin(list(column.values)))
    if column.kind == "boolean":
        checks.append(pa.Check.isin([0.0, 1.0]))
    return pa.Column(DTYPES[column.kind], checks=checks, nullable=column.nullable)
