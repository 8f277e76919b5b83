"""Validation of a few rows without faults, one value after the other: numpy takes longer for arrays of a few values.

Like `FastValidator`, the validator reports no reasons and returns None for anything out of the ordinary. What it
accepts, `FastValidator` accepts with equal values.

Imports only numpy and pydantic, because servers import it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from math import isnan, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import Columns, float32_bounds
from model_name.core.schemas.fast_validation import match_datetime_lines
from model_name.core.schemas.table_schema import TableSchema

DATETIME_DTYPE = np.dtype("datetime64[us]")

TypedRow = Mapping[str, Any]
"""Typed values of one row: float (NaN if missing) of a number or boolean, text or None of a category, datetime."""


class RowValidator:
    """Validates and decodes rows of one schema in the common case that nothing is wrong."""

    def __init__(self, schema: TableSchema) -> None:
        """Collect the inputs by kind, with their positions in a row."""
        inputs = [(position, name, column) for position, (name, column) in enumerate(schema.inputs.items())]
        self._width = len(inputs)
        kinds = {column.kind for _, _, column in inputs}
        self._is_supported = not schema.rules and kinds <= {"numeric", "boolean", "category", "datetime"}
        self._numbers = [
            (position, name, *float32_bounds(column), not column.nullable)
            for position, name, column in inputs
            if column.kind == "numeric"
        ]
        self._booleans = [
            (position, name, not column.nullable) for position, name, column in inputs if column.kind == "boolean"
        ]
        self._datetimes = [(position, name) for position, name, column in inputs if column.kind == "datetime"]
        self._categories = [
            (position, name, None if column.values is None else frozenset(column.values), not column.nullable)
            for position, name, column in inputs
            if column.kind == "category"
        ]

    def validate(self, rows: Sequence[Sequence[Any]]) -> list[TypedRow] | None:
        """Validate and decode rows of raw values, in the order of the inputs.

        Returns:
            The typed rows, or None if the rows must be validated as columns.
        """
        if not self._is_supported:
            return None
        typed_rows: list[TypedRow] = []
        for row in rows:
            typed: dict[str, Any] = {}
            is_valid = (
                type(row) is list
                and len(row) == self._width
                and self._add_numbers(row, typed)
                and self._add_categories(row, typed)
                and self._add_booleans(row, typed)
                and self._add_datetimes(row, typed)
            )
            if not is_valid:
                return None
            typed_rows.append(typed)
        return typed_rows

    def _add_numbers(self, row: Sequence[Any], typed: dict[str, Any]) -> bool:
        for position, name, low, high, is_required in self._numbers:
            value = row[position]
            if type(value) is int:
                try:
                    value = float(value)
                except OverflowError:
                    return False
            elif value is None:
                value = nan
            elif type(value) is not float:
                return False
            # A comparison with NaN is false.
            if not low <= value <= high and (is_required or not isnan(value)):
                return False
            typed[name] = value
        return True

    def _add_categories(self, row: Sequence[Any], typed: dict[str, Any]) -> bool:
        for position, name, known, is_required in self._categories:
            value = row[position]
            if value is None:
                if is_required:
                    return False
            elif type(value) is not str or (known is not None and value not in known):
                return False
            typed[name] = value
        return True

    def _add_booleans(self, row: Sequence[Any], typed: dict[str, Any]) -> bool:
        for position, name, is_required in self._booleans:
            value = row[position]
            if type(value) is bool:
                typed[name] = float(value)
            elif value is None and not is_required:
                typed[name] = nan
            else:
                return False
        return True

    def _add_datetimes(self, row: Sequence[Any], typed: dict[str, Any]) -> bool:
        for position, name in self._datetimes:
            value = row[position]
            if type(value) is not str or not match_datetime_lines(value + "\n"):
                return False
            try:
                typed[name] = datetime.fromisoformat(value)
            except ValueError:  # a day beyond the end of its month, or several lines
                return False
        return True


def typed_rows_to_columns(rows: Sequence[TypedRow]) -> Columns:
    """Convert typed rows to typed columns, n values each.

    Args:
        rows: At least one row.
    """
    return {name: _to_column([row[name] for row in rows]) for name in rows[0]}


def as_columns(inputs: Columns | Sequence[TypedRow]) -> Columns:
    """Convert typed inputs to columns if they are by row."""
    return inputs if isinstance(inputs, dict) else typed_rows_to_columns(inputs)


def _to_column(values: list[Any]) -> NDArray[Any]:
    kind = type(values[0])
    if kind is float:
        return np.array(values, dtype=np.float64)
    if kind is datetime:
        return np.array(values, dtype=DATETIME_DTYPE)
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column
