"""Calibration makes probabilities mean what they say, and the threshold costs least."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from model_name.core.decisions.calibration import METHODS_BY_TASK, cost_optimal_threshold, fit_decision, fit_calibrator, check_calibration
from model_name.core.decisions.decision import Costs, log_odds
from model_name.core.evaluation.curves import calibration_bins, calibration_error
from model_name.core.schemas import Outputs
from model_name.errors import ConfigError, DataError


def overconfident(rows=20_000, seed=0, classes=2):
    """Probabilities that are too near to 0 and 1, and what came true."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1, (rows, classes))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = (random.random(rows)[:, None] > shares.cumsum(axis=1)).sum(axis=1)
    sharp = shares**3
    return sharp / sharp.sum(axis=1, keepdims=True), truth


def error(probabilities, truth):
    classes = tuple(range(probabilities.shape[1]))
    return calibration_error(calibration_bins(truth, Outputs.from_scores(probabilities, classes)))


@pytest.mark.parametrize(("kind", "classes"), [("sigmoid", 2), ("isotonic", 2), ("temperature", 2), ("temperature", 4)])
def test_a_calibration_brings_promise_and_frequency_together(kind, classes):
    # given
    calibrator = fit_calibrator(kind, *overconfident(classes=classes))
    fresh, truth = overconfident(seed=1, classes=classes)
    assert error(fresh, truth) > 0.05
    # when
    calibrated = calibrator.apply(fresh)
    # then
    assert error(calibrated, truth) < 0.02
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_a_temperature_keeps_the_most_probable_class():
    probabilities, truth = overconfident(classes=4)
    calibrator = fit_calibrator("temperature", probabilities, truth)
    assert calibrator.temperature == pytest.approx(3, abs=0.1)
    assert (calibrator.apply(probabilities).argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_a_sigmoid_is_the_logistic_regression_on_the_log_odds():
    probabilities, truth = overconfident()
    found = fit_calibrator("sigmoid", probabilities, truth)
    expected = LogisticRegression(C=1e9).fit(log_odds(probabilities[:, 1])[:, None], truth)
    assert found.slope == pytest.approx(expected.coef_[0, 0], abs=2e-3)
    assert found.intercept == pytest.approx(expected.intercept_[0], abs=2e-3)


def test_an_isotonic_calibration_rises_and_is_never_certain():
    found = fit_calibrator("isotonic", *overconfident(500))
    assert (np.diff(found.given) > 0).all()
    assert (np.diff(found.calibrated) >= 0).all()
    assert 0 < found.calibrated[0] <= found.calibrated[-1] < 1


@pytest.mark.parametrize("kind", METHODS_BY_TASK["binary"][1:])
@pytest.mark.parametrize(
    "positive",
    [pytest.param(np.full(40, 0.3), id="constant"), pytest.param(np.repeat([0.0, 1.0], 20), id="certain and right")],
)
def test_probabilities_at_the_edge_can_be_calibrated(kind, positive):
    calibrator = fit_calibrator(kind, np.column_stack([1 - positive, positive]), np.repeat([0, 1], 20))
    assert np.isfinite(calibrator.apply(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))).all()


SHARES = st.lists(st.tuples(st.sampled_from(np.linspace(0, 1, 11).tolist()), st.booleans()), min_size=1, max_size=25)


@given(SHARES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_no_threshold_costs_less_than_the_one_that_is_found(rows, false_positive, false_negative):
    probabilities, positive = (np.array(part) for part in zip(*rows, strict=True))
    costs = Costs(false_positive=false_positive, false_negative=false_negative)
    found = cost_optimal_threshold(probabilities, positive, costs)
    tried = [costs.mean_cost(positive, probabilities >= place) for place in (*probabilities, 1.1)]
    assert costs.mean_cost(positive, probabilities >= found) == pytest.approx(min(tried))


@pytest.mark.parametrize(
    ("costs", "threshold"),
    [
        pytest.param(Costs(), 0.5, id="equal costs"),
        pytest.param(Costs(false_negative=9), 0.1, id="misses are dear"),
        pytest.param(Costs(false_positive=4), 0.8, id="alarms are dear"),
    ],
)
def test_the_threshold_of_true_probabilities_is_the_one_of_the_theory(costs, threshold):
    random = np.random.default_rng(0)
    probabilities = random.random(400_000)
    found = cost_optimal_threshold(probabilities, random.random(400_000) < probabilities, costs)
    assert found == pytest.approx(threshold, abs=0.02)


@pytest.mark.parametrize(
    ("calibration", "task", "fitting"),
    [
        pytest.param("isotonic", "multiclass", "none, temperature", id="isotonic of many classes"),
        pytest.param("sigmoid", "multiclass", "none, temperature", id="sigmoid of many classes"),
        pytest.param("temperature", "regression", "none", id="a regression"),
    ],
)
def test_a_calibration_that_does_not_fit_the_task_is_refused(calibration, task, fitting):
    with pytest.raises(ConfigError, match=f"{calibration} does not fit a {task} target") as caught:
        check_calibration(calibration, task)
    assert caught.value.hint == f"use one of {fitting}"


def test_a_model_that_answers_nan_is_not_decided_on():
    outputs = Outputs.from_scores(np.full((3, 2), np.nan), ("no", "yes"))
    with pytest.raises(DataError, match="answers NaN"):
        fit_decision(np.array(["no", "yes", "no"]), outputs, interval=None, costs=Costs(), calibration="none")


def test_the_threshold_is_chosen_on_calibrated_probabilities():
    probabilities, truth = overconfident()
    labels = np.array(["no", "yes"], dtype=object)[truth]
    outputs = Outputs.from_scores(probabilities, ("no", "yes"))
    found = fit_decision(labels, outputs, interval=None, costs=Costs(false_negative=9), calibration="sigmoid")
    assert found.threshold == pytest.approx(0.1, abs=0.03)
