"""Decisions on scores: calibrated probabilities, thresholds and intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.decisions.decision import Costs, Decision, Isotonic, PredictionIntervals, Sigmoid, Temperature
from model_name.core.schemas import Outputs
from model_name.errors import DataError

SCORES = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6]])
INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(1.0, 5.0), halves=((1, 2, 3), (2, 4, 6)), rows=500)
DECISIONS = [
    pytest.param(Decision(), id="nothing"),
    pytest.param(Decision(intervals=INTERVALS), id="intervals"),
    pytest.param(Decision(calibrator=Sigmoid(slope=2.0, intercept=-0.5)), id="sigmoid"),
    pytest.param(Decision(calibrator=Isotonic(given=(0.2, 0.8), calibrated=(0.1, 0.7))), id="isotonic"),
    pytest.param(Decision(calibrator=Temperature(temperature=1.7), threshold=0.2, costs=Costs()), id="temperature"),
]


def test_default_decision_keeps_the_scores():
    for scores, classes in [(np.array([[1.0], [2.0]]), ()), (SCORES, ("no", "yes"))]:
        applied, plain = Decision().apply(scores, classes), Outputs.from_scores(scores, classes)
        assert {name: values.tolist() for name, values in applied.columns.items()} == {
            name: values.tolist() for name, values in plain.columns.items()
        }


def test_interval_width_is_that_of_the_prediction_bin():
    outputs = Decision(intervals=INTERVALS).apply(np.array([[0.0], [1.0], [1.5], [9.0]]), (), 0.9)
    assert (outputs.upper - outputs.prediction).tolist() == [2, 2, 4, 6]
    assert (outputs.prediction - outputs.lower).tolist() == [2, 2, 4, 6]
    assert list(outputs.columns) == ["prediction", "lower", "upper"]


@pytest.mark.parametrize(
    ("decision", "classes", "level", "reason"),
    [
        pytest.param(Decision(intervals=INTERVALS), (), 0.5, "the levels are 0.8, 0.9", id="another level"),
        pytest.param(Decision(intervals=INTERVALS), (), float("nan"), "the levels are 0.8, 0.9", id="NaN"),
        pytest.param(Decision(), (), 0.9, "this version has no prediction intervals", id="no intervals"),
        pytest.param(Decision(), (1, 2, 3), 0.9, "this is a classification", id="classes"),
    ],
)
def test_unavailable_interval_is_refused(decision, classes, level, reason):
    with pytest.raises(DataError, match=reason):
        decision.apply(np.ones((2, max(1, len(classes)))), classes, level)


@pytest.mark.parametrize(
    ("threshold", "predicted"),
    [
        pytest.param(0.3, [False, True, True], id="on the threshold is positive"),
        pytest.param(0.31, [False, False, True], id="below it is negative"),
        pytest.param(0.0, [True, True, True], id="all"),
        pytest.param(1.0001, [False, False, False], id="none"),
    ],
)
def test_row_is_positive_from_the_threshold_on(threshold, predicted):
    outputs = Decision(threshold=threshold).apply(SCORES, (False, True))
    assert outputs.prediction.tolist() == predicted
    np.testing.assert_array_equal(outputs.probabilities, SCORES)


def test_threshold_applies_to_calibrated_probabilities():
    halved = Isotonic(given=(0.0, 1.0), calibrated=(0.0, 0.5))
    outputs = Decision(calibrator=halved, threshold=0.3).apply(SCORES, ("no", "yes"))
    np.testing.assert_allclose(outputs.probabilities[:, 1], [0.05, 0.15, 0.3])
    assert outputs.prediction.tolist() == ["no", "no", "yes"]


@pytest.mark.parametrize("decision", DECISIONS)
def test_decision_round_trips_through_json(decision):
    assert Decision.model_validate_json(decision.model_dump_json()) == decision


@pytest.mark.parametrize("decision", DECISIONS)
@pytest.mark.parametrize("classes", [(), ("no", "yes")], ids=["regression", "binary"])
def test_no_rows_have_no_predictions(decision, classes):
    assert len(decision.apply(np.empty((0, max(1, len(classes)))), classes).prediction) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.sampled_from([one.values[0] for one in DECISIONS[2:]]))
def test_calibration_is_monotone_and_sums_to_1(positive, decision):
    positive = np.sort(positive)
    calibrated = decision.apply(np.column_stack([1 - positive, positive]), ("no", "yes")).probabilities
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    assert (np.diff(calibrated[:, 1]) >= -1e-12).all()


def test_mean_cost_is_the_mean_over_rows():
    is_positive, is_predicted = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert Costs(false_positive=1, false_negative=5).mean_cost(is_positive, is_predicted) == 6 / 4


def test_recipe_holds_configured_but_not_fitted_values():
    fitted = [Decision(calibrator=Sigmoid(slope=slope, intercept=0)) for slope in (1, 2)]
    assert fitted[0].recipe == fitted[1].recipe != Decision(costs=Costs()).recipe
    assert not any(Decision(intervals=INTERVALS).recipe)
