"""What is drawn about a version: where it errs, how it trades errors, whether its probabilities can be believed."""

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
MAX_CONFUSION_CLASSES = 50  # of a confusion matrix that people can read


class Point(LenientModel):
    """One point of a curve."""

    x: float
    y: float


class ResidualQuantiles(LenientModel):
    """The residuals (actual less predicted) of some rows.

    Attributes:
        x: Where they begin: a moment in ISO 8601, or a prediction.
        low: The 10 % quantile.
        middle: The median.
        high: The 90 % quantile.
        rows: How many rows.
    """

    x: str
    low: float
    middle: float
    high: float
    rows: int


class CalibrationBin(LenientModel):
    """Rows of like probability.

    Attributes:
        predicted: The mean probability: of the positive class, or of the predicted one where there are more than two.
        observed: How often it was so.
        rows: How many rows.
    """

    predicted: float
    observed: float
    rows: int


class Coverage(LenientModel):
    """What the prediction intervals of one level hold on the held-out rows.

    Attributes:
        level: The share of rows that they promise to cover.
        observed: The share that they cover.
        width: Their mean width, in units of the target.
    """

    level: float
    observed: float
    width: float


class Curves(LenientModel):
    """Everything that is drawn; what does not fit the task is empty.

    Attributes:
        predicted: Prediction (x) and actual value (y) of sampled rows of a regression.
        residuals: Residuals of a regression over time, or over the prediction where there is no time column.
        coverage: What the prediction intervals of a regression hold.
        roc: False positive rate (x) and true positive rate (y) of a binary target.
        precision_recall: Recall (x) and precision (y) of a binary target.
        calibration: Promised and observed frequencies of classes.
        confusion: Rows of each actual class (rows) that were predicted as each class (columns), in the order of the
            classes; none where there are more than 50.
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
    """The curves of n rows; those of which a model answers NaN are left out.

    Args:
        targets: n numbers or labels.
        outputs: What the model answers.
        moments: The time of each row, if it has one.
        coverage: What the prediction intervals hold.
        seed: Of the sample of rows.
    """
    scores = outputs.prediction if outputs.probabilities is None else outputs.probabilities.sum(axis=1)
    kept = np.flatnonzero(np.isfinite(scores.astype(np.float64)))
    truth, outputs = np.asarray(targets)[kept], outputs.take(kept)
    if not len(kept):
        return Curves()
    if outputs.probabilities is None:
        places = None if moments is None else moments[kept]
        return _regression_curves(truth.astype(np.float64), outputs.prediction, places, coverage, seed)
    return _classification_curves(label_positions(truth, outputs.classes), outputs)


def interval_coverages(
    intervals: PredictionIntervals, predicted: NDArray[np.float64], actual: NDArray[np.float64]
) -> tuple[Coverage, ...]:
    """What each level of prediction intervals holds on n rows; none where a prediction is NaN."""
    if not np.isfinite(predicted).all():
        return ()
    found = []
    for level in intervals.levels:
        lower, upper = intervals.bounds(predicted, level)
        inside = (lower <= actual) & (actual <= upper)
        found.append(Coverage(level=level, observed=float(inside.mean()), width=float((upper - lower).mean())))
    return tuple(found)


def calibration_error(bins: Sequence[CalibrationBin]) -> float | None:
    """Expected calibration error: promise and frequency, how far apart (Naeini, Cooper, Hauskrecht 2015)."""
    if not bins:
        return None
    rows = sum(each.rows for each in bins)
    return sum(abs(each.predicted - each.observed) * each.rows for each in bins) / rows


def calibration_bins(truth: NDArray[np.int64], outputs: Outputs) -> tuple[CalibrationBin, ...]:
    """Ten bins of about as many rows each; equal probabilities stay together, so a constant has a single bin."""
    probabilities = np.asarray(outputs.probabilities)
    if len(outputs.classes) == 2:
        promised, came_true = probabilities[:, 1], truth == 1
    else:
        promised, came_true = probabilities.max(axis=1), truth == probabilities.argmax(axis=1)
    edges = np.unique(np.quantile(promised, np.linspace(0, 1, CALIBRATION_BINS + 1)[1:-1]))
    place = np.searchsorted(edges, promised, side="left")
    found = []
    for number in np.unique(place):
        rows = place == number
        found.append(
            CalibrationBin(
                predicted=float(promised[rows].mean()), observed=float(came_true[rows].mean()), rows=int(rows.sum())
            )
        )
    return tuple(found)


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


def _residual_quantiles(residuals: NDArray[np.float64], places: NDArray[Any]) -> tuple[ResidualQuantiles, ...]:
    order = np.argsort(places, kind="stable")
    found = []
    for rows in np.array_split(order, np.clip(len(order) // MIN_RESIDUAL_BIN_ROWS, 1, MAX_RESIDUAL_BINS)):
        low, middle, high = (float(value) for value in np.quantile(residuals[rows], [0.1, 0.5, 0.9]))
        found.append(
            ResidualQuantiles(x=_axis_label(places[rows[0]]), low=low, middle=middle, high=high, rows=len(rows))
        )
    return tuple(found)


def _axis_label(place: Any) -> str:
    if isinstance(place, np.datetime64):
        return str(np.datetime_as_string(place, unit="s"))
    return f"{place:.6g}"


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
    """Points at about equal steps along the curve, both ends among them."""
    steps = np.r_[0, np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))]
    places = np.searchsorted(steps, np.linspace(0, steps[-1], MAX_CURVE_POINTS))
    kept = np.unique(np.r_[0, places[1:-1].clip(0, len(x) - 1), len(x) - 1])
    return tuple(Point(x=float(x[place]), y=float(y[place])) for place in kept)


def _confusion(truth: NDArray[np.int64], outputs: Outputs) -> tuple[tuple[int, ...], ...]:
    size = len(outputs.classes)
    if size > MAX_CONFUSION_CLASSES:
        return ()
    cells = truth * size + label_positions(outputs.prediction, outputs.classes)
    counts = np.bincount(cells, minlength=size**2).reshape(size, size)
    return tuple(tuple(int(count) for count in row) for row in counts)
