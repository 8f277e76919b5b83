"""From typed columns to the numbers that a model looks at: fitted once, then the same code in training and serving.

Needs pydantic and numpy alone, because servers import it. `core.fitting` is where features are learnt.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model_name.core.schemas.columns import LARGEST, Columns, missing
from model_name.core.schemas.encodings import Part
from model_name.core.schemas.strict_models import Frozen, Many

Matrix = NDArray[np.float32]
"""n x d features, NaN where a value is missing. float32, because that is what every served graph computes with."""

OTHER = "(other)"  # the category that rare ones become


def _days(moments: NDArray[Any]) -> NDArray[Any]:
    return moments.astype("datetime64[D]")


PARTS: dict[Part, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "hour": lambda moments: (moments - _days(moments)) / np.timedelta64(1, "h"),
    # 1970-01-01 was a Thursday, the third day after Monday.
    "weekday": lambda moments: (_days(moments).astype(np.int64) + 3) % 7,
    "day": lambda moments: (_days(moments) - moments.astype("datetime64[M]")).astype(np.int64) + 1,
    "yearday": lambda moments: (_days(moments) - moments.astype("datetime64[Y]")).astype(np.int64) + 1,
    "month": lambda moments: moments.astype("datetime64[M]").astype(np.int64) % 12 + 1,
    "elapsed": lambda moments: (moments - np.datetime64(0, "s")) / np.timedelta64(1, "D"),
}
CYCLES: dict[Part, float] = {"hour": 24, "weekday": 7, "day": 31, "yearday": 366, "month": 12}
"""After how much a part comes round; `elapsed` never does."""

SCALES = {"standard": "standardised", "quantile": "by its rank", "log": "its logarithm"}
PART_WORDS: dict[Part, str] = {
    "hour": "hour of the day",
    "weekday": "day of the week",
    "day": "day of the month",
    "yearday": "day of the year",
    "month": "month",
    "elapsed": "days since the training part began",
}


class Feature(Frozen, ABC):
    """One column of the matrix.

    Attributes:
        name: Its name in explanations.
        source: The column of the table that it comes from.
        values: The categories that it knows, in the order of their codes where it has such; none of a number.
    """

    KIND: str
    name: str
    source: str
    values: Many[str] = ()

    @property
    def kind(self) -> Literal["number", "category"]:
        """Whether its numbers have an order, or are codes: positions in `values`."""
        return "number"

    @property
    def is_seasonal(self) -> bool:
        """False where it grows with time in the training part, so that a smooth model would extrapolate it."""
        return True

    @property
    def sources(self) -> tuple[str, ...]:
        """All columns that it looks at."""
        return (self.source,)

    @property
    def words(self) -> str:
        """What it is, for people."""
        return self.kind

    @property
    def recipe(self) -> tuple[Any, ...]:
        """What makes it this feature, whatever the data: a change of it is another recipe of the model."""
        return (self.KIND, self.name, self.source)

    @property
    def categories(self) -> tuple[str, ...]:
        """What of its source it knows, none of a number."""
        return self.values

    @abstractmethod
    def read(self, columns: Columns) -> NDArray[Any]:
        """The n numbers of typed columns."""


class Number(Feature):
    """A number or a boolean.

    Attributes:
        scale: As of `Encoding`.
        center: What is taken off, for `standard`.
        spread: What is divided by then.
        knots: Quantiles of the training part, for `quantile`.
        ranks: What they become.
        fill: What a missing value becomes before anything else; NaN where None.
    """

    KIND: Literal["number"] = "number"
    scale: Literal["none", "standard", "quantile", "log"] = "none"
    center: float = 0.0
    spread: float = 1.0
    knots: Many[float] = ()
    ranks: Many[float] = ()
    fill: float | None = None

    @property
    def recipe(self) -> tuple[Any, ...]:
        """As of `Feature`."""
        return (*super().recipe, self.scale, self.fill is not None)

    @property
    def words(self) -> str:
        """As of `Feature`."""
        scaled = "" if self.scale == "none" else f", {SCALES[self.scale]}"
        return f"number{scaled}"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        values = columns[self.source]
        if self.fill is not None:
            values = np.where(np.isnan(values), self.fill, values)
        if self.scale == "log":
            values = np.copysign(np.log1p(np.abs(values)), values)
        elif self.scale == "standard":
            values = within_float32((values - self.center) / self.spread)
        elif self.scale == "quantile":
            # A single knot would stand for a missing value as well.
            values = np.where(np.isnan(values), np.nan, np.interp(values, self.knots, self.ranks))
        return values


class Gap(Feature):
    """Whether a value is missing: 1 or 0."""

    KIND: Literal["gap"] = "gap"

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return "whether it is missing"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        return missing(columns[self.source])


class Code(Feature):
    """The position of a category; NaN for a missing or unseen one.

    Attributes:
        rare: The categories that count as the last one, `OTHER`.
    """

    KIND: Literal["code"] = "code"
    rare: Many[str] = ()

    @property
    def kind(self) -> Literal["number", "category"]:
        """As of `Feature`."""
        return "category"

    @property
    def recipe(self) -> tuple[Any, ...]:
        """As of `Feature`."""
        return (*super().recipe, bool(self.rare))

    @property
    def categories(self) -> tuple[str, ...]:
        """As of `Feature`: the rare ones by their own names."""
        return (*self.values[:-1], *self.rare) if self.rare else self.values

    @cached_property
    def codes(self) -> "Lookup":
        """The code of each category."""
        return Lookup(np.nan, positions(self.values) | dict.fromkeys(self.rare, float(len(self.values) - 1)))

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return f"one of {len(self.values):,} categories"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        return self.codes.read(columns[self.source])


class OneHot(Feature):
    """Whether a value is one of some categories: 1 or 0. There are several where rare ones are one feature."""

    KIND: Literal["one-hot"] = "one-hot"

    @cached_property
    def flags(self) -> "Lookup":
        """1 for each of them."""
        return Lookup(0.0, dict.fromkeys(self.values, 1.0))

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return "whether it is this category" if len(self.values) == 1 else "whether it is a rare category"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        return self.flags.read(columns[self.source])


class Rate(Feature):
    """The mean of the target, or the share of a class, where a category occurs.

    Attributes:
        rates: The means of the categories, shrunk towards the prior.
        rare: Categories that were counted as one.
        prior: The mean of all rows, for a missing or unseen category.
    """

    KIND: Literal["rate"] = "rate"
    rates: Many[float]
    rare: Many[str] = ()
    prior: float

    @cached_property
    def means(self) -> "Lookup":
        """The rate of each category."""
        return Lookup(self.prior, dict(zip(self.values, self.rates, strict=True)))

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return f"mean of the target for each of {len(self.values):,} categories"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        return self.means.read(columns[self.source])


class DatePart(Feature):
    """A part of a datetime, or a wave that comes round with it.

    Attributes:
        part: Which part.
        wave: Its sine or cosine instead.
        origin: What `elapsed` counts from, in days since 1970.
        completed: How often the part came round in the training part.
    """

    KIND: Literal["part"] = "part"
    part: Part
    wave: Literal["sin", "cos"] | None = None
    origin: float = 0.0
    completed: float = 0.0

    @property
    def is_seasonal(self) -> bool:
        """As of `Feature`: the month, with less than two years, is not."""
        return self.completed >= 2

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return f"{self.wave} of the {self.part}" if self.wave else PART_WORDS[self.part]

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        moments = columns[self.source]
        numbers = np.where(np.isnat(moments), np.nan, PARTS[self.part](moments) - self.origin)
        if self.wave is None:
            return numbers
        turns = numbers * (2 * np.pi / CYCLES[self.part])
        # Rounded, because 0 and 1e-16 would be a feature to whoever scales them.
        return np.round(np.sin(turns) if self.wave == "sin" else np.cos(turns), 6)


class Holiday(Feature):
    """Whether a datetime is on a public holiday: 1 or 0; NaN where it is missing.

    Attributes:
        days: The holidays, in ISO 8601: those of the years of the training part and of some to come.
    """

    KIND: Literal["holiday"] = "holiday"
    days: Many[str]

    @cached_property
    def calendar(self) -> NDArray[Any]:
        """The days as numpy has them, in their order."""
        return np.sort(np.array(self.days, dtype="datetime64[D]"))

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return "whether it is a public holiday"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        moments = columns[self.source]
        days = _days(moments)
        is_one = np.zeros(len(days), dtype=bool)
        if len(self.calendar):  # `np.isin` would sort the days of every request
            nearest = np.searchsorted(self.calendar, days).clip(max=len(self.calendar) - 1)
            is_one = self.calendar[nearest] == days
        return np.where(np.isnat(moments), np.nan, is_one)


class Product(Feature):
    """Two numbers multiplied.

    Attributes:
        other: The second column.
    """

    KIND: Literal["product"] = "product"
    other: str

    @property
    def sources(self) -> tuple[str, ...]:
        """As of `Feature`."""
        return (self.source, self.other)

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return f"times {self.other}"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        return within_float32(columns[self.source] * columns[self.other])


class Cross(Feature):
    """The position of a pair of categories; NaN where the pair is unseen or one of them is missing.

    Attributes:
        other: The second column.
    """

    KIND: Literal["cross"] = "cross"
    other: str

    @property
    def sources(self) -> tuple[str, ...]:
        """As of `Feature`."""
        return (self.source, self.other)

    @property
    def kind(self) -> Literal["number", "category"]:
        """As of `Feature`."""
        return "category"

    @property
    def categories(self) -> tuple[str, ...]:
        """As of `Feature`: pairs are no categories of one column."""
        return ()

    @cached_property
    def codes(self) -> "Lookup":
        """The code of each pair."""
        return Lookup(np.nan, positions(self.values))

    @property
    def words(self) -> str:
        """As of `Feature`."""
        return f"one of {len(self.values):,} pairs with {self.other}"

    def read(self, columns: Columns) -> NDArray[Any]:
        """As of `Feature`."""
        return self.codes.read(pairs(columns[self.source], columns[self.other]))


AnyFeature = Annotated[
    Number | Gap | Code | OneHot | Rate | DatePart | Holiday | Product | Cross, Field(discriminator="KIND")
]


class Features(Frozen):
    """The fitted features: all that a server needs to know to turn a request into the matrix."""

    columns: Many[AnyFeature]

    @property
    def names(self) -> list[str]:
        """The d names, in the order of the matrix."""
        return [feature.name for feature in self.columns]

    def categories(self, source: str) -> tuple[str, ...]:
        """The categories that are known of a column; none where it is of another kind."""
        known = [feature for feature in self.columns if feature.source == source]
        return tuple(dict.fromkeys(value for feature in known for value in feature.categories))

    def transform(self, columns: Columns) -> Matrix:
        """The matrix of typed columns, n x d."""
        rows = len(next(iter(columns.values())))
        matrix = np.empty((rows, len(self.columns)), dtype=np.float32)
        for position, feature in self._read:
            matrix[:, position] = feature.read(columns)
        if self._plain:
            positions, sources = self._plain
            matrix[:, positions] = np.array([columns[source] for source in sources]).T
        return matrix

    @cached_property
    def _plain(self) -> tuple[list[int], list[str]] | None:
        """Where the numbers go that stay as they are: they are copied at once, which a single row is grateful for."""
        found = [(position, feature.source) for position, feature in enumerate(self.columns) if _is_plain(feature)]
        return ([position for position, _ in found], [source for _, source in found]) if found else None

    @cached_property
    def _read(self) -> list[tuple[int, Feature]]:
        """Where all others go."""
        return [(position, feature) for position, feature in enumerate(self.columns) if not _is_plain(feature)]


def _is_plain(feature: Feature) -> bool:
    return isinstance(feature, Number) and feature.scale == "none" and feature.fill is None


class Lookup(dict[Any, float]):
    """What stands for each category, and a default for all others."""

    def __init__(self, default: float, known: Mapping[Any, float]) -> None:
        """Name the default and what is known."""
        super().__init__(known)
        self.default = default

    def __missing__(self, value: Any) -> float:
        """A missing or unseen category."""
        return self.default

    def read(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """What stands for each of n values."""
        return np.fromiter(map(self.__getitem__, values.tolist()), dtype=np.float64, count=len(values))


def within_float32(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers that float32 can hold: what lies beyond would become infinite, and some models refuse that."""
    bounded: NDArray[Any] = np.clip(values, -LARGEST, LARGEST)
    return bounded


def positions(values: Many[str]) -> dict[str, float]:
    """The code of each category."""
    return {value: float(code) for code, value in enumerate(values)}


def pairs(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Two columns of categories as one; None where one of them is missing."""
    joined = np.empty(len(first), dtype=object)
    joined[:] = [
        None if one is None or other is None else f"{one} & {other}" for one, other in zip(first, second, strict=True)
    ]
    return joined
