"""Which earlier values of the target are worth being told to a row: where a table is one or more regular series."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.profiling.column_facts import ColumnFacts
from model_name.core.profiling.time_and_key import are_rows_unique
from model_name.core.schemas.columns import Column
from model_name.core.schemas.lags import LagSpec, compute_lags, to_timedelta

MAX_ENTITY_COLUMNS = 2
MAX_ENTITY_CANDIDATES = 8
MIN_ENTITY_ROWS = 20  # on average, that an entity needs to be a series
MIN_REGULAR_SHARE = 0.5  # of the steps of a series that are the median one
MIN_CYCLES = 4  # that a table must hold of a lag, and 2 of one that is a year
YEAR_LENGTH = np.timedelta64(360, "D")
MIN_KNOWN_SHARE = 0.7  # of the rows that a lag must find an earlier one for
MIN_KNOWN_ROWS = 30
MIN_CORRELATION = 0.3  # with the target, below which an earlier value is not worth asking clients for
TIME_UNITS = {"d": np.timedelta64(1, "D"), "h": np.timedelta64(1, "h"), "m": np.timedelta64(1, "m")}

LagCandidate = tuple[str, int]
"""A span of time, and how many of its multiples are averaged."""
WITHIN_DAYS: tuple[LagCandidate, ...] = (("24h", 1), ("168h", 1), ("336h", 1), ("24h", 7), ("168h", 4))
DAILY: tuple[LagCandidate, ...] = (("7d", 1), ("14d", 1), ("28d", 1), ("364d", 1), ("7d", 4))
WEEKLY: tuple[LagCandidate, ...] = (("1w", 1), ("2w", 1), ("52w", 1), ("1w", 4))


@dataclass(frozen=True)
class TimeSeries:
    """Rows that come in regular steps.

    Attributes:
        by: The columns that tell one series from another; none where there is one.
        entities: Of which series each of the n rows is, as a number.
        times: The moment of each, datetime64[us].
        step: What usually lies between two rows of a series.
    """

    by: tuple[str, ...]
    entities: NDArray[np.int64]
    times: NDArray[Any]
    step: Any

    @property
    def description(self) -> str:
        """What it is."""
        return f"the rows come every {_format_time_span(self.step)}" + (f" for each {' and '.join(self.by)}" if self.by else "")


@dataclass(frozen=True)
class LagProposal:
    """Columns that tell of earlier values of the target.

    Attributes:
        columns: By name.
        correlations: How each goes with the target, on the older half of the rows; also of those left out.
        newest: The shortest lag of the columns; "" where there is none.
    """

    columns: Mapping[str, Column]
    correlations: Mapping[str, float]
    newest: str = ""


def find_time_series(facts: Mapping[str, ColumnFacts], time: str) -> TimeSeries | None:
    """The regular series that a table is, told apart by as few columns as can be; None if it is none."""
    rows = len(facts[time].values)
    apart = [name for name, found in facts.items() if name != time and _could_identify_series(found, rows)]
    # What has a name for each entity comes before numbers, which may tell rows apart by chance.
    apart.sort(key=lambda name: (facts[name].kind == "numeric", len(facts[name].distinct)))
    for size in range(MAX_ENTITY_COLUMNS + 1):
        for by in combinations(apart[:MAX_ENTITY_CANDIDATES], size):
            if are_rows_unique([facts[time].codes, *(facts[name].codes for name in by)]):
                entities = np.zeros(rows, dtype=np.int64)
                for name in by:
                    entities = entities * len(facts[name].distinct) + facts[name].codes
                step = _regular_step(facts[time].values, entities)
                if step is not None:
                    return TimeSeries(by, entities, facts[time].values, step)
    return None


def propose_lags(series: TimeSeries, values: NDArray[Any], target: str, taken: Collection[str]) -> LagProposal:
    """The earlier values of the target that go with it.

    Args:
        series: The rows.
        values: The target of each, float64.
        target: Its name.
        taken: Names that columns have already.
    """
    length = series.times.max() - series.times.min()
    is_old = series.times <= np.sort(series.times)[len(values) // 2]
    columns, correlations = {}, {}
    kept = []
    for lag, repeats in _candidate_lags(series.step, length):
        history = LagSpec(of=target, by=series.by, lag=lag, repeats=repeats)
        correlation = _correlation(history, series.times[is_old], series.entities[is_old], values[is_old])
        if correlation is None:
            continue
        name = f"{target}_{lag}" if repeats == 1 else f"{target}_{repeats}x{lag}"
        while name in taken:
            name += "_"
        correlations[name] = correlation
        if abs(correlation) >= MIN_CORRELATION:
            lowest = 0.0 if values.min() >= 0 else None
            columns[name] = Column(kind="numeric", nullable=True, min=lowest, history=history)
            kept.append(lag)
    return LagProposal(columns, correlations, min(kept, key=to_timedelta, default=""))


def lag_messages(series: TimeSeries | None, proposal: LagProposal | None, target: str) -> Iterator[str]:
    """What was decided about earlier values of the target."""
    if series is None or proposal is None:
        yield "histories: the rows are no series with regular steps, so they are told nothing of earlier ones"
        return
    if not proposal.correlations:
        yield f"histories: {series.description}, but too few or too irregular to learn from earlier values of {target}"
        return
    weak = [name for name in proposal.correlations if name not in proposal.columns]
    if proposal.columns:
        yield (
            f"histories: {series.description}, so columns are made of earlier values of {target}: "
            f"{_format_correlations(proposal, list(proposal.columns))} (correlation with {target} on the older half of the rows)"
        )
        yield (
            f"histories: EVERY REQUEST MUST BRING {', '.join(proposal.columns)}; the newest value in them is "
            f"{proposal.newest} older than the row: where that is not known yet when a prediction is asked for, "
            "remove the column, or give it a longer `lag`"
        )
    if weak:
        description = f"histories: not told, as they go too little with {target} (below {MIN_CORRELATION})"
        yield f"{description}: {_format_correlations(proposal, weak)}"


def _could_identify_series(found: ColumnFacts, rows: int) -> bool:
    is_name = found.kind in {"category", "text-id"} or found.is_integer
    return is_name and found.is_complete and 1 < len(found.distinct) <= rows / MIN_ENTITY_ROWS


def _regular_step(times: NDArray[Any], entities: NDArray[np.int64]) -> Any:
    """What usually lies between two rows of a series, or None where nothing does usually, or no span can say it."""
    order = np.lexsort((times, entities))
    steps = np.diff(times[order])[np.diff(entities[order]) == 0]
    if not len(steps):
        return None
    step = np.sort(steps)[len(steps) // 2]
    is_whole = step % TIME_UNITS["m"] == np.timedelta64(0, "us")
    return step if is_whole and np.mean(steps == step) >= MIN_REGULAR_SHARE else None


def _candidate_lags(step: Any, length: Any) -> Iterator[LagCandidate]:
    """What may be worth telling, by the seasons that rows in such steps have, where the table is long enough."""
    day, week = TIME_UNITS["d"], 7 * TIME_UNITS["d"]
    if 5 * TIME_UNITS["m"] <= step <= 6 * TIME_UNITS["h"] and day % step == np.timedelta64(0, "us"):
        lags = WITHIN_DAYS
    elif step in (day, week):
        lags = DAILY if step == day else WEEKLY
    else:
        lags = tuple((_format_time_span(count * step), 1) for count in (1, 2, 3))
    for lag, repeats in lags:
        cycles = 2 if to_timedelta(lag) >= YEAR_LENGTH else MIN_CYCLES
        if length >= max(cycles, 2 * repeats) * to_timedelta(lag):
            yield lag, repeats


def _format_time_span(length: Any) -> str:
    unit = next(letter for letter, unit in TIME_UNITS.items() if length % unit == np.timedelta64(0, "us"))
    return f"{int(length // TIME_UNITS[unit])}{unit}"


def _correlation(
    history: LagSpec, times: NDArray[Any], entities: NDArray[np.int64], values: NDArray[Any]
) -> float | None:
    """How what is told goes with the target; None where too little is told, or nothing varies."""
    lagged = compute_lags(history, times, entities, values)
    begins = np.full(entities.max() + 1, times.max())
    np.minimum.at(begins, entities, times)
    could_have_lag = times >= begins[entities] + to_timedelta(history.lag)
    has_lag = ~np.isnan(lagged)
    if has_lag.sum() < max(MIN_KNOWN_ROWS, MIN_KNOWN_SHARE * could_have_lag.sum()):
        return None
    earlier, now = lagged[has_lag], values[has_lag]
    if np.ptp(earlier) == 0 or np.ptp(now) == 0:
        return None
    return float(np.corrcoef(earlier, now)[0, 1])


def _format_correlations(proposal: LagProposal, names: list[str]) -> str:
    return ", ".join(f"{name} {proposal.correlations[name]:.2f}" for name in names)
