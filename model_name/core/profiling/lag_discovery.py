"""Discovery of useful lags of the target, in tables that are one or more regular time series."""

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
MIN_ENTITY_ROWS = 20  # mean number of rows of an entity
MIN_REGULAR_SHARE = 0.5  # of the steps of a series that equal the median step
MIN_CYCLES = 4  # of a lag that the table must hold; 2 if the lag is about a year
YEAR_LENGTH = np.timedelta64(360, "D")
MIN_KNOWN_SHARE = 0.7  # of the rows that could have a lagged value and do
MIN_KNOWN_ROWS = 30
MIN_CORRELATION = 0.3  # with the target; weaker lags are not worth a further input of each request
TIME_UNITS = {"d": np.timedelta64(1, "D"), "h": np.timedelta64(1, "h"), "m": np.timedelta64(1, "m")}

LagCandidate = tuple[str, int]
"""A time span, and the number of its multiples that are averaged."""
WITHIN_DAYS: tuple[LagCandidate, ...] = (("24h", 1), ("168h", 1), ("336h", 1), ("24h", 7), ("168h", 4))
DAILY: tuple[LagCandidate, ...] = (("7d", 1), ("14d", 1), ("28d", 1), ("364d", 1), ("7d", 4))
WEEKLY: tuple[LagCandidate, ...] = (("1w", 1), ("2w", 1), ("52w", 1), ("1w", 4))


@dataclass(frozen=True)
class TimeSeries:
    """Rows in regular steps of time, of one or more entities.

    Attributes:
        by: Names of the columns that identify the entity; none if the table is a single series.
        entities: Codes of the entities of the n rows.
        times: Times of the rows, datetime64[us].
        step: Median step between two rows of an entity.
    """

    by: tuple[str, ...]
    entities: NDArray[np.int64]
    times: NDArray[Any]
    step: Any

    @property
    def description(self) -> str:
        """Human-readable description."""
        by = f" for each {' and '.join(self.by)}" if self.by else ""
        return f"the rows come every {_format_time_span(self.step)}{by}"


@dataclass(frozen=True)
class LagProposal:
    """Proposed lag columns of the target.

    Attributes:
        columns: The columns by name.
        correlations: Correlation of each candidate with the target on the older half of the rows, by name; rejected
            candidates are included.
        newest: The shortest lag of the columns; empty if there is no column.
    """

    columns: Mapping[str, Column]
    correlations: Mapping[str, float]
    newest: str = ""


def find_time_series(facts: Mapping[str, ColumnFacts], time: str) -> TimeSeries | None:
    """Find the regular series in a table, with as few entity columns as possible; None if there is none.

    Args:
        facts: Facts of the columns by name.
        time: Name of the time column.
    """
    times = facts[time].values
    candidates = [name for name, column in facts.items() if name != time and _could_identify_series(column, len(times))]
    # Names come before numbers, which may distinguish rows by chance.
    candidates.sort(key=lambda name: (facts[name].kind == "numeric", len(facts[name].distinct)))
    for size in range(MAX_ENTITY_COLUMNS + 1):
        for by in combinations(candidates[:MAX_ENTITY_CANDIDATES], size):
            if are_rows_unique([facts[time].codes, *(facts[name].codes for name in by)]):
                entities = np.zeros(len(times), dtype=np.int64)
                for name in by:
                    entities = entities * len(facts[name].distinct) + facts[name].codes
                step = _regular_step(times, entities)
                if step is not None:
                    return TimeSeries(by, entities, times, step)
    return None


def propose_lags(series: TimeSeries, values: NDArray[Any], target: str, taken: Collection[str]) -> LagProposal:
    """Propose lags of the target that correlate with it.

    Args:
        series: The rows of the table.
        values: Target of each row, float64.
        target: Name of the target.
        taken: Names of existing columns.
    """
    length = series.times.max() - series.times.min()
    is_old = series.times <= np.sort(series.times)[len(values) // 2]
    columns, correlations = {}, {}
    kept = []
    for lag, repeats in _candidate_lags(series.step, length):
        spec = LagSpec(of=target, by=series.by, lag=lag, repeats=repeats)
        correlation = _correlation(spec, series.times[is_old], series.entities[is_old], values[is_old])
        if correlation is None:
            continue
        name = f"{target}_{lag}" if repeats == 1 else f"{target}_{repeats}x{lag}"
        while name in taken:
            name += "_"
        correlations[name] = correlation
        if abs(correlation) >= MIN_CORRELATION:
            lower_bound = 0.0 if values.min() >= 0 else None
            columns[name] = Column(kind="numeric", nullable=True, min=lower_bound, history=spec)
            kept.append(lag)
    return LagProposal(columns, correlations, min(kept, key=to_timedelta, default=""))


def lag_messages(series: TimeSeries | None, proposal: LagProposal | None, target: str) -> Iterator[str]:
    """Describe the proposed lags and the rejected ones."""
    if series is None or proposal is None:
        yield "histories: the rows are no series with regular steps, so no lags of the target are proposed"
        return
    if not proposal.correlations:
        yield f"histories: {series.description}, but too few or too irregular for lags of {target}"
        return
    weak = [name for name in proposal.correlations if name not in proposal.columns]
    if proposal.columns:
        yield (
            f"histories: {series.description}, so columns with earlier values of {target} are added: "
            f"{_format_correlations(proposal, list(proposal.columns))} "
            f"(correlation with {target} on the older half of the rows)"
        )
        yield (
            f"histories: EVERY REQUEST MUST BRING {', '.join(proposal.columns)}; the newest value in them is "
            f"{proposal.newest} older than the row: if that is not known yet at prediction time, "
            "remove the column, or give it a longer `lag`"
        )
    if weak:
        text = f"histories: not added, because they correlate too little with {target} (below {MIN_CORRELATION})"
        yield f"{text}: {_format_correlations(proposal, weak)}"


def _could_identify_series(column: ColumnFacts, rows: int) -> bool:
    is_discrete = column.kind in {"category", "text-id"} or column.is_integer
    return is_discrete and column.is_complete and 1 < len(column.distinct) <= rows / MIN_ENTITY_ROWS


def _regular_step(times: NDArray[Any], entities: NDArray[np.int64]) -> Any:
    """Compute the median step of an entity's rows; None if too few steps equal it, or it is not a number of minutes."""
    order = np.lexsort((times, entities))
    steps = np.diff(times[order])[np.diff(entities[order]) == 0]
    if not len(steps):
        return None
    step = np.sort(steps)[len(steps) // 2]
    is_whole_minutes = step % TIME_UNITS["m"] == np.timedelta64(0, "us")
    return step if is_whole_minutes and np.mean(steps == step) >= MIN_REGULAR_SHARE else None


def _candidate_lags(step: Any, length: Any) -> Iterator[LagCandidate]:
    """List the lags that match the seasons of rows in such steps, if the table is long enough for them."""
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
    unit = next(name for name, unit in TIME_UNITS.items() if length % unit == np.timedelta64(0, "us"))
    return f"{int(length // TIME_UNITS[unit])}{unit}"


def _correlation(spec: LagSpec, times: NDArray[Any], entities: NDArray[np.int64], values: NDArray[Any]) -> float | None:
    """Compute the correlation of a lag with the target; None if too few rows have a value, or one is constant."""
    lagged = compute_lags(spec, times, entities, values)
    entity_starts = np.full(entities.max() + 1, times.max())
    np.minimum.at(entity_starts, entities, times)
    could_have_lag = times >= entity_starts[entities] + to_timedelta(spec.lag)
    has_lag = ~np.isnan(lagged)
    if has_lag.sum() < max(MIN_KNOWN_ROWS, MIN_KNOWN_SHARE * could_have_lag.sum()):
        return None
    earlier, current = lagged[has_lag], values[has_lag]
    if np.ptp(earlier) == 0 or np.ptp(current) == 0:
        return None
    return float(np.corrcoef(earlier, current)[0, 1])


def _format_correlations(proposal: LagProposal, names: list[str]) -> str:
    return ", ".join(f"{name} {proposal.correlations[name]:.2f}" for name in names)
