"""The check of a request in its usual case, where nothing is wrong: all columns of one kind at once.

Says nothing of what is wrong: whatever is out of the ordinary is left to the schema, column by column. The schema stays
the one that decides, and what this accepts, the schema accepts with the same columns.

Needs pydantic and numpy alone, because servers import it.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import BOOLEANS, LARGEST, NUMBERS, TEXTS, Columns
from model_name.core.schemas.table_schema import TableSchema

Values = Sequence[Any] | NDArray[Any]
CHUNK_ROWS = 4096  # looked at at once: numpy holds the interpreter meanwhile, which others wait for
TEXT = frozenset({str})
MOMENTS = re.compile(
    r"(?:(?!0000)[0-9]{4}-[0-9]{2}-[0-9]{2}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]"
    r"(?::[0-5][0-9](?:\.(?:[0-9]{3}|[0-9]{6}))?)?\n)*+"
).fullmatch
"""Lines of moments that `datetime.fromisoformat` and numpy read alike; numpy is ten times as fast."""


class Acceptance:
    """The usual case of one schema."""

    def __init__(self, schema: TableSchema) -> None:
        """Collect what all columns of a kind are held against."""
        inputs = schema.inputs
        self._names = inputs.keys()
        self._has_rules = bool(schema.rules)
        numbers = {name: column for name, column in inputs.items() if column.kind == "numeric"}
        self._numbers = list(numbers)
        lows = [-LARGEST if column.min is None else max(column.min, -LARGEST) for column in numbers.values()]
        highs = [LARGEST if column.max is None else min(column.max, LARGEST) for column in numbers.values()]
        self._lows, self._highs = np.array(lows)[:, None], np.array(highs)[:, None]
        self._required = np.array([not column.nullable for column in numbers.values()], dtype=bool)
        self._booleans = {name: column.nullable for name, column in inputs.items() if column.kind == "boolean"}
        self._moments = [name for name, column in inputs.items() if column.kind == "datetime"]
        self._texts = {
            name: (None if column.values is None else {*column.values, *([None] * column.nullable)}, column.nullable)
            for name, column in inputs.items()
            if column.kind == "category"
        }

    def columns(self, table: Mapping[str, Values]) -> Columns | None:
        """The typed inputs of a request, n values each; None where the schema is to be asked."""
        if self._has_rules or table.keys() != self._names:
            return None
        rows = len(next(iter(table.values())))
        if any(len(values) != rows for values in table.values()):
            return None
        if rows <= CHUNK_ROWS:
            return self._columns(table)
        chunks = []
        for start in range(0, rows, CHUNK_ROWS):
            chunk = self._columns({name: values[start : start + CHUNK_ROWS] for name, values in table.items()})
            if chunk is None:
                return None
            chunks.append(chunk)
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    def _columns(self, table: Mapping[str, Values]) -> Columns | None:
        columns: Columns = {}
        is_usual = self._add_numbers(table, columns) and self._add_texts(table, columns)
        return (
            columns if is_usual and self._add_booleans(table, columns) and self._add_moments(table, columns) else None
        )

    def _add_numbers(self, table: Mapping[str, Values], columns: Columns) -> bool:
        if not self._numbers:
            return True
        found = [table[name] for name in self._numbers]
        if not all(_are(values, NUMBERS, "fiu") for values in found):
            return False
        try:
            block = np.array(found, dtype=np.float64)
        except OverflowError:
            return False
        if (block < self._lows).any() or (block > self._highs).any():
            return False
        if self._required.any() and np.isnan(block[self._required]).any():
            return False
        columns.update(zip(self._numbers, block, strict=True))
        return True

    def _add_texts(self, table: Mapping[str, Values], columns: Columns) -> bool:
        for name, (known, is_nullable) in self._texts.items():
            values = table[name]
            if isinstance(values, np.ndarray) or not (TEXTS if is_nullable else TEXT).issuperset(map(type, values)):
                return False
            if known is not None and not known.issuperset(values):
                return False
            columns[name] = _as_array(values, np.dtype(object))
        return True

    def _add_booleans(self, table: Mapping[str, Values], columns: Columns) -> bool:
        for name, is_nullable in self._booleans.items():
            values = table[name]
            if not _are(values, BOOLEANS, "b"):
                return False
            columns[name] = _as_array(values, np.dtype(np.float64))
            if not is_nullable and np.isnan(columns[name]).any():
                return False
        return True

    def _add_moments(self, table: Mapping[str, Values], columns: Columns) -> bool:
        for name in self._moments:
            values = table[name]
            if isinstance(values, np.ndarray) or not TEXT.issuperset(map(type, values)):
                return False
            if not MOMENTS("\n".join([*values, ""])):  # a value of two lines is none for numpy
                return False
            try:
                columns[name] = np.array(values, dtype="datetime64[us]")
            except ValueError:  # a day that its month has not
                return False
        return True


def _are(values: Values, types: frozenset[type], kinds: str) -> bool:
    """Whether all values are of some types, or of the kinds of numpy that go with them."""
    return values.dtype.kind in kinds if isinstance(values, np.ndarray) else types.issuperset(map(type, values))


def _as_array(values: Values, dtype: np.dtype[Any]) -> NDArray[Any]:
    found = np.empty(len(values), dtype=dtype)
    found[:] = values
    return found
