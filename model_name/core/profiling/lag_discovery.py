"""Which earlier values of the target are worth being told to a row: where a table is one or more regular series."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.profiling.column_facts import Facts
from model_name.core.profiling.time_and_key import are_unique
from model_name.core.schemas.columns import Column
from model_name.core.schemas.lags import History, look_back, span

ENTITY_COLUMNS = 2
ENTITY_CANDIDATES = 8
ENTITY_ROWS = 20  # on average, that an entity needs to be a series
REGULAR_SHARE = 0.5  # of the steps of a series that are the median one
CYCLES = 4  # that a table must hold of a lag, and 2 of one that is a year
YEAR = np.timedelta64(360, "D")
KNOWN_SHARE = 0.7  # of the rows that a lag must find an earlier one for
KNOWN_ROWS = 30
CORRELATION = 0.3  # with the target, below which an earlier value is not worth asking clients for
UNITS = {"d": np.timedelta64(1, "D"), "h": np.timedelta64(1, "h"), "m": np.timedelta64(1, "m")}

Lag = tuple[str, int]
"""A span of time, and how many of its multiples are averaged."""
WITHIN_DAYS: tuple[Lag, ...] = (("24h", 1), ("168h", 1), ("336h", 1), ("24h", 7), ("168h", 4))
DAILY: tuple[Lag, ...] = (("7d", 1), ("14d", 1), ("28d", 1), ("364d", 1), ("7d", 4))
WEEKLY: tuple[Lag, ...] = (("1w", 1), ("2w", 1), ("52w", 1), ("1w", 4))


@dataclass(frozen=True)
class Series:
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
    def words(self) -> str:
        """What it is."""
        return f"the rows come every {_spelled(self.step)}" + (f" for each {' and '.join(self.by)}" if self.by else "")


@dataclass(frozen=True)
class Proposal:
    """Columns that tell of earlier values of the target.

    Attributes:
        columns: By name.
        correlations: How each goes with the target, on the older half of the rows; also of those left out.
        newest: The shortest lag of the columns; "" where there is none.
    """

    columns: Mapping[str, Column]
    correlations: Mapping[str, float]
    newest: str = ""


def find_series(facts: Mapping[str, Facts], time: str) -> Series | None:
    """The regular series that a table is, told apart by as few columns as can be; None if it is none."""
    rows = len(facts[time].values)
    apart = [name for name, found in facts.items() if name != time and _may_tell_apart(found, rows)]
    # What has a name for each entity comes before numbers, which may tell rows apart by chance.
    apart.sort(key=lambda name: (facts[name].kind == "numeric", len(facts[name].distinct)))
    for size in range(ENTITY_COLUMNS + 1):
        for by in combinations(apart[:ENTITY_CANDIDATES], size):
            if are_unique([facts[time].codes, *(facts[name].codes for name in by)]):
                entities = np.zeros(rows, dtype=np.int64)
                for name in by:
                    entities = entities * len(facts[name].distinct) + facts[name].codes
                step = _step(facts[time].values, entities)
                if step is not None:
                    return Series(by, entities, facts[time].values, step)
    return None


def propose_histories(series: Series, values: NDArray[Any], target: str, taken: Collection[str]) -> Proposal:
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
    for lag, repeats in _lags(series.step, length):
        history = History(of=target, by=series.by, lag=lag, repeats=repeats)
        correlation = _correlation(history, series.times[is_old], series.entities[is_old], values[is_old])
        if correlation is None:
            continue
        name = f"{target}_{lag}" if repeats == 1 else f"{target}_{repeats}x{lag}"
        while name in taken:
            name += "_"
        correlations[name] = correlation
        if abs(correlation) >= CORRELATION:
            lowest = 0.0 if values.min() >= 0 else None
            columns[name] = Column(kind="numeric", nullable=True, min=lowest, history=history)
            kept.append(lag)
    return Proposal(columns, correlations, min(kept, key=span, default=""))


def said_of_histories(series: Series | None, proposal: Proposal | None, target: str) -> Iterator[str]:
    """What was decided about earlier values of the target."""
    if series is None or proposal is None:
        yield "histories: the rows are no series with regular steps, so they are told nothing of earlier ones"
        return
    if not proposal.correlations:
        yield f"histories: {series.words}, but too few or too irregular to learn from earlier values of {target}"
        return
    weak = [name for name in proposal.correlations if name not in proposal.columns]
    if proposal.columns:
        yield (
            f"histories: {series.words}, so columns are made of earlier values of {target}: "
            f"{_numbers(proposal, list(proposal.columns))} (correlation with {target} on the older half of the rows)"
        )
        yield (
            f"histories: EVERY REQUEST MUST BRING {', '.join(proposal.columns)}; the newest value in them is "
            f"{proposal.newest} older than the row: where that is not known yet when a prediction is asked for, "
            "remove the column, or give it a longer `lag`"
        )
    if weak:
        words = f"histories: not told, as they go too little with {target} (below {CORRELATION})"
        yield f"{words}: {_numbers(proposal, weak)}"


def _may_tell_apart(found: Facts, rows: int) -> bool:
    is_name = found.kind in {"category", "text-id"} or found.is_integer
    return is_name and found.is_whole and 1 < len(found.distinct) <= rows / ENTITY_ROWS


def _step(times: NDArray[Any], entities: NDArray[np.int64]) -> Any:
    """What usually lies between two rows of a series, or None where nothing does usually, or no span can say it."""
    order = np.lexsort((times, entities))
    steps = np.diff(times[order])[np.diff(entities[order]) == 0]
    if not len(steps):
        return None
    step = np.sort(steps)[len(steps) // 2]
    is_whole = step % UNITS["m"] == np.timedelta64(0, "us")
    return step if is_whole and np.mean(steps == step) >= REGULAR_SHARE else None


def _lags(step: Any, length: Any) -> Iterator[Lag]:
    """What may be worth telling, by the seasons that rows in such steps have, where the table is long enough."""
    day, week = UNITS["d"], 7 * UNITS["d"]
    if 5 * UNITS["m"] <= step <= 6 * UNITS["h"] and day % step == np.timedelta64(0, "us"):
        lags = WITHIN_DAYS
    elif step in (day, week):
        lags = DAILY if step == day else WEEKLY
    else:
        lags = tuple((_spelled(count * step), 1) for count in (1, 2, 3))
    for lag, repeats in lags:
        cycles = 2 if span(lag) >= YEAR else CYCLES
        if length >= max(cycles, 2 * repeats) * span(lag):
            yield lag, repeats


def _spelled(length: Any) -> str:
    unit = next(letter for letter, unit in UNITS.items() if length % unit == np.timedelta64(0, "us"))
    return f"{int(length // UNITS[unit])}{unit}"


def _correlation(
    history: History, times: NDArray[Any], entities: NDArray[np.int64], values: NDArray[Any]
) -> float | None:
    """How what is told goes with the target; None where too little is told, or nothing varies."""
    told = look_back(history, times, entities, values)
    begins = np.full(entities.max() + 1, times.max())
    np.minimum.at(begins, entities, times)
    could_be_told = times >= begins[entities] + span(history.lag)
    is_told = ~np.isnan(told)
    if is_told.sum() < max(KNOWN_ROWS, KNOWN_SHARE * could_be_told.sum()):
        return None
    earlier, now = told[is_told], values[is_told]
    if np.ptp(earlier) == 0 or np.ptp(now) == 0:
        return None
    return float(np.corrcoef(earlier, now)[0, 1])


def _numbers(proposal: Proposal, names: list[str]) -> str:
    return ", ".join(f"{name} {proposal.correlations[name]:.2f}" for name in names)
