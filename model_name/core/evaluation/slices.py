"""Search for the slices on which a version is worst: groups of the values of a column, or of two columns.

After Slice Finder (Chung, Kraska, Polyzotis, Tae, Whang 2019): a slice counts if the loss of its rows is larger than
that of all others by Welch's t-test, corrected by Bonferroni for everything that was tried. Unlike there, the
observations of the test are days and not rows if there is a time column, and slices are ranked by their excess loss,
because `min_rows` already sets the size from which a slice matters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.evaluation.group_losses import BlockLosses, GroupLosses
from model_name.core.features.datetimes import DATETIME_PARTS
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.core.schemas.encodings import DatetimePart
from model_name.core.schemas.strict_models import LenientModel

MAX_SLICES = 5
MAX_CATEGORIES = 30  # of a column; the most frequent ones
NUMBER_BINS = 5
HOURS_PER_BIN = 2
SIGNIFICANCE = 0.05  # of all tests together (Bonferroni)
MAX_OVERLAP = 0.5  # of two slices: share of the smaller one's rows that are in both
MAX_BLOCKS = 500  # independent rows are pooled into this many blocks, which costs the test almost no power
PAIR_GAIN = 1.25  # minimum ratio of a pair's excess to that of each of its two groups

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class WorstSlice(LenientModel):
    """Slice on which a version is significantly worse than on the other rows.

    Attributes:
        words: Description of the slice.
        rows: Number of held-out rows in the slice.
        metrics: Metrics of the version on these rows.
        share: Share of these rows in the loss (squared error or log loss) of all held-out rows.
        ratio: Mean loss of these rows as a multiple of that of all held-out rows.
    """

    words: str
    rows: int
    metrics: dict[str, float | None]
    share: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Binning:
    """Binning of the rows by the values of a column.

    Attributes:
        source: Name of the column.
        groups: Group of each row; -1 for none.
        descriptions: Description of each group.
    """

    source: str
    groups: NDArray[np.int64]
    descriptions: list[str]


@dataclass(frozen=True)
class SliceCandidate:
    """Slice that is significantly worse than the other rows.

    Attributes:
        excess: Mean loss of the slice minus the mean loss of all rows.
        description: Description of the slice.
        rows: Positions of its rows.
    """

    excess: float
    description: str
    rows: NDArray[np.int64]


def worst_slices(
    table: pd.DataFrame,
    schema: TableSchema,
    losses: NDArray[np.float64],
    *,
    min_rows: int,
    blocks: NDArray[np.int64] | None = None,
) -> list[SliceCandidate]:
    """Find the slices that are significantly worse, at most five, the worst first.

    Args:
        table: Held-out rows, n.
        schema: Schema of the table. Its text identifiers and sensitive columns are not searched.
        losses: Loss of each row.
        min_rows: Minimum number of rows in a slice.
        blocks: Block of each row, such as its day, if rows of a block are not independent.

    Returns:
        Slices that overlap little; none if a loss is NaN or all are equal.
    """
    if not np.isfinite(losses).all() or np.ptp(losses) == 0:
        return []
    block_losses = BlockLosses(losses, blocks if blocks is not None else np.arange(len(losses)) % MAX_BLOCKS)
    binnings = list(bin_columns(table, schema))
    singles = [GroupLosses(binning.groups, len(binning.descriptions), block_losses, min_rows) for binning in binnings]
    pairs = {
        (first, second): GroupLosses(
            _cross(binnings[first], binnings[second]),
            _pair_count(binnings[first], binnings[second]),
            block_losses,
            min_rows,
        )
        for first, second in combinations(range(len(binnings)), 2)
        if binnings[first].source != binnings[second].source
    }
    level = SIGNIFICANCE / max(1, sum(cells.tested for cells in [*singles, *pairs.values()]))
    candidates = [
        SliceCandidate(single.excess[group], binning.descriptions[group], np.flatnonzero(binning.groups == group))
        for binning, single in zip(binnings, singles, strict=True)
        for group in single.significant(level)
    ]
    for (first, second), cells in pairs.items():
        for cell in cells.significant(level):
            left, right = divmod(int(cell), len(binnings[second].descriptions))
            single_excess = max(singles[first].excess[left], singles[second].excess[right], 0)
            if cells.excess[cell] >= PAIR_GAIN * single_excess:
                description = f"{binnings[first].descriptions[left]} and {binnings[second].descriptions[right]}"
                rows = np.flatnonzero((binnings[first].groups == left) & (binnings[second].groups == right))
                candidates.append(SliceCandidate(cells.excess[cell], description, rows))
    return _drop_overlapping(sorted(candidates, key=lambda candidate: -candidate.excess), len(losses))


def bin_columns(table: pd.DataFrame, schema: TableSchema) -> Iterator[Binning]:
    """Yield the binnings of the rows by each searchable column; a time column has several."""
    for name, column in schema.columns.items():
        if column.sensitive or column.kind == "text-id":
            continue
        if column.kind == "datetime":
            if name == schema.time:
                yield from _bin_moments(name, table[name].to_numpy())
            continue
        binning = _bin_column(name, column, table[name])
        if len(binning.descriptions) > 1:
            yield binning


def _drop_overlapping(candidates: list[SliceCandidate], rows: int) -> list[SliceCandidate]:
    kept: list[tuple[SliceCandidate, NDArray[np.bool_]]] = []
    for candidate in candidates:
        mask = np.zeros(rows, dtype=bool)
        mask[candidate.rows] = True
        if all((mask & other).sum() <= MAX_OVERLAP * min(mask.sum(), other.sum()) for _, other in kept):
            kept.append((candidate, mask))
        if len(kept) == MAX_SLICES:
            break
    return [candidate for candidate, _ in kept]


def _pair_count(first: Binning, second: Binning) -> int:
    return len(first.descriptions) * len(second.descriptions)


def _cross(first: Binning, second: Binning) -> NDArray[np.int64]:
    crossed = first.groups * len(second.descriptions) + second.groups
    return np.where((first.groups < 0) | (second.groups < 0), -1, crossed)


def _bin_column(name: str, column: Column, values: pd.Series) -> Binning:
    if column.kind == "numeric":
        return _bin_numbers(name, values.to_numpy(dtype=np.float64))
    if column.kind == "boolean":
        descriptions = {0.0: "false", 1.0: "true"}
        return _bin_labels(name, values.map(descriptions, na_action="ignore"))
    return _bin_labels(name, values)


def _bin_labels(name: str, values: pd.Series) -> Binning:
    frequent = list(values.value_counts().index[:MAX_CATEGORIES])
    groups = pd.Categorical(values, categories=frequent).codes.astype(np.int64)
    return _add_missing_group(name, groups, [f"{name} is {value}" for value in frequent], values.isna().to_numpy())


def _bin_numbers(name: str, values: NDArray[np.float64]) -> Binning:
    missing = np.isnan(values)
    known = values[~missing]
    if not len(known):
        return Binning(name, np.full(len(values), -1), [])
    edges = np.unique(np.quantile(known, np.linspace(0, 1, NUMBER_BINS + 1)[1:-1], method="lower"))
    groups = np.searchsorted(edges, values, side="left")  # a bin ends with its edge
    shown = [f"{edge:.4g}" for edge in edges]
    descriptions = [
        f"{name} up to {shown[0]}",
        *(f"{name} above {low} to {high}" for low, high in pairwise(shown)),
        f"{name} above {shown[-1]}",
    ]
    return _add_missing_group(name, np.where(missing, -1, groups), descriptions, missing)


def _add_missing_group(
    name: str, groups: NDArray[np.int64], descriptions: list[str], missing: NDArray[np.bool_]
) -> Binning:
    if not missing.any():
        return Binning(name, groups, descriptions)
    return Binning(name, np.where(missing, len(descriptions), groups), [*descriptions, f"{name} is missing"])


def _bin_moments(name: str, moments: NDArray[np.datetime64]) -> Iterator[Binning]:
    missing = np.isnat(moments)
    known = np.where(missing, np.datetime64(0, "s"), moments)
    parts: dict[DatetimePart, list[str]] = {
        "hour": [f"{name} hour {hour} to {hour + HOURS_PER_BIN - 1}" for hour in range(0, 24, HOURS_PER_BIN)],
        "weekday": [f"{name} weekday is {day}" for day in WEEKDAYS],
        "month": [f"{name} month is {month}" for month in MONTHS],
    }
    first: dict[DatetimePart, int] = {"hour": 0, "weekday": 0, "month": 1}
    for part, descriptions in parts.items():
        numbers = np.floor(DATETIME_PARTS[part](known)).astype(np.int64) - first[part]
        groups = numbers // HOURS_PER_BIN if part == "hour" else numbers
        if len(np.unique(groups[~missing])) > 1:
            yield Binning(name, np.where(missing, -1, groups), descriptions)
