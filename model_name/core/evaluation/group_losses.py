"""Welch's t-test of the mean losses of groups of rows, with blocks of dependent rows as observations."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BlockLosses:
    """Losses of rows, and their sums over blocks of rows that are not independent.

    Attributes:
        values: Loss of each row.
        blocks: Block of each row.
    """

    values: NDArray[np.float64]
    blocks: NDArray[np.int64]

    @cached_property
    def mean(self) -> float:
        """Mean loss of all rows."""
        return float(self.values.mean())

    @cached_property
    def count(self) -> int:
        """Number of blocks."""
        return int(self.blocks.max()) + 1

    @cached_property
    def rows(self) -> NDArray[np.intp]:
        """Number of rows in each block."""
        return np.bincount(self.blocks)

    @cached_property
    def sums(self) -> NDArray[np.float64]:
        """Sum of the losses in each block."""
        return np.asarray(np.bincount(self.blocks, self.values), dtype=np.float64)


class GroupLosses:
    """Excess losses of groups and their significance.

    Attributes:
        tested: Number of groups that are large enough to be tested.
        excess: Mean loss of each group minus the mean loss of all rows.
    """

    def __init__(self, groups: NDArray[np.int64], size: int, losses: BlockLosses, min_rows: int) -> None:
        """Test the groups 0 to `size` - 1 that have at least `min_rows` rows; rows of group -1 are in none."""
        inside = np.flatnonzero(groups >= 0)
        groups, blocks, values = groups[inside], losses.blocks[inside], losses.values[inside]
        rows = np.bincount(groups, minlength=size)
        total = np.bincount(groups, weights=values, minlength=size)
        self._large = np.flatnonzero((rows >= min_rows) & (rows < len(losses.values)))
        self.tested = len(self._large)
        self.excess = np.divide(total, rows, out=np.zeros(size), where=rows > 0) - losses.mean
        # Rows and summed losses of each large group and block.
        position = np.full(size, -1)
        position[self._large] = np.arange(self.tested)
        kept = position[groups] >= 0
        cells = position[groups[kept]] * losses.count + blocks[kept]
        shape = (self.tested, losses.count)
        block_rows = np.bincount(cells, minlength=self.tested * losses.count).reshape(shape)
        block_sums = np.bincount(cells, values[kept], minlength=self.tested * losses.count).reshape(shape)
        self._p_values = _welch_p_values(block_rows, block_sums, losses.rows - block_rows, losses.sums - block_sums)

    def significant(self, level: float) -> NDArray[np.int64]:
        """Return the groups whose mean loss is significantly larger than that of all other rows."""
        groups: NDArray[np.int64] = self._large[self._p_values < level]
        return groups


def _welch_p_values(
    rows: NDArray[Any], sums: NDArray[Any], rows_rest: NDArray[Any], sums_rest: NDArray[Any]
) -> NDArray[np.float64]:
    """Compute one-sided p-values of Welch's t-test that a group's mean loss is larger than that of the other rows."""
    from scipy import stats

    mean, a, degrees = _cluster_means(rows, sums)
    mean_rest, b, degrees_rest = _cluster_means(rows_rest, sums_rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = (mean - mean_rest) / np.sqrt(a + b)
        degrees_all = (a + b) ** 2 / (a**2 / degrees + b**2 / degrees_rest)
    return np.nan_to_num(np.asarray(stats.t.sf(t, degrees_all), dtype=np.float64), nan=1.0)


def _cluster_means(rows: NDArray[Any], sums: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Compute the means of groups x blocks, their cluster-robust variance, and its degrees of freedom.

    Liang and Zeger 1986. If every block is one row, this is the ordinary variance of a mean.
    """
    count = rows.sum(axis=1)
    blocks = (rows > 0).sum(axis=1).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # a single block has no variance: NaN, never significant
        mean = sums.sum(axis=1) / count
        square = ((sums - rows * mean[:, None]) ** 2).sum(axis=1)
        return mean, square / count**2 * blocks / (blocks - 1), blocks - 1
