"""Decisions on raw scores: calibrated probabilities, a cost-optimal threshold, and prediction intervals.

Imports only numpy and pydantic, because servers import it.
"""

from dataclasses import replace
from math import isclose
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from model_name.core.schemas import Label, Outputs
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.errors import DataError

MIN_PROBABILITY = 1e-7  # smallest probability whose log-odds are computed; in float32, 1 less a smaller one is 1


class PredictionIntervals(FrozenModel):
    """Half widths of a regression's prediction intervals, by level and by bin of the prediction.

    Attributes:
        levels: Coverage levels, ascending.
        edges: Inner edges of the bins of the prediction, ascending; one less than there are bins.
        halves: Half width in each bin for each level, in units of the target.
        rows: Number of out-of-sample residuals that they were fitted to.
    """

    levels: LaxTuple[float]
    edges: LaxTuple[float]
    halves: LaxTuple[LaxTuple[float]]
    rows: int

    def bounds(self, prediction: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Compute the lower and the upper end of the interval of each prediction.

        Raises:
            DataError: The intervals were not fitted for this level.
        """
        for known, halves in zip(self.levels, self.halves, strict=True):
            if isclose(known, level):
                half = np.array(halves)[np.searchsorted(np.array(self.edges), prediction, side="left")]
                return prediction - half, prediction + half
        raise DataError(
            f"there is no prediction interval of level {level:g}; the levels are {', '.join(map(str, self.levels))}"
        )


class Costs(FrozenModel):
    """Costs of wrong predictions of a binary target, in any unit.

    Attributes:
        false_positive: Cost of a negative row that is predicted positive.
        false_negative: Cost of a positive row that is predicted negative.
    """

    false_positive: float = Field(1.0, gt=0, allow_inf_nan=False)
    false_negative: float = Field(1.0, gt=0, allow_inf_nan=False)

    def mean_cost(self, is_positive: NDArray[np.bool_], is_predicted_positive: NDArray[np.bool_]) -> float:
        """Compute the mean cost of a row."""
        wrong = self.false_positive * (is_predicted_positive & ~is_positive) + self.false_negative * (
            ~is_predicted_positive & is_positive
        )
        return float(np.mean(wrong))


class Sigmoid(FrozenModel):
    """A line through the log-odds of a binary target (Platt 1999).

    Attributes:
        slope: Slope of the line.
        intercept: Intercept of the line.
    """

    KIND: Literal["sigmoid"] = "sigmoid"
    slope: float
    intercept: float

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate n x 2 probabilities."""
        return _binary_probabilities(1 / (1 + np.exp(-(self.slope * log_odds(probabilities[:, 1]) + self.intercept))))


class Isotonic(FrozenModel):
    """A rising, piecewise linear function of the probability of a binary target (Zadrozny and Elkan 2002).

    Attributes:
        given: Probabilities of the model, ascending.
        calibrated: Calibrated probabilities at these points, ascending.
    """

    KIND: Literal["isotonic"] = "isotonic"
    given: LaxTuple[float]
    calibrated: LaxTuple[float]

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate n x 2 probabilities."""
        return _binary_probabilities(np.interp(probabilities[:, 1], self.given, self.calibrated))


class Temperature(FrozenModel):
    """Temperature scaling: one divisor of the log probabilities of all classes (Guo, Pleiss, Sun, Weinberger 2017).

    Attributes:
        temperature: The divisor; above 1 if the model is overconfident.
    """

    KIND: Literal["temperature"] = "temperature"
    temperature: float

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrate n x k probabilities."""
        logits = np.log(np.maximum(probabilities, MIN_PROBABILITY)) / self.temperature
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        calibrated: NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return calibrated


Calibrator = Annotated[Sigmoid | Isotonic | Temperature, Field(discriminator="KIND")]


class Decision(FrozenModel):
    """Conversion of the raw scores of a version into its outputs; the default leaves scores unchanged.

    Attributes:
        intervals: Prediction intervals of a regression.
        calibrator: Calibrator of the probabilities.
        threshold: Probability from which a row of a binary target is predicted positive; if None, the more probable
            class is predicted.
        costs: Costs that the threshold minimises.
    """

    intervals: PredictionIntervals | None = None
    calibrator: Calibrator | None = None
    threshold: float | None = None
    costs: Costs | None = None

    def apply(self, scores: NDArray[Any], classes: tuple[Label, ...], interval: float | None = None) -> Outputs:
        """Convert the raw scores of n rows to outputs.

        Args:
            scores: n (x 1) predictions of a regression, n x k probabilities of a classification.
            classes: The labels of a classification.
            interval: Level of the prediction intervals, if they are requested.

        Raises:
            DataError: Intervals are requested, but there are none, or none of this level.
        """
        if not classes:
            outputs = Outputs.from_scores(scores, classes)
            if interval is None:
                return outputs
            lower, upper = self._require_intervals().bounds(outputs.prediction, interval)
            return replace(outputs, lower=lower, upper=upper)
        if interval is not None:
            raise DataError("prediction intervals are those of a regression; this is a classification")
        probabilities = np.asarray(scores, dtype=np.float64)
        if self.calibrator is not None:
            probabilities = self.calibrator.apply(probabilities)
        outputs = Outputs.from_scores(probabilities, classes)
        if self.threshold is None:
            return outputs
        labels = np.empty(2, dtype=object)
        labels[:] = classes
        return replace(outputs, prediction=labels[(probabilities[:, 1] >= self.threshold).astype(np.intp)])

    @property
    def recipe(self) -> tuple[Any, ...]:
        """Configured settings that change every prediction, as opposed to fitted values and opt-in intervals."""
        method = self.calibrator and self.calibrator.KIND
        return (method, self.costs and (self.costs.false_positive, self.costs.false_negative))

    def _require_intervals(self) -> PredictionIntervals:
        if self.intervals is None:
            raise DataError("this version has no prediction intervals", hint="train it with job.interval")
        return self.intervals


def log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute log-odds of probabilities, which are finite for 0 and 1 as well."""
    inside = np.clip(probabilities, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(np.log(inside / (1 - inside)))


def _binary_probabilities(positive: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([1 - positive, positive])
