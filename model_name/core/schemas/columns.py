"""One column of a table: what it may hold, how raw values are read, and what is done about those that do not fit.

Needs pydantic and numpy alone, because servers import it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator

from model_name.core.schemas.encodings import Encoding
from model_name.core.schemas.lags import History
from model_name.core.schemas.strict_models import Frozen, Many
from model_name.errors import DataError

Kind = Literal["numeric", "category", "boolean", "datetime", "text-id"]
Columns = dict[str, NDArray[Any]]
"""A table by column, one array of length n each: float64 with NaN for numeric and boolean, datetime64[us] with NaT
for datetime, objects (str or None) for category and text-id."""
MAX_PROBLEMS = 10  # that one error names; the rest are counted
LARGEST = float(np.finfo(np.float32).max)  # number that a served graph can be given


class Column(Frozen):
    """One column of a table.

    Attributes:
        kind: What its values are.
        nullable: Whether a value may be missing.
        min: Smallest allowed value of a numeric column.
        max: Largest allowed value of a numeric column.
        out_of_bounds: What happens to a row beyond the bounds. A request cannot drop a row: it is refused instead.
        values: The categories of a category column; fitted on the training part where not given.
        unseen: What happens to a category that is not in `values`: `other` treats it as missing.
        feature: Whether the model may look at it. A `text-id` never is a feature.
        sensitive: Whether its values must not appear in logs.
        encode: How it becomes features.
        history: What it tells of earlier rows, where the preparation makes it from the table; a request must bring it.
        description: For people.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    kind: Kind
    nullable: bool = False
    min: float | None = None
    max: float | None = None
    out_of_bounds: Literal["refuse", "clip", "drop"] = "refuse"
    values: Many[str] | None = None
    unseen: Literal["refuse", "other"] = "other"
    feature: bool = True
    sensitive: bool = False
    encode: Encoding = Encoding()
    history: History | None = None
    description: str = ""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        if self.kind != "numeric" and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max belong to numeric columns, this one is {self.kind}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.values is not None and self.kind != "category":
            raise ValueError(f"values belong to category columns, this one is {self.kind}")
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise ValueError("values names a category twice")
        foreign = self.encode.foreign_to(self.kind)
        if foreign:
            raise ValueError(f"encode.{foreign[0]} does not belong to a {self.kind} column")
        if self.history is not None and (self.kind != "numeric" or not self.nullable):
            raise ValueError("a history is `kind: numeric, nullable: true`: the first rows have none")
        return self

    @property
    def contract(self) -> tuple[Any, ...]:
        """What decides whether a value of it is accepted."""
        bounds = None if self.out_of_bounds == "clip" else (self.min, self.max)
        values = self.values if self.unseen == "refuse" else None
        return (self.kind, self.nullable, bounds, values)

    @property
    def is_input(self) -> bool:
        """Whether a request must carry it."""
        return self.feature and self.kind != "text-id"


@dataclass
class CheckReport:
    """What a check saw and did; nothing that it drops or clips goes untold."""

    rows: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def add(self, other: Self) -> None:
        """Count another batch of the same table in."""
        self.rows += other.rows
        self.kept += other.kept
        self.ignored = tuple(dict.fromkeys(self.ignored + other.ignored))
        for mine, theirs in ((self.dropped, other.dropped), (self.clipped, other.clipped), (self.others, other.others)):
            for reason, count in theirs.items():
                mine[reason] = mine.get(reason, 0) + count

    def sentences(self) -> list[str]:
        """One line a finding, for a log or a report."""
        return [
            *(f"{count} of {self.rows} rows dropped: {reason}" for reason, count in self.dropped.items()),
            *(f"{count} values of {name} clipped to its bounds" for name, count in self.clipped.items()),
            *(
                f"{count} values of {name} are unseen categories, taken as missing"
                for name, count in self.others.items()
            ),
            *(f"column {name} is not in the schema and was dropped" for name in self.ignored),
            *self.notes,
        ]


class Problems:
    """Collects what is wrong with a table, so that one error can name several values."""

    def __init__(self, first_row: int | None = None) -> None:
        """Start with none; `first_row` is the number of the first row in the table that these are a part of."""
        self.first_row = first_row
        self.found: list[str] = []
        self.count = 0

    def add(self, name: str, rows: NDArray[np.int_] | Sequence[int], reason: Any, total: int) -> None:
        """Note what is wrong with some rows of one column; `reason` is called with a row."""
        self.count += len(rows)
        for row in rows[: MAX_PROBLEMS - len(self.found)]:
            # A request of one row has no use for a row number.
            is_request = self.first_row is None and total == 1
            place = name if is_request else f"{name}, row {row + (self.first_row or 0)}"
            self.found.append(f"{place}: {reason(row)}")

    def raise_if_any(self) -> None:
        """Raise what was collected as one `DataError`."""
        if self.found:
            more = self.count - len(self.found)
            raise DataError("; ".join(self.found) + (f"; and {more} more" if more else ""))


def also(names: Sequence[str]) -> str:
    """`" (and a, b)"`, or nothing."""
    return f" (and {', '.join(names)})" if names else ""


def label_text(label: Any) -> str:
    """The spelling that a category or a label has everywhere: `true`, `3`, `abc`."""
    if isinstance(label, bool | np.bool_):
        return str(bool(label)).lower()
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return label.decode() if isinstance(label, bytes) else str(label)


def shown(column: Column, value: Any) -> str:
    """A value as a message may hold it; messages are logged and posted, so that a sensitive one is not."""
    if column.sensitive:
        return "the value"
    return repr(value) if isinstance(value, str) else str(value)


def is_missing(value: Any) -> bool:
    """Whether a raw value stands for nothing: None, NaN, NaT or pandas' NA."""
    return (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float | np.floating) and np.isnan(value))
    )


def decode_column(name: str, column: Column, values: Sequence[Any] | NDArray[Any], problems: Problems) -> NDArray[Any]:
    """Raw values of one column as its typed array; what cannot be read is added to the problems."""
    reading = READINGS[column.kind]
    if isinstance(values, np.ndarray) and values.dtype.kind in reading.direct:
        return values.astype(reading.dtype)
    if column.kind == "boolean" and isinstance(values, np.ndarray) and _are_booleans(values):
        return values.astype(reading.dtype)
    if reading.usual.issuperset(map(type, values)):  # the usual case, ten times as fast
        try:
            return _converted(values, reading.dtype)
        except OverflowError:  # an integer too large for a float, to be named
            pass
    return _decode_each(name, reading, values, problems)


def _converted(values: Sequence[Any] | NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    decoded = np.empty(len(values), dtype=dtype)
    decoded[:] = values  # None becomes NaN where numbers go
    return decoded


def _are_booleans(values: NDArray[Any]) -> bool:
    """Whether numbers are booleans as a checked frame holds them: 0, 1 and NaN."""
    return values.dtype.kind in "fiu" and bool((np.isnan(values) | (values == 0) | (values == 1)).all())


@dataclass(frozen=True)
class Reading:
    """How raw values of a kind of column are read.

    Attributes:
        read: One value; raises what Python raises for a value that is of another kind.
        dtype: Of the typed array.
        reason: What is said of a value that cannot be read.
        direct: The kinds of numpy arrays that need no reading value by value.
        usual: The types of values that need none either.
    """

    read: Callable[[Any], Any]
    dtype: np.dtype[Any]
    reason: str
    direct: str = ""
    usual: frozenset[type] = frozenset()


def _decode_each(name: str, reading: Reading, values: Sequence[Any] | NDArray[Any], problems: Problems) -> NDArray[Any]:
    empty = {"O": None, "M": np.datetime64("NaT"), "f": np.nan}[reading.dtype.kind]
    decoded = np.empty(len(values), dtype=reading.dtype)
    wrong = []
    for row, value in enumerate(values):
        if is_missing(value):
            decoded[row] = empty
            continue
        try:
            decoded[row] = reading.read(value)
        except (ValueError, TypeError, OverflowError):
            decoded[row] = empty
            wrong.append(row)
    problems.add(name, wrong, lambda row: reading.reason, len(values))
    return decoded


def _read_text(value: Any) -> str:
    if isinstance(value, str | bool | int | float | bytes | np.generic):
        return label_text(value)
    raise TypeError


def read_number(value: Any) -> float:
    """A raw value as a number; one that is none raises TypeError, ValueError or OverflowError."""
    # A text is no number, even where it looks like one: a client that quotes numbers has a bug to learn of.
    if isinstance(value, bool | np.bool_ | str | bytes | np.complexfloating | np.datetime64 | np.timedelta64):
        raise TypeError
    return float(value)


def _read_boolean(value: Any) -> float:
    if isinstance(value, bool | np.bool_) or (isinstance(value, int | float | np.number) and value in (0, 1)):
        return float(value)
    raise TypeError


def _read_datetime(value: Any) -> np.datetime64:
    if isinstance(value, np.datetime64):
        in_us: np.datetime64 = value.astype("datetime64[us]")
        return in_us
    if isinstance(value, date) and not isinstance(value, datetime):  # as Parquet's date32 arrives
        return np.datetime64(value, "us")
    if isinstance(value, bytes):
        value = value.decode()
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is not None:  # a moment with a zone is kept as UTC, one without as it stands
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


NUMBERS: frozenset[type] = frozenset({float, int, type(None)})
BOOLEANS: frozenset[type] = frozenset({bool, type(None)})
TEXTS: frozenset[type] = frozenset({str, type(None)})
READINGS: dict[Kind, Reading] = {
    "numeric": Reading(read_number, np.dtype(np.float64), "not a number", direct="fiu", usual=NUMBERS),
    "boolean": Reading(_read_boolean, np.dtype(np.float64), "not a boolean", direct="b", usual=BOOLEANS),
    "datetime": Reading(_read_datetime, np.dtype("datetime64[us]"), "not a date and time (ISO 8601)", direct="M"),
    "category": Reading(_read_text, np.dtype(object), "not a text", usual=TEXTS),
    "text-id": Reading(_read_text, np.dtype(object), "not a text", usual=TEXTS),
}


def check_column(
    name: str,
    column: Column,
    values: NDArray[Any],
    *,
    keep: NDArray[np.bool_] | None,
    report: CheckReport,
    problems: Problems,
) -> NDArray[Any]:
    """Hold one typed column against its rules; `keep` is where rows may be dropped, None where they may not."""
    total = len(values)
    if not column.nullable and (empty := missing(values)).any():
        problems.add(name, np.flatnonzero(empty), lambda row: "is missing", total)
    if column.kind == "numeric":
        return _check_bounds(name, column, values, keep=keep, report=report, problems=problems)
    if column.kind == "category" and column.values is not None:
        known = {*column.values, None}
        if known.issuperset(values.tolist()):  # nearly always, and three times as fast as the search
            return values
        unseen = np.fromiter((v not in known for v in values), dtype=bool, count=total)
        if column.unseen == "refuse":
            problems.add(
                name,
                np.flatnonzero(unseen),
                lambda row: f"{shown(column, values[row])} is not one of its categories",
                total,
            )
        else:
            report.others[name] = int(unseen.sum())
    return values


def _check_bounds(
    name: str,
    column: Column,
    values: NDArray[Any],
    *,
    keep: NDArray[np.bool_] | None,
    report: CheckReport,
    problems: Problems,
) -> NDArray[Any]:
    lowest = -LARGEST if column.min is None else max(column.min, -LARGEST)
    highest = LARGEST if column.max is None else min(column.max, LARGEST)
    if not len(values) or not (np.fmin.reduce(values) < lowest or np.fmax.reduce(values) > highest):
        return values  # the usual case, seen in two passes; NaN is below and above nothing
    total = len(values)
    infinite = np.isinf(values)
    problems.add(name, np.flatnonzero(infinite), lambda row: f"{values[row]} is not finite", total)
    too_large = ~infinite & (np.abs(values) > LARGEST)
    clipped = values
    for bound, word, beyond in (
        (column.min, "below", np.less),
        (column.max, "above", np.greater),
    ):
        if bound is None or not (outside := beyond(values, bound) & ~infinite).any():
            continue
        too_large &= ~outside
        count = int(outside.sum())
        if column.out_of_bounds == "clip":
            clipped = np.where(outside, bound, clipped)
            report.clipped[name] = report.clipped.get(name, 0) + count
        elif column.out_of_bounds == "drop" and keep is not None:
            keep &= ~outside
            report.dropped[f"{name} is {word} {bound}"] = count
        else:
            reasons = {
                row: f"{shown(column, values[row])} is {word} {bound}" for row in np.flatnonzero(outside)[:MAX_PROBLEMS]
            }
            problems.add(name, np.flatnonzero(outside), reasons.__getitem__, total)
    problems.add(
        name, np.flatnonzero(too_large), lambda row: f"{shown(column, values[row])} is too large for float32", total
    )
    return clipped


def missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which values of a typed column are missing."""
    if values.dtype.kind == "O":
        nothing: NDArray[np.bool_] = values == np.array(None)  # one by one, and not `is`, for its speed
        return nothing
    empty: NDArray[np.bool_] = np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)
    return empty
