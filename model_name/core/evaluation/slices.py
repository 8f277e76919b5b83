"""Where a version is worst: a search over values of columns, and pairs of them, that nobody named beforehand.

After Slice Finder (Chung, Kraska, Polyzotis, Tae, Whang 2019): a slice counts if the loss of its rows is larger than
that of all others by Welch's t-test, corrected by Bonferroni for everything that was tried. Unlike there, the test
counts days and not rows where rows have a day, and slices are ranked by how much worse they are, because `min_rows`
already says from which size on a slice matters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.features.datetimes import DATETIME_PARTS
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.core.schemas.encodings import DatetimePart
from model_name.core.schemas.strict_models import LenientModel

MAX_SLICES = 5
MAX_CATEGORIES = 30  # a column: its most frequent ones
NUMBER_BINS = 5
HOURS_PER_BIN = 2  # a band of hours
SIGNIFICANCE = 0.05  # of all tests together
MAX_OVERLAP = 0.5  # of two slices, as the share of the smaller one's rows that both hold
MAX_BLOCKS = 500  # rows that are independent are thrown together into so many, which costs the test next to nothing
PAIR_GAIN = 1.25  # how much larger than that of each of its columns the excess of a pair must be

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class WorstSlice(LenientModel):
    """Rows that a search found to be worse than the others.

    Attributes:
        words: Which rows, for people.
        rows: How many held-out rows they are.
        metrics: What the version scores on them.
        share: Their part of the loss (squared error or log loss) of all held-out rows.
        ratio: Their mean loss as a multiple of that of all held-out rows.
    """

    words: str
    rows: int
    metrics: dict[str, float | None]
    share: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class Binning:
    """A column cut into groups: the group of each row (-1 where it is in none), and each group in words."""

    source: str
    groups: NDArray[np.int64]
    words: list[str]


@dataclass(frozen=True)
class SliceCandidate:
    """Rows that are worse: their mean loss less that of all, in words, and where they are."""

    excess: float
    words: str
    rows: NDArray[np.int64]


def worst_slices(
    table: pd.DataFrame,
    schema: TableSchema,
    losses: NDArray[np.float64],
    *,
    min_rows: int,
    blocks: NDArray[np.int64] | None = None,
) -> list[SliceCandidate]:
    """The slices that are worst beyond chance, at most five, the worst first.

    Args:
        table: n held-out rows.
        schema: What they are. Names and sensitive columns are not looked at.
        losses: The loss of each row.
        min_rows: Rows that a slice needs.
        blocks: The block of each row, such as its day, where rows of a block are not independent of one another.

    Returns:
        Slices that do not say the same twice; none where a loss is NaN or all are equal.
    """
    if not np.isfinite(losses).all() or np.ptp(losses) == 0:
        return []
    known = _BlockLosses(losses, blocks if blocks is not None else np.arange(len(losses)) % MAX_BLOCKS)
    cuts = list(binnings(table, schema))
    singles = [_GroupLosses(cut.groups, len(cut.words), known, min_rows) for cut in cuts]
    pairs = {
        (one, other): _GroupLosses(_cross(cuts[one], cuts[other]), _pair_count(cuts[one], cuts[other]), known, min_rows)
        for one, other in combinations(range(len(cuts)), 2)
        if cuts[one].source != cuts[other].source
    }
    level = SIGNIFICANCE / max(1, sum(cells.tested for cells in [*singles, *pairs.values()]))
    found = [
        SliceCandidate(single.excess[group], cut.words[group], np.flatnonzero(cut.groups == group))
        for cut, single in zip(cuts, singles, strict=True)
        for group in single.significant(level)
    ]
    for (one, other), cells in pairs.items():
        for cell in cells.significant(level):
            left, right = divmod(int(cell), len(cuts[other].words))
            alone = max(singles[one].excess[left], singles[other].excess[right], 0)
            if cells.excess[cell] >= PAIR_GAIN * alone:
                words = f"{cuts[one].words[left]} and {cuts[other].words[right]}"
                rows = np.flatnonzero((cuts[one].groups == left) & (cuts[other].groups == right))
                found.append(SliceCandidate(cells.excess[cell], words, rows))
    return _drop_overlapping(sorted(found, key=lambda candidate: -candidate.excess), len(losses))


def binnings(table: pd.DataFrame, schema: TableSchema) -> Iterator[Binning]:
    """Every way in which a column puts rows into groups."""
    for name, column in schema.columns.items():
        if column.sensitive or column.kind == "text-id":
            continue
        if column.kind == "datetime":
            if name == schema.time:
                yield from _bin_moments(name, table[name].to_numpy())
            continue
        cut = _bin_column(name, column, table[name])
        if len(cut.words) > 1:
            yield cut


@dataclass(frozen=True)
class _BlockLosses:
    """The loss of each row, and of each block of rows that are not independent of one another."""

    values: NDArray[np.float64]
    blocks: NDArray[np.int64]

    @cached_property
    def mean(self) -> float:
        return float(self.values.mean())

    @cached_property
    def count(self) -> int:
        return int(self.blocks.max()) + 1

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        return np.bincount(self.blocks)

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        return np.asarray(np.bincount(self.blocks, self.values), dtype=np.float64)


class _GroupLosses:
    """Loss by group: its mean less that of all, and whether that is beyond chance."""

    def __init__(self, groups: NDArray[np.int64], size: int, losses: _BlockLosses, min_rows: int) -> None:
        inside = np.flatnonzero(groups >= 0)
        groups, blocks, values = groups[inside], losses.blocks[inside], losses.values[inside]
        rows = np.bincount(groups, minlength=size)
        total = np.bincount(groups, weights=values, minlength=size)
        self.large = np.flatnonzero((rows >= min_rows) & (rows < len(losses.values)))
        self.tested = len(self.large)
        self.excess = np.divide(total, rows, out=np.zeros(size), where=rows > 0) - losses.mean
        # Of each large group and block: how many rows it has, and what they cost.
        place = np.full(size, -1)
        place[self.large] = np.arange(self.tested)
        kept = place[groups] >= 0
        cells = place[groups[kept]] * losses.count + blocks[kept]
        shape = (self.tested, losses.count)
        block_rows = np.bincount(cells, minlength=self.tested * losses.count).reshape(shape)
        block_sums = np.bincount(cells, values[kept], minlength=self.tested * losses.count).reshape(shape)
        self._chance = _welch_p_values(block_rows, block_sums, losses.rows - block_rows, losses.sums - block_sums)

    def significant(self, level: float) -> NDArray[np.int64]:
        """The groups whose loss is larger than that of all other rows, beyond chance."""
        found: NDArray[np.int64] = self.large[self._chance < level]
        return found


def _welch_p_values(
    rows: NDArray[Any], sums: NDArray[Any], rows_rest: NDArray[Any], sums_rest: NDArray[Any]
) -> NDArray[np.float64]:
    """How likely a mean is to be so much larger than that of the rest by chance: Welch's t-test, one-sided."""
    from scipy import stats

    mean, a, freedom = _cluster_means(rows, sums)
    mean_rest, b, freedom_rest = _cluster_means(rows_rest, sums_rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (mean - mean_rest) / np.sqrt(a + b)
        freedom_all = (a + b) ** 2 / (a**2 / freedom + b**2 / freedom_rest)
    return np.nan_to_num(np.asarray(stats.t.sf(t, freedom_all), dtype=np.float64), nan=1.0)


def _cluster_means(rows: NDArray[Any], sums: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Means over groups x blocks, their variance if the blocks were drawn (Liang and Zeger 1986), and its freedom.

    Where a block is a row, this is the usual variance of a mean.
    """
    count = rows.sum(axis=1)
    blocks = (rows > 0).sum(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a single block has no variance: NaN, never significant
        mean = sums.sum(axis=1) / count
        square = ((sums - rows * mean[:, None]) ** 2).sum(axis=1)
        return mean, square / count**2 * blocks / (blocks - 1), blocks - 1


def _drop_overlapping(found: list[SliceCandidate], rows: int) -> list[SliceCandidate]:
    kept: list[tuple[SliceCandidate, NDArray[np.bool_]]] = []
    for candidate in found:
        mask = np.zeros(rows, dtype=bool)
        mask[candidate.rows] = True
        if all((mask & other).sum() <= MAX_OVERLAP * min(mask.sum(), other.sum()) for _, other in kept):
            kept.append((candidate, mask))
        if len(kept) == MAX_SLICES:
            break
    return [candidate for candidate, _ in kept]


def _pair_count(one: Binning, other: Binning) -> int:
    return len(one.words) * len(other.words)


def _cross(one: Binning, other: Binning) -> NDArray[np.int64]:
    crossed = one.groups * len(other.words) + other.groups
    return np.where((one.groups < 0) | (other.groups < 0), -1, crossed)


def _bin_column(name: str, column: Column, values: pd.Series) -> Binning:
    if column.kind == "numeric":
        return _bin_numbers(name, values.to_numpy(dtype=np.float64))
    if column.kind == "boolean":
        words = {0.0: "false", 1.0: "true"}
        return _bin_labels(name, values.map(words, na_action="ignore"))
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
    words = [
        f"{name} up to {shown[0]}",
        *(f"{name} above {low} to {high}" for low, high in pairwise(shown)),
        f"{name} above {shown[-1]}",
    ]
    return _add_missing_group(name, np.where(missing, -1, groups), words, missing)


def _add_missing_group(name: str, groups: NDArray[np.int64], words: list[str], missing: NDArray[np.bool_]) -> Binning:
    if not missing.any():
        return Binning(name, groups, words)
    return Binning(name, np.where(missing, len(words), groups), [*words, f"{name} is missing"])


def _bin_moments(name: str, moments: NDArray[np.datetime64]) -> Iterator[Binning]:
    missing = np.isnat(moments)
    known = np.where(missing, np.datetime64(0, "s"), moments)
    parts: dict[DatetimePart, list[str]] = {
        "hour": [f"{name} hour {hour} to {hour + HOURS_PER_BIN - 1}" for hour in range(0, 24, HOURS_PER_BIN)],
        "weekday": [f"{name} weekday is {day}" for day in WEEKDAYS],
        "month": [f"{name} month is {month}" for month in MONTHS],
    }
    first: dict[DatetimePart, int] = {"hour": 0, "weekday": 0, "month": 1}
    for part, words in parts.items():
        numbers = np.floor(DATETIME_PARTS[part](known)).astype(np.int64) - first[part]
        groups = numbers // HOURS_PER_BIN if part == "hour" else numbers
        if len(np.unique(groups[~missing])) > 1:
            yield Binning(name, np.where(missing, -1, groups), words)
