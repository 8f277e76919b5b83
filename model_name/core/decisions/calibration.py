"""Fitting of decisions: calibration of probabilities, and the cost-optimal threshold."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_name.core.decisions.conformal import SplitConformal
from model_name.core.decisions.decision import (
    MIN_PROBABILITY,
    Calibrator,
    Costs,
    Decision,
    Isotonic,
    Sigmoid,
    Temperature,
    log_odds,
)
from model_name.core.metrics import label_positions
from model_name.core.schemas import Outputs, Task
from model_name.errors import ConfigError, DataError

CalibrationMethod = Literal["none", "sigmoid", "isotonic", "temperature"]

METHODS_BY_TASK: dict[Task, tuple[CalibrationMethod, ...]] = {
    "regression": ("none",),
    "binary": ("none", "sigmoid", "isotonic", "temperature"),
    "multiclass": ("none", "temperature"),
}


def check_calibration(calibration: CalibrationMethod, task: Task) -> None:
    """Check that a calibration method supports a task.

    Raises:
        ConfigError: The method does not support the task; the hint lists those that do.
    """
    if calibration not in METHODS_BY_TASK[task]:
        raise ConfigError(
            f"job.calibration: {calibration} does not fit a {task} target",
            hint=f"use one of {', '.join(METHODS_BY_TASK[task])}",
        )


def fit_decision(
    targets: NDArray[Any],
    outputs: Outputs,
    *,
    interval: SplitConformal | None,
    costs: Costs | None,
    calibration: CalibrationMethod,
) -> Decision:
    """Fit the decision of a model to out-of-sample predictions.

    Args:
        targets: n numbers or labels of rows that the model was not fitted on.
        outputs: Predictions of the model for the rows, without a decision.
        interval: Settings of the prediction intervals of a regression; none are fitted if None.
        costs: Costs of wrong predictions of a binary target; the threshold is not fitted if None.
        calibration: Method that calibrates the probabilities, before the threshold is chosen.

    Raises:
        DataError: A probability that the model predicted is NaN.
    """
    if outputs.probabilities is None:
        return Decision(intervals=interval.fit(outputs.prediction, targets) if interval else None)
    if np.isnan(outputs.probabilities).any():
        raise DataError("the model answers NaN for rows that it has not seen: neither costs nor calibration can be met")
    truth = label_positions(targets, outputs.classes)
    calibrator = fit_calibrator(calibration, outputs.probabilities, truth)
    if costs is None:
        return Decision(calibrator=calibrator)
    scores = calibrator.apply(outputs.probabilities) if calibrator else outputs.probabilities
    threshold = cost_optimal_threshold(scores[:, 1], truth == 1, costs)
    return Decision(calibrator=calibrator, threshold=threshold, costs=costs)


def fit_calibrator(
    calibration: CalibrationMethod, probabilities: NDArray[np.float64], truth: NDArray[np.int64]
) -> Calibrator | None:
    """Fit a calibrator to out-of-sample probabilities.

    Args:
        calibration: Method of the calibration.
        probabilities: n x k probabilities.
        truth: Position of each row's class.
    """
    if calibration == "sigmoid":
        return _fit_sigmoid(probabilities[:, 1], truth)
    if calibration == "isotonic":
        return _fit_isotonic(probabilities[:, 1], truth)
    if calibration == "temperature":
        return _fit_temperature(probabilities, truth)
    return None


def cost_optimal_threshold(probabilities: NDArray[np.float64], is_positive: NDArray[np.bool_], costs: Costs) -> float:
    """Find the threshold on the probability that minimises the total cost of n rows.

    The threshold lies half-way between the probabilities of two rows. Of several with the same cost, the one nearest to
    the optimum for perfectly calibrated probabilities is chosen: cost of a false positive / sum of both (Elkan 2001).

    Returns:
        The threshold: 0 if all rows are best predicted positive, a number above all probabilities if none is.
    """
    order = np.argsort(probabilities, kind="stable")
    ascending, positive = probabilities[order], is_positive[order]
    # Candidate i predicts the first i rows negative: their positives are false negatives, the negatives after them
    # false positives.
    false_negatives = np.r_[0, np.cumsum(positive)]
    false_positives = (~positive).sum() - np.r_[0, np.cumsum(~positive)]
    cost = costs.false_negative * false_negatives + costs.false_positive * false_positives
    between = np.flatnonzero(np.r_[True, ascending[1:] > ascending[:-1], True])  # no threshold separates equal ones
    above = (ascending[-1] + 1) / 2 if ascending[-1] < 1 else np.nextafter(1, 2)
    thresholds = np.r_[0, (ascending[1:] + ascending[:-1]) / 2, above][between]
    cheapest = np.flatnonzero(np.isclose(cost[between], cost[between].min(), rtol=1e-12))
    ideal = costs.false_positive / (costs.false_positive + costs.false_negative)
    return float(thresholds[cheapest[np.argmin(np.abs(thresholds[cheapest] - ideal))]])


def _fit_sigmoid(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Sigmoid:
    from scipy.optimize import minimize

    odds = log_odds(probabilities)
    positives = int(truth.sum())
    # Platt's targets: slightly inside 0 and 1, so that the slope stays finite for separable classes.
    targets = np.where(truth == 1, (positives + 1) / (positives + 2), 1 / (len(truth) - positives + 2))

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = line[0] * odds + line[1]
        errors = 1 / (1 + np.exp(-scores)) - targets
        value = np.mean(np.logaddexp(0, scores) - targets * scores)
        return float(value), np.array([np.mean(errors * odds), np.mean(errors)])

    optimum = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
    return Sigmoid(slope=float(optimum.x[0]), intercept=float(optimum.x[1]))


def _fit_isotonic(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Isotonic:
    from sklearn.isotonic import IsotonicRegression

    # Inside 0 and 1: a class that n rows always or never had is still possible.
    margin = 1 / (len(truth) + 2)
    fitted = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip").fit(probabilities, truth)
    return Isotonic(given=tuple(fitted.X_thresholds_.tolist()), calibrated=tuple(fitted.y_thresholds_.tolist()))


def _fit_temperature(probabilities: NDArray[np.float64], truth: NDArray[np.int64]) -> Temperature:
    from scipy.optimize import minimize_scalar

    def loss(logarithm: float) -> float:
        calibrated = Temperature(temperature=float(np.exp(logarithm))).apply(probabilities)
        return float(-np.log(np.maximum(calibrated[np.arange(len(truth)), truth], MIN_PROBABILITY)).mean())

    optimum = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return Temperature(temperature=float(np.exp(optimum.x)))
