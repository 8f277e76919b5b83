"""From raw scores to an answer: calibrated probabilities, the label that costs least, an interval around a number.

Needs pydantic and numpy alone, because servers import it.
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

MIN_PROBABILITY = 1e-7  # probability whose log-odds is taken; below it, float32 holds none next to 1


class PredictionIntervals(FrozenModel):
    """Half the width of a regression's prediction intervals, by level and by bin of the prediction.

    Attributes:
        levels: The share of actual values that each is to hold, ascending.
        edges: Where one bin of the prediction ends and the next begins, ascending; one less than there are bins.
        halves: For each level, half the width in each bin, in units of the target.
        rows: How many out-of-sample residuals they were found in.
    """

    levels: LaxTuple[float]
    edges: LaxTuple[float]
    halves: LaxTuple[LaxTuple[float]]
    rows: int

    def bounds(self, prediction: NDArray[np.float64], level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The lower and upper end of the interval of each prediction.

        Raises:
            DataError: There is no such level.
        """
        for known, halves in zip(self.levels, self.halves, strict=True):
            if isclose(known, level):
                half = np.array(halves)[np.searchsorted(np.array(self.edges), prediction, side="left")]
                return prediction - half, prediction + half
        raise DataError(
            f"there is no prediction interval of level {level:g}; the levels are {', '.join(map(str, self.levels))}"
        )


class Costs(FrozenModel):
    """What wrong answers of a binary target cost, in any unit.

    Attributes:
        false_positive: A negative that is called positive.
        false_negative: A positive that is called negative.
    """

    false_positive: float = Field(1.0, gt=0, allow_inf_nan=False)
    false_negative: float = Field(1.0, gt=0, allow_inf_nan=False)

    def mean_cost(self, is_positive: NDArray[np.bool_], is_predicted_positive: NDArray[np.bool_]) -> float:
        """The mean cost of a row."""
        wrong = self.false_positive * (is_predicted_positive & ~is_positive) + self.false_negative * (~is_predicted_positive & is_positive)
        return float(np.mean(wrong))


class Sigmoid(FrozenModel):
    """A line through the log-odds of a binary target (Platt 1999).

    Attributes:
        slope: Of the line.
        intercept: Of the line.
    """

    KIND: Literal["sigmoid"] = "sigmoid"
    slope: float
    intercept: float

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, n x 2."""
        return _binary_probabilities(1 / (1 + np.exp(-(self.slope * log_odds(probabilities[:, 1]) + self.intercept))))


class Isotonic(FrozenModel):
    """A rising, piecewise linear function of the probability of a binary target (Zadrozny and Elkan 2002).

    Attributes:
        given: Probabilities of the model, ascending.
        calibrated: What they become, ascending.
    """

    KIND: Literal["isotonic"] = "isotonic"
    given: LaxTuple[float]
    calibrated: LaxTuple[float]

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, n x 2."""
        return _binary_probabilities(np.interp(probabilities[:, 1], self.given, self.calibrated))


class Temperature(FrozenModel):
    """One number that the log probabilities of all classes are divided by (Guo, Pleiss, Sun, Weinberger 2017).

    Attributes:
        temperature: Above 1 where the model is too sure of itself.
    """

    KIND: Literal["temperature"] = "temperature"
    temperature: float

    def apply(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities, n x k."""
        logits = np.log(np.maximum(probabilities, MIN_PROBABILITY)) / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        calibrated: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return calibrated


Calibrator = Annotated[Sigmoid | Isotonic | Temperature, Field(discriminator="KIND")]


class Decision(FrozenModel):
    """All that turns raw scores into the answer of a version; the default takes them as they are.

    Attributes:
        intervals: The prediction intervals of a regression.
        calibrator: What makes probabilities mean what they say.
        threshold: The probability from which on a row is called positive; the larger of the two where None.
        costs: What the threshold was chosen by.
    """

    intervals: PredictionIntervals | None = None
    calibrator: Calibrator | None = None
    threshold: float | None = None
    costs: Costs | None = None

    def apply(self, scores: NDArray[Any], classes: tuple[Label, ...], interval: float | None = None) -> Outputs:
        """The answer for n rows.

        Args:
            scores: n (x 1) predictions where there are no classes, n x k probabilities where there are.
            classes: The labels of a classification.
            interval: The level of the prediction intervals, if they are asked for.

        Raises:
            DataError: There are no intervals, or none of this level.
        """
        if not classes:
            outputs = Outputs.from_scores(scores, classes)
            if interval is None:
                return outputs
            lower, upper = self._intervals.bounds(outputs.prediction, interval)
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
        """What of it was configured and changes answers that nobody asked otherwise; the rest is fitted."""
        method = self.calibrator and self.calibrator.KIND
        return (method, self.costs and (self.costs.false_positive, self.costs.false_negative))

    @property
    def _intervals(self) -> PredictionIntervals:
        if self.intervals is None:
            raise DataError("this version has no prediction intervals", hint="train it with job.interval")
        return self.intervals


def log_odds(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of probabilities, finite also for 0 and 1."""
    inside = np.clip(probabilities, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.asarray(np.log(inside / (1 - inside)))


def _binary_probabilities(positive: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack([1 - positive, positive])
