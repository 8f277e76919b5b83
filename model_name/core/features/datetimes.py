"""Features of datetimes. Imports only numpy and pydantic, because servers import it."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from functools import cached_property
from math import pi
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from model_name.core.features.feature import Feature
from model_name.core.schemas.columns import Columns
from model_name.core.schemas.encodings import DatetimePart
from model_name.core.schemas.row_validation import TypedRow
from model_name.core.schemas.strict_models import LaxTuple


def _to_days(datetimes: NDArray[Any]) -> NDArray[Any]:
    return datetimes.astype("datetime64[D]")


DATETIME_PARTS: dict[DatetimePart, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "hour": lambda datetimes: (datetimes - _to_days(datetimes)) / np.timedelta64(1, "h"),
    # 1970-01-01 was a Thursday, the third day after Monday.
    "weekday": lambda datetimes: (_to_days(datetimes).astype(np.int64) + 3) % 7,
    "day": lambda datetimes: (_to_days(datetimes) - datetimes.astype("datetime64[M]")).astype(np.int64) + 1,
    "yearday": lambda datetimes: (_to_days(datetimes) - datetimes.astype("datetime64[Y]")).astype(np.int64) + 1,
    "month": lambda datetimes: datetimes.astype("datetime64[M]").astype(np.int64) % 12 + 1,
    "elapsed": lambda datetimes: (datetimes - np.datetime64(0, "s")) / np.timedelta64(1, "D"),
}
MICROSECOND = timedelta(microseconds=1)
HOUR, DAY = timedelta(hours=1) // MICROSECOND, timedelta(days=1) // MICROSECOND
EPOCH = datetime(1970, 1, 1)
VALUE_PARTS: dict[DatetimePart, Callable[[datetime], float]] = {
    "hour": lambda value: (
        (value.hour * HOUR + value.minute * (HOUR // 60) + value.second * 10**6 + value.microsecond) / HOUR
    ),
    "weekday": datetime.weekday,
    "day": lambda value: value.day,
    "yearday": lambda value: value.timetuple().tm_yday,
    "month": lambda value: value.month,
    # The division of two floats is numpy's: that of integers would round once less.
    "elapsed": lambda value: float((value - EPOCH) // MICROSECOND) / float(DAY),
}
"""The same parts of a single datetime."""
CYCLE_LENGTHS: dict[DatetimePart, float] = {"hour": 24, "weekday": 7, "day": 31, "yearday": 366, "month": 12}
"""Period of each periodic part, in its own unit; `elapsed` has none."""

WAVE_DECIMALS, WAVE_SCALE = 6, 1e6  # to which sine and cosine are rounded

PART_DESCRIPTIONS: dict[DatetimePart, str] = {
    "hour": "hour of the day",
    "weekday": "day of the week",
    "day": "day of the month",
    "yearday": "day of the year",
    "month": "month",
    "elapsed": "days since the training part began",
}


class DatePartFeature(Feature):
    """A part of a datetime, or the sine or cosine of a periodic part.

    Attributes:
        part: The part.
        wave: Function of a cyclic encoding; the part itself if None.
        origin: Start of `elapsed`, in days since 1970.
        completed: Number of cycles of the part in the training part.
    """

    KIND: Literal["part"] = "part"
    part: DatetimePart
    wave: Literal["sin", "cos"] | None = None
    origin: float = 0.0
    completed: float = 0.0

    @property
    @override
    def is_seasonal(self) -> bool:
        """Whether the training part holds at least two cycles, such as two years for the month."""
        return self.completed >= 2

    @property
    @override
    def description(self) -> str:
        return f"{self.wave} of the {self.part}" if self.wave else PART_DESCRIPTIONS[self.part]

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        datetimes = columns[self.source]
        numbers = np.where(np.isnat(datetimes), np.nan, DATETIME_PARTS[self.part](datetimes) - self.origin)
        if self.wave is None:
            return numbers
        angles = numbers * (2 * np.pi / CYCLE_LENGTHS[self.part])
        # Rounded, because standardising would amplify the difference of 0 and 1e-16.
        return np.round(np.sin(angles) if self.wave == "sin" else np.cos(angles), WAVE_DECIMALS)

    @override
    def transform_row(self, row: TypedRow) -> float:
        number = VALUE_PARTS[self.part](row[self.source]) - self.origin
        if self.wave is None:
            return number
        angle = number * (2 * pi / CYCLE_LENGTHS[self.part])
        # numpy's sine, of which the last bit may differ from that of `math`
        value = float(np.sin(angle) if self.wave == "sin" else np.cos(angle))
        return round(value * WAVE_SCALE) / WAVE_SCALE


class HolidayFeature(Feature):
    """Whether a datetime is on a public holiday: 1 or 0; NaN if it is missing.

    Attributes:
        days: The holidays in ISO 8601, of the years of the training part and of some later years.
    """

    KIND: Literal["holiday"] = "holiday"
    days: LaxTuple[str]

    @property
    @override
    def description(self) -> str:
        return "whether it is a public holiday"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        datetimes = columns[self.source]
        days = _to_days(datetimes)
        is_holiday = np.zeros(len(days), dtype=bool)
        if len(self._calendar):  # np.isin would sort the days of every request
            nearest = np.searchsorted(self._calendar, days).clip(max=len(self._calendar) - 1)
            is_holiday = self._calendar[nearest] == days
        return np.where(np.isnat(datetimes), np.nan, is_holiday)

    @override
    def transform_row(self, row: TypedRow) -> float:
        return float(row[self.source].date() in self._dates)

    @cached_property
    def _dates(self) -> frozenset[date]:
        """The holidays as dates."""
        return frozenset(map(date.fromisoformat, self.days))

    @cached_property
    def _calendar(self) -> NDArray[Any]:
        """The sorted holidays as datetime64[D]."""
        return np.sort(np.array(self.days, dtype="datetime64[D]"))
