"""What a column of a table holds: its kind, its typed values, which of them differ.

Kinds are tried with the decoder that will read the table later, so that the schema accepts the table it came from.
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
# By NumPy's letter; float() would also take dates, durations and complex numbers, and mean something else by them.
KINDS_BY_NUMPY_KIND: dict[str, tuple[Kind, ...]] = {
    "b": ("boolean",),
    "i": ("numeric",),
    "u": ("numeric",),
    "f": ("numeric",),
    "M": ("datetime",),
    "m": (),
    "c": (),
}
SAMPLE_ROWS = 200  # that show cheaply that a kind does not fit
MIN_TEXT_ID_VALUES = 50  # more, on over half of the rows, and a text names a row rather than a category
UUID = r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
MAX_EXACT_INTEGER = 2**53  # beyond it float64 skips integers
MIN_KEY_ROWS = 20  # with fewer, columns are unique by chance


@dataclass(frozen=True)
class ColumnFacts:
    """A column as the decoder reads it.

    Attributes:
        kind: What its values are.
        values: The typed values.
        codes: The position of each in `distinct`, -1 where it is missing.
        distinct: The different ones, in the order of the table.
        is_text: Whether the table holds texts, and nothing but texts.
    """

    kind: Kind
    values: NDArray[Any]
    codes: NDArray[np.int64]
    distinct: NDArray[Any]
    is_text: bool

    @property
    def missing(self) -> int:
        """How many values are missing."""
        return int((self.codes < 0).sum())

    @property
    def is_complete(self) -> bool:
        """Whether none is missing."""
        return self.missing == 0

    @property
    def is_unique(self) -> bool:
        """Whether every row has a value of its own."""
        return len(self.distinct) == len(self.values)

    @property
    def is_integer(self) -> bool:
        """Whether it holds integers that float64 keeps apart."""
        if self.kind != "numeric" or not len(self.distinct):
            return False
        return bool(np.all(np.abs(self.distinct) < MAX_EXACT_INTEGER) and np.all(self.distinct == np.floor(self.distinct)))

    @property
    def is_sequence(self) -> bool:
        """Whether it counts the rows: different integers that only rise, or only fall."""
        if not (self.is_integer and self.is_complete and self.is_unique and len(self.values) >= MIN_KEY_ROWS):
            return False
        steps = np.diff(self.values)
        return bool((steps > 0).all() or (steps < 0).all())


def facts_by_column(frame: Frame, names: Sequence[str]) -> tuple[dict[str, ColumnFacts], dict[str, str]]:
    """What the columns hold, by name; and what those hold that no kind can read."""
    facts: dict[str, ColumnFacts] = {}
    unreadable: dict[str, str] = {}
    for name in names:
        try:
            facts[name] = compute_column_facts(frame[name])
        except DataError as err:
            unreadable[name] = err.message
    return facts, unreadable


def compute_column_facts(column: "pd.Series[Any]") -> ColumnFacts:
    """What a column holds.

    Raises:
        DataError: No kind of column can read it.
    """
    raw = column.array.to_numpy()
    known = raw[~column.isna().to_numpy()]
    is_text = infer_dtype(known) == "string"
    if is_text:  # each different text is decoded once, which a table of millions of rows can feel
        codes, texts = pd.factorize(raw)
        kind, read = _detect_kind(texts)
        values = np.append(read, np.array([None if kind == "category" else "NaT"], read.dtype))[codes]
    else:
        # What pandas holds as a category is one, also where its categories are numbers.
        kind, values = _detect_kind(raw, ("category",) if isinstance(column.dtype, pd.CategoricalDtype) else None)
    codes, distinct = pd.factorize(values)
    if kind == "category" and _is_row_identifier(distinct, len(known)):
        kind = "text-id"
    return ColumnFacts(kind, values, codes, distinct, is_text)


def _detect_kind(raw: NDArray[Any], kinds: Sequence[Kind] | None = None) -> tuple[Kind, NDArray[Any]]:
    """The values as the first kind that takes them all.

    Raises:
        DataError: None does.
    """
    known = raw[~pd.isna(raw)]
    glance = known[:SAMPLE_ROWS]
    for kind in kinds or KINDS_BY_NUMPY_KIND.get(raw.dtype.kind, CANDIDATE_KINDS if len(known) else ("category",)):
        if _try_decode(glance, kind) is not None and (values := _try_decode(raw, kind)) is not None:
            return kind, values
    raise DataError(type(known[0]).__name__ if raw.dtype.kind == "O" else str(raw.dtype))


def _try_decode(raw: NDArray[Any], kind: Kind) -> NDArray[Any] | None:
    issues = ValidationIssues()
    values = decode_column("", Column(kind=kind), raw, issues)
    return None if issues.messages else values


def _is_row_identifier(distinct: NDArray[Any], known: int) -> bool:
    if len(distinct) > MIN_TEXT_ID_VALUES and len(distinct) > known / 2:
        return True
    return len(distinct) > 1 and bool(pd.Series(distinct).str.fullmatch(UUID).all())
