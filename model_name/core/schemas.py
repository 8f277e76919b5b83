"""The one source of truth about a table, and the check of what crosses a boundary.

Needs pydantic and numpy alone, because servers import it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from difflib import get_close_matches
from hashlib import sha256
from typing import Annotated, Any, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from model_name.errors import DataError

Kind = Literal["numeric", "category", "boolean", "datetime", "text-id"]
Task = Literal["regression", "binary", "multiclass"]
Label = StrictBool | StrictInt | StrictStr

Columns = dict[str, NDArray[Any]]
"""A table by column, one array of length n each: float64 with NaN for numeric and boolean, datetime64[us] with NaT
for datetime, objects (str or None) for category and text-id."""

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Field(strict=False)]
"""A tuple that YAML and JSON may give as a list."""

MAX_PROBLEMS = 10  # that one error names; the rest are counted
LARGEST = float(np.finfo(np.float32).max)  # number that a served graph can be given


class Closed(BaseModel):
    """Base of what people write in configs: strict, and a key that does not exist is answered with the nearest one."""

    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _knows_its_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            names = [field.alias or name for name, field in cls.model_fields.items()]
            for key in data:
                if key not in names and key not in cls.model_fields:
                    raise ValueError(f"{key} is not a key of {cls.__name__}{did_you_mean(str(key), names)}")
        return data


class Frozen(Closed):
    """The same, unchangeable: everything that is configured once or recorded."""

    model_config = ConfigDict(frozen=True)


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


class Target(Frozen):
    """What is predicted.

    Attributes:
        name: The column of the table that holds it; requests do not carry it.
        task: What kind of prediction it asks for.
        classes: The labels of a classification, in the order of the probabilities; for `binary` the second is the
            positive one.
        description: For people.
    """

    name: str
    task: Task
    classes: Many[Label] | None = None
    description: str = ""

    @model_validator(mode="after")
    def _fits_its_task(self) -> Self:
        if self.task == "regression":
            if self.classes is not None:
                raise ValueError("classes belong to classifications, this target is a regression")
            return self
        if self.classes is None:
            raise ValueError(f"a {self.task} target needs its classes")
        if len({label_text(label) for label in self.classes}) < len(self.classes):
            raise ValueError("classes names a label twice")
        if self.task == "binary" and len(self.classes) != 2:
            raise ValueError(f"a binary target has 2 classes, not {len(self.classes)}")
        if self.task == "multiclass" and len(self.classes) < 3:
            raise ValueError(f"a multiclass target has at least 3 classes, not {len(self.classes)}")
        return self


@dataclass(frozen=True)
class Outputs:
    """What a model answers for n rows.

    Attributes:
        prediction: n numbers of a regression, or n labels of a classification.
        probabilities: n x k of a classification, columns in the order of `classes`.
        classes: The k labels.
    """

    prediction: NDArray[Any]
    probabilities: NDArray[np.float64] | None = None
    classes: tuple[Label, ...] = ()

    @classmethod
    def from_scores(cls, scores: NDArray[Any], classes: tuple[Label, ...]) -> Self:
        """Name raw scores: n (x 1) predictions where there are no classes, n x k probabilities where there are."""
        scores = np.asarray(scores, dtype=np.float64)
        if not classes:
            return cls(prediction=scores.reshape(-1))
        labels = np.empty(len(classes), dtype=object)
        labels[:] = classes
        return cls(prediction=labels[scores.argmax(axis=1)], probabilities=scores, classes=classes)

    @property
    def columns(self) -> Columns:
        """The same as named columns: `prediction`, and `probability_LABEL` for each class."""
        columns: Columns = {"prediction": self.prediction}
        if self.probabilities is not None:
            for position, label in enumerate(self.classes):
                columns[f"probability_{label_text(label)}"] = self.probabilities[:, position]
        return columns


@dataclass
class CheckReport:
    """What a check saw and did; nothing that it drops or clips goes untold."""

    rows: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    clipped: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()

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
        ]


class TableSchema(Frozen):
    """The one source of truth about a table.

    Attributes:
        name: What the table is about.
        target: What is predicted.
        columns: The other columns by name, in the order of the model's inputs.
        time: The datetime column that orders the rows, if there is one.
        key: The columns that name a row; no two rows may share them.
        extra: What happens to a column that is not named here.
        duplicates: What happens to rows with the key of an earlier row.
    """

    name: str
    target: Target
    columns: dict[str, Column]
    time: str | None = None
    key: Many[str] = ()
    extra: Literal["refuse", "drop"] = "refuse"
    duplicates: Literal["refuse", "drop"] = "refuse"
    description: str = ""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        if self.target.name in self.columns:
            raise ValueError(f"the target {self.target.name} is also one of the columns; name it under target alone")
        if self.time is not None and (self.time not in self.columns or self.columns[self.time].kind != "datetime"):
            raise ValueError(f"time: {self.time} is not a datetime column of the schema")
        for name in self.key:
            if name not in self.columns:
                raise ValueError(f"key: {name} is not a column of the schema")
        if not self.inputs:
            raise ValueError("no column is a feature: a model would have nothing to look at")
        return self

    @property
    def inputs(self) -> dict[str, Column]:
        """The columns that a request must carry."""
        return {name: column for name, column in self.columns.items() if column.is_input}

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels of a classification; none for a regression."""
        return self.target.classes or ()

    @property
    def fingerprint(self) -> str:
        """Hash of what is accepted and what is answered: when it changes, the MAJOR of the version does."""
        contract = [(name, column.contract) for name, column in self.inputs.items()]
        seen = repr((contract, self.extra, self.target.name, self.target.task, self.classes))
        return sha256(seen.encode()).hexdigest()[:16]

    def decode(
        self, table: Mapping[str, Sequence[Any] | NDArray[Any]], *, names: Sequence[str], first_row: int | None = None
    ) -> Columns:
        """Turn raw values into typed columns.

        Args:
            table: The values by column.
            names: The columns to read.
            first_row: The number of the first row where these are some rows of a larger table.

        Raises:
            DataError: A column is missing or extra, or a value is of another kind.
        """
        missing = [name for name in names if name not in table]
        if missing:
            raise DataError(f"{missing[0]}: column is missing" + also(missing[1:]))
        problems = Problems(first_row)
        columns = {name: decode_column(name, self.columns[name], table[name], problems) for name in names}
        problems.raise_if_any()
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns differ in length: {lengths}")
        return columns

    def apply(
        self, columns: Columns, *, may_drop: bool, first_row: int | None = None
    ) -> tuple[Columns, NDArray[np.bool_], CheckReport]:
        """Hold typed columns against nullability, bounds and categories.

        Args:
            columns: As `decode` returns them.
            may_drop: Whether rows may be dropped where the schema says `drop`; otherwise they are refused.
            first_row: As of `decode`.

        Returns:
            The columns (clipped values replaced, all rows still there), the rows to keep, and what was done. Unseen
            categories are counted and stay as they are: the features take them as missing.

        Raises:
            DataError: Naming column, row and reason of what the schema refuses.
        """
        rows = len(next(iter(columns.values()), ()))
        keep = np.ones(rows, dtype=bool)
        report = CheckReport(rows=rows)
        problems = Problems(first_row)
        checked = {
            name: check_column(
                name, self.columns[name], values, keep=keep if may_drop else None, report=report, problems=problems
            )
            for name, values in columns.items()
        }
        problems.raise_if_any()
        report.kept = int(keep.sum())
        return checked, keep, report

    def check_request(self, table: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Columns:
        """Typed inputs of a request, or the reason why it is refused.

        Raises:
            DataError: Naming column, row and reason.
        """
        for name in table:
            if name == self.target.name:
                raise DataError(f"{name}: is the target; a request must not carry it")
            if name not in self.columns and self.extra == "refuse":
                raise DataError(
                    f"{name}: is not a column of {self.name}", hint=f"the inputs are {', '.join(self.inputs)}"
                )
        columns = self.decode(table, names=list(self.inputs))
        checked, _, _ = self.apply(columns, may_drop=False)
        return checked


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


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """`"; did you mean X?"` with the nearest known word, or all of them where none is near."""
    nearest = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]}?" if nearest else f"; there are {', '.join(known)}"


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
    if reading.dtype.kind == "O" and {*map(type, values)} <= {str, type(None)}:
        decoded = np.empty(len(values), dtype=object)  # the usual case of large tables, ten times as fast
        decoded[:] = values
        return decoded
    return _decode_each(name, reading, values, problems)


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
    """

    read: Callable[[Any], Any]
    dtype: np.dtype[Any]
    reason: str
    direct: str = ""


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
        return np.datetime64(value, "us")
    if isinstance(value, date) and not isinstance(value, datetime):  # as Parquet's date32 arrives
        return np.datetime64(value, "us")
    if isinstance(value, bytes):
        value = value.decode()
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    if moment.tzinfo is not None:  # a moment with a zone is kept as UTC, one without as it stands
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return np.datetime64(moment, "us")


READINGS: dict[Kind, Reading] = {
    "numeric": Reading(read_number, np.dtype(np.float64), "not a number", direct="fiu"),
    "boolean": Reading(_read_boolean, np.dtype(np.float64), "not a boolean", direct="b"),
    "datetime": Reading(_read_datetime, np.dtype("datetime64[us]"), "not a date and time (ISO 8601)", direct="M"),
    "category": Reading(_read_text, np.dtype(object), "not a text"),
    "text-id": Reading(_read_text, np.dtype(object), "not a text"),
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
