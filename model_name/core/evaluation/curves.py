"""Data of the report's figures: residuals, ROC and precision-recall curves, calibration, coverage, confusion matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.decisions.decision import PredictionIntervals
from model_name.core.metrics import label_positions
from model_name.core.schemas import Outputs
from model_name.core.schemas.strict_models import LaxTuple, LenientModel

MAX_SCATTER_POINTS = 500
MAX_RESIDUAL_BINS = 40
MIN_RESIDUAL_BIN_ROWS = 10
MAX_CURVE_POINTS = 100
CALIBRATION_BINS = 10
MAX_CONFUSION_CLASSES = 50  # a larger confusion matrix is not legible


class Point(LenientModel):
    """Point of a curve."""

    x: float
    y: float


class ResidualQuantiles(LenientModel):
    """Quantiles of the residuals (actual - predicted) of consecutive rows.

    Attributes:
        x: First position of the rows on the axis: a moment in ISO 8601, or a prediction.
        low: 10 % quantile.
        middle: Median.
        high: 90 % quantile.
        rows: Number of rows.
    """

    x: str
    low: float
    middle: float
    high: float
    rows: int


class CalibrationBin(LenientModel):
    """Bin of rows with similar probabilities.

    Attributes:
        predicted: Mean probability of the positive class, or of the predicted one where there are more than two.
        observed: Observed frequency of that class.
        rows: Number of rows.
    """

    predicted: float
    observed: float
    rows: int


class Coverage(LenientModel):
    """Coverage of the prediction intervals of one level on the held-out rows.

    Attributes:
        level: Nominal coverage, a share of the rows.
        observed: Observed coverage.
        width: Mean width of the intervals, in units of the target.
    """

    level: float
    observed: float
    width: float


class Curves(LenientModel):
    """Data of all figures; those that do not apply to the task are empty.

    Attributes:
        predicted: Prediction (x) and actual value (y) of sampled rows of a regression.
        residuals: Residuals of a regression over time, or over the prediction if there is no time column.
        coverage: Coverage of the prediction intervals of a regression.
        roc: False positive rate (x) and true positive rate (y) of a binary target.
        precision_recall: Recall (x) and precision (y) of a binary target.
        calibration: Predicted and observed frequencies of classes.
        confusion: Counts of each actual class (rows) by predicted class (columns), in the order of the classes; empty
            for more than 50 classes.
    """

    predicted: LaxTuple[Point] = ()
    residuals: LaxTuple[ResidualQuantiles] = ()
    coverage: LaxTuple[Coverage] = ()
    roc: LaxTuple[Point] = ()
    precision_recall: LaxTuple[Point] = ()
    calibration: LaxTuple[CalibrationBin] = ()
    confusion: LaxTuple[LaxTuple[int]] = ()


def curves(
    targets: Sequence[Any] | np.ndarray,
    outputs: Outputs,
    *,
    moments: NDArray[np.datetime64] | None = None,
    coverage: tuple[Coverage, ...] = (),
    seed: int = 42,
) -> Curves:
    """Compute the curves of n rows, without those with NaN predictions.

    Args:
        targets: Actual numbers or labels, n.
        outputs: Outputs of the model for the rows.
        moments: Time of each row, if the table has a time column.
        coverage: Coverage of the prediction intervals.
        seed: Seed of the sample of rows.
    """
    scores = outputs.prediction if outputs.probabilities is None else outputs.probabilities.sum(axis=1)
    kept = np.flatnonzero(np.isfinite(scores.astype(np.float64)))
    truth, outputs = np.asarray(targets)[kept], outputs.take(kept)
    if not len(kept):
        return Curves()
    if outputs.probabilities is None:
        positions = None if moments is None else moments[kept]
        return _regression_curves(truth.astype(np.float64), outputs.prediction, positions, coverage, seed)
    return _classification_curves(label_positions(truth, outputs.classes), outputs)


def interval_coverages(
    intervals: PredictionIntervals, predicted: NDArray[np.float64], actual: NDArray[np.float64]
) -> tuple[Coverage, ...]:
    """Compute the coverage of each level of prediction intervals on n rows; empty if a prediction is NaN."""
    if not np.isfinite(predicted).all():
        return ()
    coverage = []
    for level in intervals.levels:
        lower, upper = intervals.bounds(predicted, level)
        inside = (lower <= actual) & (actual <= upper)
        coverage.append(Coverage(level=level, observed=float(inside.mean()), width=float((upper - lower).mean())))
    return tuple(coverage)


def calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    """Compute the expected calibration error (Naeini, Cooper, Hauskrecht 2015); None without bins."""
    if not bins:
        return None
    rows = sum(each.rows for each in bins)
    return sum(abs(each.predicted - each.observed) * each.rows for each in bins) / rows


def calibration_bins(truth: NDArray[np.int64], outputs: Outputs) -> tuple[CalibrationBin, ...]:
    """Compute ten bins of about equally many rows; equal probabilities share a bin, so a constant has one."""
    probabilities = np.asarray(outputs.probabilities)
    if len(outputs.classes) == 2:
        predicted, is_correct = probabilities[:, 1], truth == 1
    else:
        predicted, is_correct = probabilities.max(axis=1), truth == probabilities.argmax(axis=1)
    edges = np.unique(np.quantile(predicted, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    bin_of = np.searchsorted(edges, predicted, side="left")
    bins = []
    for number in np.unique(bin_of):
        rows = bin_of == number
        bins.append(
            CalibrationBin(
                predicted=float(predicted[rows].mean()), observed=float(is_correct[rows].mean()), rows=int(rows.sum())
            )
        )
    return tuple(bins)


def _regression_curves(
    truth: NDArray[np.float64],
    predicted: NDArray[np.float64],
    moments: NDArray[np.datetime64] | None,
    coverage: tuple[Coverage, ...],
    seed: int,
) -> Curves:
    rows = np.arange(len(truth))
    if len(rows) > MAX_SCATTER_POINTS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MAX_SCATTER_POINTS, replace=False))
    return Curves(
        predicted=tuple(Point(x=float(predicted[row]), y=float(truth[row])) for row in rows),
        residuals=_residual_quantiles(truth - predicted, predicted if moments is None else moments),
        coverage=coverage,
    )


def _residual_quantiles(residuals: NDArray[np.float64], positions: NDArray[Any]) -> tuple[ResidualQuantiles, ...]:
    order = np.argsort(positions, kind="stable")
    quantiles = []
    for rows in np.array_split(order, np.clip(len(order) // MIN_RESIDUAL_BIN_ROWS, 1, MAX_RESIDUAL_BINS)):
        low, middle, high = (float(value) for value in np.quantile(residuals[rows], [0.1, 0.5, 0.9]))
        quantiles.append(
            ResidualQuantiles(x=_axis_label(positions[rows[0]]), low=low, middle=middle, high=high, rows=len(rows))
        )
    return tuple(quantiles)


def _axis_label(position: Any) -> str:
    if isinstance(position, np.datetime64):
        return str(np.datetime_as_string(position, unit="s"))
    return f"{position:.6g}"


def _classification_curves(truth: NDArray[np.int64], outputs: Outputs) -> Curves:
    is_binary, has_both = len(outputs.classes) == 2, len(np.unique(truth)) == 2
    positive = np.asarray(outputs.probabilities)[:, 1]
    return Curves(
        roc=_roc(truth, positive) if is_binary and has_both else (),
        precision_recall=_precision_recall(truth, positive) if is_binary and has_both else (),
        calibration=calibration_bins(truth, outputs),
        confusion=_confusion(truth, outputs),
    )


def _roc(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[Point, ...]:
    from sklearn.metrics import roc_curve

    wrong, right, _ = roc_curve(truth, scores)
    return _downsample(wrong, right)


def _precision_recall(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> tuple[Point, ...]:
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    return _downsample(recall[::-1], precision[::-1])


def _downsample(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Point, ...]:
    """Reduce a curve to points at about equal distances along it, both ends included."""
    steps = np.r_[0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    positions = np.searchsorted(steps, np.linspace(0, steps[-1], MAX_CURVE_POINTS))
    kept = np.unique(np.r_[0, positions[1:-1].clip(0, len(x) - 1), len(x) - 1])
    return tuple(Point(x=float(x[index]), y=float(y[index])) for index in kept)


def _confusion(truth: NDArray[np.int64], outputs: Outputs) -> tuple[tuple[int, ...], ...]:
    size = len(outputs.classes)
    if size > MAX_CONFUSION_CLASSES:
        return ()
    cells = truth * size + label_positions(outputs.prediction, outputs.classes)
    counts = np.bincount(cells, minlength=size**2).reshape(size, size)
    return tuple(tuple(int(count) for count in row) for row in counts)
