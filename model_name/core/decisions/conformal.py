"""Split conformal prediction: prediction intervals from out-of-sample residuals.

Papadopoulos, Proedrou, Vovk, Gammerman (2002); fitted in bins of the prediction, so that the width follows the noise
(Mondrian: Vovk, Gammerman, Shafer 2005). The coverage is guaranteed if new rows are exchangeable with those of the
residuals. Under drift it degrades with the speed of the drift (Barber, Candès, Ramdas, Tibshirani 2023), which is why
the evaluation measures it.
"""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, field_validator

from model_name.core.decisions.decision import PredictionIntervals
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

MIN_BIN_ROWS = 100


class SplitConformal(FrozenModel):
    """Settings of the prediction intervals of a version.

    Attributes:
        levels: Coverage levels: shares of actual values that the intervals contain.
        bins: Maximum number of bins of the prediction; each holds at least 100 residuals.
    """

    model_config = ConfigDict(title="Conformal")  # errors about its keys show it

    levels: LaxTuple[float] = (0.8, 0.9, 0.95)
    bins: int = Field(5, gt=0)

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels are shares between 0 and 1, such as 0.9, not {list(levels)}")
        return tuple(sorted(set(levels)))

    def fit(self, predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> PredictionIntervals | None:
        """Fit the intervals to n out-of-sample predictions.

        Returns:
            The intervals, without the levels that need more than n rows. None if no level is left, or a prediction is
            NaN.
        """
        residuals = np.abs(actual - predicted)
        levels = tuple(level for level in self.levels if conformal_rank(len(residuals), level) <= len(residuals))
        if not levels or not np.isfinite(residuals).all():
            return None
        # Limit the number of bins so that each has enough residuals for the highest level.
        needed = max(MIN_BIN_ROWS, ceil(1 / (1 - max(levels))))
        bins = max(1, min(self.bins, len(residuals) // needed))
        edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
        bin_of_row = np.searchsorted(edges, predicted, side="left")
        if np.bincount(bin_of_row, minlength=len(edges) + 1).min() < needed:  # equal predictions share a bin
            edges, bin_of_row = np.empty(0), np.zeros(len(predicted), dtype=np.int64)
        groups = [np.sort(residuals[bin_of_row == number]) for number in range(len(edges) + 1)]
        return PredictionIntervals(
            levels=levels,
            edges=tuple(edges.tolist()),
            halves=tuple(
                tuple(float(group[conformal_rank(len(group), level) - 1]) for group in groups) for level in levels
            ),
            rows=len(residuals),
        )


def conformal_rank(rows: int, level: float) -> int:
    """Compute the rank of the sorted residual that bounds a new one with this probability: ceil((n + 1) level)."""
    return ceil(round((rows + 1) * level, 9))  # 0.9 * 10 is slightly above 9 in floating point
