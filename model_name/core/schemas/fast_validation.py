"""Fast validation of requests without faults: all columns of one kind are checked at once.

The validator reports no reasons. It returns None for anything out of the ordinary, and the caller then validates column
by column with `TableSchema`. The schema is the reference: whatever the validator accepts, the schema accepts with the
same columns.

Imports only numpy and pydantic, because servers import it.
"""

import re
from collections.abc import Mapping

import numpy as np

from model_name.core.schemas.columns import Columns, MatrixColumns, float32_bounds
from model_name.core.schemas.decoding import BOOLEAN_TYPES, NUMBER_TYPES, TEXT_TYPES, RawValues, to_array
from model_name.core.schemas.table_schema import TableSchema

CHUNK_ROWS = 4096  # checked at once; numpy holds the GIL meanwhile, which blocks other threads
NON_NULL_TEXT_TYPES = frozenset({str})
match_datetime_lines = re.compile(
    r"(?:(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]"
    r"(?::[0-5][0-9](?:\.(?:[0-9]{3}|[0-9]{6}))?)?\n)*+"
).fullmatch
"""Matches lines of datetimes that `datetime.fromisoformat` and numpy parse alike; numpy is ten times as fast."""


class FastValidator:
    """Validates the requests of one schema in the common case that nothing is wrong."""

    def __init__(self, schema: TableSchema) -> None:
        """Collect the bounds, nullability and categories of the inputs by kind."""
        inputs = schema.inputs
        self._names = inputs.keys()
        self._has_rules = bool(schema.rules)
        numbers = {name: column for name, column in inputs.items() if column.kind == "numeric"}
        self._number_names = list(numbers)
        bounds = np.array([*map(float32_bounds, numbers.values())], dtype=np.float64).reshape(-1, 2)
        self._minimums, self._maximums = bounds[:, :1], bounds[:, 1:]
        self._is_required = np.array([not column.nullable for column in numbers.values()], dtype=bool)
        self._booleans = {name: column.nullable for name, column in inputs.items() if column.kind == "boolean"}
        self._datetime_names = [name for name, column in inputs.items() if column.kind == "datetime"]
        self._categories = {
            name: (None if column.values is None else {*column.values, *([None] * column.nullable)}, column.nullable)
            for name, column in inputs.items()
            if column.kind == "category"
        }

    def validate(self, table: Mapping[str, RawValues]) -> Columns | None:
        """Validate and decode the inputs of a request.

        Returns:
            The typed inputs, n values each, or None if the request must be validated by the schema.
        """
        if self._has_rules or table.keys() != self._names:
            return None
        rows = len(next(iter(table.values())))
        if any(len(values) != rows for values in table.values()):
            return None
        if rows <= CHUNK_ROWS:
            return self._validate_chunk(table)
        chunks = []
        for start in range(0, rows, CHUNK_ROWS):
            chunk = self._validate_chunk({name: values[start : start + CHUNK_ROWS] for name, values in table.items()})
            if chunk is None:
                return None
            chunks.append(chunk)
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _validate_chunk(self, table: Mapping[str, RawValues]) -> Columns | None:
        columns = self._decode_numbers(table)
        is_valid = (
            columns is not None
            and self._add_categories(table, columns)
            and self._add_booleans(table, columns)
            and self._add_datetimes(table, columns)
        )
        return columns if is_valid else None

    def _decode_numbers(self, table: Mapping[str, RawValues]) -> Columns | None:
        if not self._number_names:
            return {}
        raw = [table[name] for name in self._number_names]
        if not all(_all_of_type(values, NUMBER_TYPES, "fiu") for values in raw):
            return None
        try:
            block = np.array(raw, dtype=np.float64)
        except OverflowError:
            return None
        if (block < self._minimums).any() or (block > self._maximums).any():
            return None
        if self._is_required.any() and np.isnan(block[self._is_required]).any():
            return None
        return MatrixColumns(self._number_names, block)

    def _add_categories(self, table: Mapping[str, RawValues], columns: Columns) -> bool:
        for name, (known, is_nullable) in self._categories.items():
            values = table[name]
            types = TEXT_TYPES if is_nullable else NON_NULL_TEXT_TYPES
            if isinstance(values, np.ndarray) or not types.issuperset(map(type, values)):
                return False
            if known is not None and not known.issuperset(values):
                return False
            columns[name] = to_array(values, np.dtype(object))
        return True

    def _add_booleans(self, table: Mapping[str, RawValues], columns: Columns) -> bool:
        for name, is_nullable in self._booleans.items():
            values = table[name]
            if not _all_of_type(values, BOOLEAN_TYPES, "b"):
                return False
            columns[name] = to_array(values, np.dtype(np.float64))
            if not is_nullable and np.isnan(columns[name]).any():
                return False
        return True

    def _add_datetimes(self, table: Mapping[str, RawValues], columns: Columns) -> bool:
        for name in self._datetime_names:
            values = table[name]
            if isinstance(values, np.ndarray) or not NON_NULL_TEXT_TYPES.issuperset(map(type, values)):
                return False
            if not match_datetime_lines("\n".join([*values, ""])):  # numpy rejects a value with a line break
                return False
            try:
                columns[name] = np.array(values, dtype="datetime64[us]")
            except ValueError:  # a day beyond the end of its month
                return False
        return True


def _all_of_type(values: RawValues, types: frozenset[type], array_kinds: str) -> bool:
    """Return whether all values are of the types, or an array is of one of the numpy kinds."""
    return values.dtype.kind in array_kinds if isinstance(values, np.ndarray) else types.issuperset(map(type, values))
