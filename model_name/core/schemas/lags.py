"""Columns that tell of earlier rows of the same table: lags and rolling means, made once, when a table is prepared.

Needs pydantic and numpy alone, because servers import it; they do not make such columns but are sent them.
"""

import re
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from model_name.core.schemas.strict_models import Frozen, Many

UNITS: dict[str, Literal["m", "h", "D", "W"]] = {"m": "m", "h": "h", "d": "D", "w": "W"}
SPAN = re.compile(r"([1-9][0-9]*)([mhdw])")


def _require_span(raw: Any) -> Any:
    if isinstance(raw, str) and raw.startswith("-"):
        raise ValueError(f"{raw} looks ahead: a row would be told what is not known yet; give it without the sign")
    if not isinstance(raw, str) or not SPAN.fullmatch(raw):
        raise ValueError(f"{raw!r} is not a span of time such as 30m, 24h, 7d or 2w, and it must be above zero")
    return raw


Span = Annotated[str, BeforeValidator(_require_span)]
"""A length of time: `30m`, `24h`, `7d`, `2w`."""


class History(Frozen):
    """What a column tells of earlier rows: the value then (`lag`), the mean of several such, or that of a window.

    With `lag: 24h` alone, it is the value 24 hours before; with `repeats: 7` the mean of the values 24, 48, ... 168
    hours before; with `window: 7d` the mean over the 7 days that end 24 hours before. What is missing does not count.

    Attributes:
        of: The column, or the target.
        by: The columns that name the entity; rows of others are not looked at.
        lag: How far back the newest value is. It must be as old as what is known when a prediction is asked for.
        repeats: How many multiples of the lag are averaged.
        window: The length of the window.
    """

    of: str
    by: Many[str] = ()
    lag: Span
    repeats: int = Field(1, ge=1, le=1000)
    window: Span | None = None

    @model_validator(mode="after")
    def _is_one_of_them(self) -> Self:
        if self.window is not None and self.repeats > 1:
            raise ValueError("repeats and window exclude each other")
        return self


def span(text: str) -> Any:
    """A length of time as numpy has it."""
    count, unit = SPAN.fullmatch(text).groups()  # type: ignore[union-attr]  # it was validated
    return np.timedelta64(int(count), UNITS[unit]).astype("timedelta64[us]")


def look_back(history: History, times: NDArray[Any], entities: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """What the rows are told of earlier ones.

    Args:
        history: What to tell.
        times: The moment of each of the n rows, datetime64[us].
        entities: Its entity, as a number.
        values: What is looked at, float64 with NaN where it is missing.

    Returns:
        n means, NaN where there is nothing to average or the row has no moment. Rows of one entity and moment count
        one by one.
    """
    told = np.full(len(times), np.nan)
    dated = np.flatnonzero(~np.isnat(times))
    order = dated[np.lexsort((times[dated], entities[dated]))]
    if len(order):
        starts = np.flatnonzero(np.diff(entities[order])) + 1
        for rows in np.split(order, starts):
            told[rows] = _look_back(history, times[rows], values[rows])
    return told


def _look_back(history: History, times: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """The same for the rows of one entity, in the order of time."""
    moments, starts = np.unique(times, return_index=True)
    is_known = ~np.isnan(values)
    sums = np.add.reduceat(np.where(is_known, values, 0.0), starts)
    counts = np.add.reduceat(is_known.astype(np.int64), starts)
    total, number = np.zeros(len(times)), np.zeros(len(times))
    for repeat in range(1, history.repeats + 1):
        newest = times - repeat * span(history.lag)
        last = np.searchsorted(moments, newest, side="right")
        if history.window is None:
            # A moment alone is looked up, and not the difference of two sums: it is told to the last digit.
            there = (last > 0) & (moments[last - 1] == newest)
            total += np.where(there, sums[last - 1], 0.0)
            number += np.where(there, counts[last - 1], 0)
        else:
            first = np.searchsorted(moments, newest - span(history.window), side="right")
            total += _sum_between(sums, first, last)
            number += _sum_between(counts, first, last)
    means: NDArray[Any] = np.divide(total, number, out=np.full(len(times), np.nan), where=number > 0)
    return means


def _sum_between(numbers: NDArray[Any], first: NDArray[Any], last: NDArray[Any]) -> NDArray[Any]:
    """The sums of `numbers[first:last]`, in a time that does not depend on how many these are."""
    sums = np.r_[0, np.cumsum(numbers)]
    between: NDArray[Any] = sums[last] - sums[first]
    return between
