"""Prediction intervals from residuals that a model has not seen: split conformal prediction.

Papadopoulos, Proedrou, Vovk, Gammerman (2002); by bins of the prediction, so that the width follows the noise
(Mondrian: Vovk, Gammerman, Shafer 2005). The promise holds if new rows are like those of the residuals; under drift it
is as good as the drift is slow (Barber, Candès, Ramdas, Tibshirani 2023), which is why the evaluation measures it.
"""

from math import ceil

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from model_name.core.decisions.decision import PredictionIntervals
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

MIN_BIN_ROWS = 100


class SplitConformal(FrozenModel):
    """Which prediction intervals a version is to have.

    Attributes:
        levels: The shares of actual values that they are to hold.
        bins: Into how many bins of the prediction the residuals are put at most; each has at least 100 of them.
    """

    levels: LaxTuple[float] = (0.8, 0.9, 0.95)
    bins: int = Field(5, gt=0)

    @field_validator("levels")
    @classmethod
    def _check_levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels are shares between 0 and 1, such as 0.9, not {list(levels)}")
        return tuple(sorted(set(levels)))

    def fit(self, predicted: NDArray[np.float64], actual: NDArray[np.float64]) -> PredictionIntervals | None:
        """The intervals of n out-of-sample predictions.

        A level that n rows are too few for is left out; None where that leaves none, or a prediction is NaN.
        """
        residuals = np.abs(actual - predicted)
        levels = tuple(level for level in self.levels if conformal_rank(len(residuals), level) <= len(residuals))
        if not levels or not np.isfinite(residuals).all():
            return None
        # Not so many bins that the highest level would have too few residuals in one.
        needed = max(MIN_BIN_ROWS, ceil(1 / (1 - max(levels))))
        bins = max(1, min(self.bins, len(residuals) // needed))
        edges = np.unique(np.quantile(predicted, np.linspace(0, 1, bins + 1)[1:-1]))
        place = np.searchsorted(edges, predicted, side="left")
        if np.bincount(place, minlength=len(edges) + 1).min() < needed:  # equal predictions stay together
            edges, place = np.empty(0), np.zeros(len(predicted), dtype=np.int64)
        groups = [np.sort(residuals[place == number]) for number in range(len(edges) + 1)]
        return PredictionIntervals(
            levels=levels,
            edges=tuple(edges.tolist()),
            halves=tuple(tuple(float(group[conformal_rank(len(group), level) - 1]) for group in groups) for level in levels),
            rows=len(residuals),
        )


def conformal_rank(rows: int, level: float) -> int:
    """Which of n sorted residuals bounds the next one with this probability: ceil((n + 1) level)."""
    return ceil(round((rows + 1) * level, 9))  # 0.9 * 10 would be a little above 9
