"""Confidence intervals of metrics: percentile intervals of a bootstrap of whole days (Efron 1979)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from model_name.core.evaluation.weighted_metrics import WeightedMetric
from model_name.core.schemas.strict_models import LenientModel

CONFIDENCE_LEVEL = 0.95
MIN_DAYS = 10  # with fewer, rows are drawn, because so few days do not show how days differ
MIN_RESAMPLES = 200
MAX_ROW_VISITS = 60_000_000  # rows times resamples per metric; larger tables are resampled less often


class Interval(LenientModel):
    """95 % confidence interval of a metric; None if the metric is undefined in most resamples.

    Attributes:
        low: 2.5 % quantile of the resamples.
        high: 97.5 % quantile of the resamples.
    """

    low: float | None
    high: float | None


class Difference(LenientModel):
    """Metric of the version minus that of another model, on the same resamples, so that common variation cancels.

    Attributes:
        against: Name of the other model: `champion`, `constant` or `default trees`.
        metric: Name of the metric.
        value: Difference on the held-out rows.
        low: 2.5 % quantile of the difference.
        high: 97.5 % quantile of the difference. It is significant if both bounds have the same sign.
    """

    against: str
    metric: str
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Resampler:
    """Resampler that draws blocks of held-out rows with replacement (block bootstrap, Künsch 1989).

    Rows of one day share their weather, holiday and trend. Drawn independently they would give too narrow intervals.

    Attributes:
        block_of: Block of each of the n rows.
        blocks: Number of blocks.
        unit: Name of a block in reports: days or rows.
        resamples: Number of resamples.
        seed: Seed of the draws.
    """

    block_of: NDArray[np.int64]
    blocks: int
    unit: str
    resamples: int
    seed: int

    @classmethod
    def for_rows(cls, rows: int, moments: NDArray[np.datetime64] | None, *, resamples: int, seed: int) -> Self:
        """Create blocks of whole days if `moments` has at least `MIN_DAYS` of them, and of single rows otherwise."""
        affordable = max(MIN_RESAMPLES, MAX_ROW_VISITS // max(rows, 1))
        if moments is not None:
            days, block_of = np.unique(moments.astype("datetime64[D]"), return_inverse=True)
            if len(days) >= MIN_DAYS:
                return cls(block_of, len(days), "days", min(resamples, affordable), seed)
        return cls(np.arange(rows), rows, "rows", min(resamples, affordable), seed)

    @property
    def description(self) -> str:
        """Description of the resampling in reports."""
        return f"{self.blocks:,} {self.unit}, drawn {self.resamples} times"

    def resample(self, metrics: Sequence[WeightedMetric]) -> NDArray[np.float64]:
        """Compute each metric in each resample, resamples x metrics; all metrics see the same draws."""
        random = np.random.default_rng(self.seed)
        values = np.empty((self.resamples, len(metrics)))
        for number in range(self.resamples):
            drawn = random.integers(0, self.blocks, self.blocks)
            weights = np.bincount(drawn, minlength=self.blocks).astype(np.float64)[self.block_of]
            values[number] = [metric(weights) for metric in metrics]
        return values


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """Compute the 95 % percentile interval of resampled values, without the resamples where the metric is undefined."""
    known = values[np.isfinite(values)]
    if len(known) * 2 < len(values) or not len(known):
        return Interval(low=None, high=None)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def paired_difference(
    against: str, metric: str, values: tuple[float | None, float | None], resampled: NDArray[np.float64]
) -> Difference:
    """Compute the difference of a metric between the version and another model.

    Args:
        against: Name of the other model.
        metric: Name of the metric.
        values: Metric of the version and of the other model on the held-out rows.
        resampled: Metric of the version minus that of the other model in each resample.
    """
    own, other = values
    value = None if own is None or other is None else own - other
    interval = percentile_interval(resampled)
    return Difference(against=against, metric=metric, value=value, low=interval.low, high=interval.high)
