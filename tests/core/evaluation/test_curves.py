"""Curves match their definitions and have few enough points to be drawn."""

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, confusion_matrix, roc_auc_score

from model_name.core.decisions.decision import PredictionIntervals
from model_name.core.evaluation.curves import Curves, calibration_bins, calibration_error, curves, interval_coverages
from model_name.core.schemas import Outputs

EMPTY = {"predicted", "residuals", "coverage", "roc", "precision_recall", "calibration", "confusion"}


def binary(positive, classes=(False, True)):
    positive = np.asarray(positive, dtype=float)
    return Outputs.from_scores(np.column_stack([1 - positive, positive]), classes)


@pytest.fixture
def binary_outputs():
    random = np.random.default_rng(0)
    positive = random.random(3000)
    return random.random(3000) < positive, binary(positive)


def test_downsampled_curves_keep_their_area(binary_outputs):
    targets, outputs = binary_outputs
    drawn = curves(targets, outputs)
    assert len(drawn.roc) <= 100
    assert len(drawn.precision_recall) <= 100
    positive = outputs.probabilities[:, 1]
    roc, recall = (np.array([(point.x, point.y) for point in curve]) for curve in (drawn.roc, drawn.precision_recall))
    assert auc(*roc.T) == pytest.approx(roc_auc_score(targets, positive), abs=0.005)
    assert auc(*recall.T) == pytest.approx(average_precision_score(targets, positive), abs=0.01)
    assert (tuple(roc[0]), tuple(roc[-1])) == ((0, 0), (1, 1))


def test_calibration_error_separates_true_from_distorted_probabilities(binary_outputs):
    targets, outputs = binary_outputs
    bins = calibration_bins(targets.astype(int), outputs)
    assert [each.rows for each in bins] == [300] * 10
    assert calibration_error(bins) < 0.04
    sure = binary(outputs.probabilities[:, 1] > 0.5)
    assert calibration_error(calibration_bins(targets.astype(int), sure)) == pytest.approx(0.25, abs=0.03)


def test_constant_probability_has_one_bin():
    (bin_,) = calibration_bins(np.array([0, 1, 1, 1]), binary([0.6] * 4))
    assert (bin_.predicted, bin_.observed, bin_.rows) == pytest.approx((0.6, 0.75, 4))


def test_multiclass_calibration_bins_use_the_predicted_class():
    scores = np.array([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]])
    bins = calibration_bins(np.array([0, 1]), Outputs.from_scores(scores, ("a", "b", "c")))
    assert [(each.predicted, each.observed) for each in bins] == [(0.6, 0.0), (0.8, 1.0)]
    assert calibration_error(bins) == pytest.approx((0.6 + 0.2) / 2)


def test_confusion_matrix_has_actual_rows_and_predicted_columns():
    targets = np.array(["c", "a", "a", "b", "a"], dtype=object)
    scores = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0.5]]) + 0.1
    outputs = Outputs.from_scores(scores, ("c", "a", "b"))  # in the order of the classes, not of the alphabet
    matrix = curves(targets, outputs).confusion
    assert [list(row) for row in matrix] == confusion_matrix(
        targets, outputs.prediction, labels=["c", "a", "b"]
    ).tolist()


def test_residuals_are_binned_by_time():
    rows = 4000
    random = np.random.default_rng(0)
    moments = np.datetime64("2024-01-01T00:00:00") + random.permutation(rows) * np.timedelta64(1, "h")
    actual = random.normal(0, 1, rows) + (moments > np.datetime64("2024-05-01")) * 5
    residuals = curves(actual, Outputs.from_scores(np.zeros(rows), ()), moments=moments).residuals
    assert [bin_.rows for bin_ in residuals] == [100] * 40
    assert residuals[0].x == "2024-01-01T00:00:00"
    assert [residuals[0].low, residuals[0].middle, residuals[0].high] == pytest.approx([-1.28, 0, 1.28], abs=0.5)
    assert residuals[-1].middle == pytest.approx(5, abs=0.4)


def test_residuals_without_time_are_binned_by_prediction():
    predicted = np.arange(100.0)
    residuals = curves(predicted + 1, Outputs.from_scores(predicted, ())).residuals
    assert [(bin_.x, bin_.middle, bin_.rows) for bin_ in residuals][:2] == [("0", 1.0, 10), ("10", 1.0, 10)]


def test_scatter_points_are_a_seeded_sample():
    predicted = np.arange(2000.0)
    outputs = Outputs.from_scores(predicted, ())
    points = curves(predicted * 2, outputs, seed=3).predicted
    assert len(points) == 500
    assert all(point.y == 2 * point.x for point in points)
    assert points == curves(predicted * 2, outputs, seed=3).predicted


def test_coverage_has_the_share_inside_and_the_mean_width():
    intervals = PredictionIntervals(levels=(0.5, 0.9), edges=(), halves=((1,), (3,)), rows=10)
    coverages = interval_coverages(intervals, np.zeros(4), np.array([0.0, 1.0, 2.0, 9.0]))
    assert [(coverage.level, coverage.observed, coverage.width) for coverage in coverages] == [
        (0.5, 0.5, 2.0),
        (0.9, 0.75, 6.0),
    ]


def test_nan_predictions_have_no_coverage():
    intervals = PredictionIntervals(levels=(0.5,), edges=(), halves=((1,),), rows=10)
    assert interval_coverages(intervals, np.array([0.0, np.nan]), np.zeros(2)) == ()


@pytest.mark.parametrize(
    ("targets", "outputs", "drawn"),
    [
        pytest.param(np.ones(12), Outputs.from_scores(np.ones(12), ()), {"predicted", "residuals"}, id="12 rows"),
        pytest.param(np.ones(5), Outputs.from_scores(np.full(5, np.nan), ()), set(), id="predictions of NaN"),
        pytest.param(
            np.ones(5, dtype=bool),
            binary([0.2] * 5),
            {"calibration", "confusion"},
            id="one class, constant predictions",
        ),
        pytest.param(np.ones(5, dtype=bool), binary([np.nan] * 5), set(), id="probabilities of NaN"),
        pytest.param(
            np.arange(60).astype(object),
            Outputs.from_scores(np.eye(60) + 0.1, tuple(range(60))),
            {"calibration"},
            id="too many classes for a confusion matrix",
        ),
    ],
)
def test_curves_that_do_not_apply_are_empty(targets, outputs, drawn):
    result = curves(targets, outputs)
    assert {name for name in EMPTY if getattr(result, name)} == drawn
    assert Curves.model_validate_json(result.model_dump_json()) == result
