"""How far a figure could be off: percentile intervals of the bootstrap, whole days at a time (Efron 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_name.core.evaluation.weighted_metrics import WeightedMetric
from model_name.core.schemas.strict_models import LenientModel

CONFIDENCE_LEVEL = 0.95
MIN_DAYS = 10  # fewer say too little about how days differ; rows are drawn then
MIN_RESAMPLES = 200
MAX_ROW_VISITS = 60_000_000  # rows visited a statistic; more of them are drawn less often


class Interval(LenientModel):
    """Where a metric lies with 95 %; None where it is not defined in most resamples.

    Attributes:
        low: The 2.5 % quantile of the resamples.
        high: The 97.5 % quantile.
    """

    low: float | None
    high: float | None


class Difference(LenientModel):
    """The version less another model, measured on the same resamples, so that what is hard for both cancels.

    Attributes:
        against: The other: `champion`, `constant` or `default trees`.
        metric: What was measured.
        value: The difference on the held-out rows.
        low: Its 2.5 % quantile.
        high: Its 97.5 % quantile. The difference is beyond chance where both bounds are of one sign.
    """

    against: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Resampler:
    """Draws blocks of held-out rows with replacement.

    Rows of one day share their weather, their holiday and their trend: drawn one by one, they would look like more
    evidence than they are (the block bootstrap, Künsch 1989).

    Attributes:
        block_of: The block of each of the n rows.
        blocks: How many blocks there are.
        unit: What a block is, for people: days or rows.
        resamples: How often all of them are drawn.
        seed: Of the draws.
    """

    block_of: NDArray[np.int64]
    blocks: int
    unit: str
    resamples: int
    seed: int

    @classmethod
    def for_rows(cls, rows: int, moments: NDArray[np.datetime64] | None, *, resamples: int, seed: int) -> Self:
        """Blocks of whole days where there are moments of at least `MIN_DAYS`, else of single rows."""
        affordable = max(MIN_RESAMPLES, MAX_ROW_VISITS // max(rows, 1))
        if moments is not None:
            days, block_of = np.unique(moments.astype("datetime64[D]"), return_inverse=True)
            if len(days) >= MIN_DAYS:
                return cls(block_of, len(days), "days", min(resamples, affordable), seed)
        return cls(np.arange(rows), rows, "rows", min(resamples, affordable), seed)

    @property
    def description(self) -> str:
        """What was drawn, for people."""
        return f"{self.blocks:,} {self.unit}, drawn {self.resamples} times"

    def resample(self, statistics: Sequence[WeightedMetric]) -> NDArray[np.float64]:
        """The value of each statistic in each resample, resamples x statistics; all of them see the same draws."""
        random = np.random.default_rng(self.seed)
        found = np.empty((self.resamples, len(statistics)))
        for number in range(self.resamples):
            drawn = random.integers(0, self.blocks, self.blocks)
            weights = np.bincount(drawn, minlength=self.blocks).astype(np.float64)[self.block_of]
            found[number] = [statistic(weights) for statistic in statistics]
        return found


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """The 95 % percentile interval of resampled values; those where the metric is not defined are left out."""
    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values) or not len(known):
        return Interval(low=None, high=None)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def paired_difference(
    against: str, metric: str, values: tuple[float | None, float | None], resampled: NDArray[np.float64]
) -> Difference:
    """One model less another.

    Args:
        against: The other.
        metric: What was measured.
        values: The version's and the other's value on the held-out rows.
        resampled: The version's value less the other's, a resample each.
    """
    mine, theirs = values
    value = None if mine is None or theirs is None else mine - theirs
    found = percentile_interval(resampled)
    return Difference(against=against, metric=metric, value=value, low=found.low, high=found.high)
