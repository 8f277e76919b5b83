"""Lag columns: lags and rolling means of earlier rows of the same table, computed when the table is prepared.

Imports only numpy and pydantic, because servers import it. Servers do not compute lags; requests carry their values.
"""

import re
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

NUMPY_UNITS: dict[str, Literal["m", "h", "D", "W"]] = {"m": "m", "h": "h", "d": "D", "w": "W"}
TIME_SPAN_PATTERN = re.compile(r"([1-9][0-9]*)([mhdw])")


def _check_time_span(raw: Any) -> Any:
    if isinstance(raw, str) and raw.startswith("-"):
        raise ValueError(f"{raw} looks ahead: a row would be told what is not known yet; give it without the sign")
    if not isinstance(raw, str) or not TIME_SPAN_PATTERN.fullmatch(raw):
        raise ValueError(f"{raw!r} is not a span of time such as 30m, 24h, 7d or 2w, and it must be above zero")
    return raw


TimeSpan = Annotated[str, BeforeValidator(_check_time_span)]
"""A length of time: `30m`, `24h`, `7d`, `2w`."""


class LagSpec(FrozenModel):
    """Definition of a lag column: an earlier value, the mean of several earlier values, or the mean of a window.

    With `lag: 24h` alone, the column holds the value 24 hours before; with `repeats: 7` the mean of the values 24, 48,
    ... 168 hours before; with `window: 7d` the mean over the 7 days that end 24 hours before. Missing values are not
    averaged.

    Attributes:
        of: Name of the source column, or of the target.
        by: Names of the columns that identify the entity; only rows of the same entity are used.
        lag: Age of the newest value. It must be at least the age of the data that is known at prediction time.
        repeats: Number of multiples of the lag that are averaged.
        window: Length of the window.
    """

    model_config = ConfigDict(title="History")  # from the config key `history`; errors about its keys show it

    of: str
    by: LaxTuple[str] = ()
    lag: TimeSpan
    repeats: int = Field(1, ge=1, le=1000)
    window: TimeSpan | None = None

    @model_validator(mode="after")
    def _check_options(self) -> Self:
        if self.window is not None and self.repeats > 1:
            raise ValueError("repeats and window exclude each other")
        return self


def to_timedelta(text: str) -> Any:
    """Convert a valid `TimeSpan` to a numpy timedelta in microseconds."""
    count, unit = TIME_SPAN_PATTERN.fullmatch(text).groups()  # type: ignore[union-attr]  # it was validated
    return np.timedelta64(int(count), NUMPY_UNITS[unit]).astype("timedelta64[us]")


def compute_lags(spec: LagSpec, times: NDArray[Any], entities: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Compute the values of a lag column.

    Args:
        spec: Definition of the column.
        times: Times of the n rows, datetime64[us].
        entities: Codes of the rows' entities.
        values: Values of the source column, float64 with NaN where they are missing.

    Returns:
        n means, NaN where there is nothing to average or the row has no time. Rows of the same entity and time are
        averaged with equal weights.
    """
    means = np.full(len(times), np.nan)
    has_time = np.flatnonzero(~np.isnat(times))
    order = has_time[np.lexsort((times[has_time], entities[has_time]))]
    if len(order):
        starts = np.flatnonzero(np.diff(entities[order])) + 1
        for rows in np.split(order, starts):
            means[rows] = _compute_entity_lags(spec, times[rows], values[rows])
    return means


def _compute_entity_lags(spec: LagSpec, times: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """Compute the lags of the rows of one entity, which are sorted by time."""
    distinct_times, starts = np.unique(times, return_index=True)
    is_known = ~np.isnan(values)
    sums = np.add.reduceat(np.where(is_known, values, 0.0), starts)
    counts = np.add.reduceat(is_known.astype(np.int64), starts)
    total, number = np.zeros(len(times)), np.zeros(len(times))
    for repeat in range(1, spec.repeats + 1):
        newest = times - repeat * to_timedelta(spec.lag)
        last = np.searchsorted(distinct_times, newest, side="right")
        if spec.window is None:
            # A single time is looked up instead of computed as the difference of two sums, so that it is exact.
            is_present = (last > 0) & (distinct_times[last - 1] == newest)
            total += np.where(is_present, sums[last - 1], 0.0)
            number += np.where(is_present, counts[last - 1], 0)
        else:
            first = np.searchsorted(distinct_times, newest - to_timedelta(spec.window), side="right")
            total += _range_sums(sums, first, last)
            number += _range_sums(counts, first, last)
    means: NDArray[Any] = np.divide(total, number, out=np.full(len(times), np.nan), where=number > 0)
    return means


def _range_sums(numbers: NDArray[Any], first: NDArray[Any], last: NDArray[Any]) -> NDArray[Any]:
    """Sum each range `numbers[first:last]` in constant time, from cumulative sums."""
    sums = np.r_[0, np.cumsum(numbers)]
    range_sums: NDArray[Any] = sums[last] - sums[first]
    return range_sums
