"""Facts about a column of a table: its kind, typed values and distinct values.

Kinds are tried with the decoder that later validates the table, so that the inferred schema accepts the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype

from model_name.core.dataframes import Frame
from model_name.core.schemas.columns import Column, Kind
from model_name.core.schemas.decoding import decode_column
from model_name.core.schemas.validation import ValidationIssues
from model_name.errors import DataError

CANDIDATE_KINDS: tuple[Kind, ...] = ("numeric", "boolean", "datetime", "category")  # the stricter decoder first
# By `dtype.kind`. float() would also convert dates, durations and complex numbers, but to meaningless numbers.
KINDS_BY_NUMPY_KIND: dict[str, tuple[Kind, ...]] = {
    "b": ("boolean",),
    "i": ("numeric",),
    "u": ("numeric",),
    "f": ("numeric",),
    "M": ("datetime",),
    "m": (),
    "c": (),
}
SAMPLE_ROWS = 200  # decoded first, to rule out a kind cheaply
MIN_TEXT_ID_VALUES = 50  # with more distinct values, in over half of the rows, a text identifies rows
UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
MAX_EXACT_INTEGER = 2**53  # beyond it float64 does not represent every integer
MIN_KEY_ROWS = 20  # with fewer rows, columns are unique by chance


@dataclass(frozen=True)
class ColumnFacts:
    """A decoded column and its distinct values.

    Attributes:
        kind: Kind of the column.
        values: The typed values.
        codes: Position of each value in `distinct`, -1 if it is missing.
        distinct: The distinct values, in the order of their first row.
        is_text: Whether the raw values are texts only.
    """

    kind: Kind
    values: NDArray[Any]
    codes: NDArray[np.int64]
    distinct: NDArray[Any]
    is_text: bool

    @property
    def missing_count(self) -> int:
        """Number of missing values."""
        return int((self.codes < 0).sum())

    @property
    def is_complete(self) -> bool:
        """Whether no value is missing."""
        return self.missing_count == 0

    @property
    def is_unique(self) -> bool:
        """Whether all values are distinct and none is missing."""
        return len(self.distinct) == len(self.values)

    @property
    def is_integer(self) -> bool:
        """Whether all values are integers that float64 represents exactly."""
        if self.kind != "numeric" or not len(self.distinct):
            return False
        is_exact = np.all(np.abs(self.distinct) < MAX_EXACT_INTEGER)
        return bool(is_exact and np.all(self.distinct == np.floor(self.distinct)))

    @property
    def is_sequence(self) -> bool:
        """Whether the column counts the rows: distinct integers that strictly increase, or strictly decrease."""
        if not (self.is_integer and self.is_complete and self.is_unique and len(self.values) >= MIN_KEY_ROWS):
            return False
        steps = np.diff(self.values)
        return bool((steps > 0).all() or (steps < 0).all())


def facts_by_column(frame: Frame, names: Sequence[str]) -> tuple[dict[str, ColumnFacts], dict[str, str]]:
    """Compute the facts of each column.

    Returns:
        The facts by name, and the data type of each column that no kind can decode by name.
    """
    facts: dict[str, ColumnFacts] = {}
    unreadable: dict[str, str] = {}
    for name in names:
        try:
            facts[name] = compute_column_facts(frame[name])
        except DataError as err:
            unreadable[name] = err.message
    return facts, unreadable


def compute_column_facts(column: "pd.Series[Any]") -> ColumnFacts:
    """Detect the kind of a column and decode its values.

    Raises:
        DataError: No kind can decode the values; the message is their data type.
    """
    raw = column.array.to_numpy()
    known = raw[~column.isna().to_numpy()]
    is_text = infer_dtype(known) == "string"
    if is_text:  # only distinct texts are decoded, which is much faster for millions of rows
        codes, texts = pd.factorize(raw)
        kind, decoded = _detect_kind(texts)
        values = np.append(decoded, np.array([None if kind == "category" else "NaT"], decoded.dtype))[codes]
    else:
        # A pandas categorical is a category, even if its categories are numbers.
        kind, values = _detect_kind(raw, ("category",) if isinstance(column.dtype, pd.CategoricalDtype) else None)
    codes, distinct = pd.factorize(values)
    if kind == "category" and _is_row_identifier(distinct, len(known)):
        kind = "text-id"
    return ColumnFacts(kind, values, codes, distinct, is_text)


def _detect_kind(raw: NDArray[Any], kinds: Sequence[Kind] | None = None) -> tuple[Kind, NDArray[Any]]:
    """Decode the values as the first kind that accepts all of them.

    Raises:
        DataError: No kind accepts all values; the message is their data type.
    """
    known = raw[~pd.isna(raw)]
    sample = known[:SAMPLE_ROWS]
    for kind in kinds or KINDS_BY_NUMPY_KIND.get(raw.dtype.kind, CANDIDATE_KINDS if len(known) else ("category",)):
        if _try_decode(sample, kind) is not None and (values := _try_decode(raw, kind)) is not None:
            return kind, values
    raise DataError(type(known[0]).__name__ if raw.dtype.kind == "O" else str(raw.dtype))


def _try_decode(raw: NDArray[Any], kind: Kind) -> NDArray[Any] | None:
    issues = ValidationIssues()
    values = decode_column("", Column(kind=kind), raw, issues)
    return None if issues.messages else values


def _is_row_identifier(distinct: NDArray[Any], known_count: int) -> bool:
    if len(distinct) > MIN_TEXT_ID_VALUES and len(distinct) > known_count / 2:
        return True
    return len(distinct) > 1 and bool(pd.Series(distinct).str.fullmatch(UUID).all())
