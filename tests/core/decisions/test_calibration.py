"""Calibration of probabilities, and the cost-optimal threshold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from model_name.core.decisions.calibration import (
    METHODS_BY_TASK,
    check_calibration,
    cost_optimal_threshold,
    fit_calibrator,
    fit_decision,
)
from model_name.core.decisions.decision import Costs, log_odds
from model_name.core.evaluation.curves import calibration_bins, calibration_error
from model_name.core.schemas import Outputs
from model_name.errors import ConfigError, DataError


def overconfident(rows=20_000, seed=0, classes=2):
    """Draw probabilities that are too close to 0 and 1, and classes."""
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
def test_calibration_reduces_the_calibration_error(kind, classes):
    # given overconfident probabilities
    calibrator = fit_calibrator(kind, *overconfident(classes=classes))
    fresh, truth = overconfident(seed=1, classes=classes)
    assert error(fresh, truth) > 0.05
    # when new ones are calibrated
    calibrated = calibrator.apply(fresh)
    # then their error is small
    assert error(calibrated, truth) < 0.02
    np.testing.assert_allclose(calibrated.sum(axis=1), 1)


def test_temperature_keeps_the_most_probable_class():
    probabilities, truth = overconfident(classes=4)
    calibrator = fit_calibrator("temperature", probabilities, truth)
    assert calibrator.temperature == pytest.approx(3, abs=0.1)
    assert (calibrator.apply(probabilities).argmax(axis=1) == probabilities.argmax(axis=1)).all()


def test_sigmoid_equals_logistic_regression_on_the_log_odds():
    probabilities, truth = overconfident()
    calibrator = fit_calibrator("sigmoid", probabilities, truth)
    expected = LogisticRegression(C=1e9).fit(log_odds(probabilities[:, 1])[:, None], truth)
    assert calibrator.slope == pytest.approx(expected.coef_[0, 0], abs=2e-3)
    assert calibrator.intercept == pytest.approx(expected.intercept_[0], abs=2e-3)


def test_isotonic_is_monotone_and_inside_0_and_1():
    calibrator = fit_calibrator("isotonic", *overconfident(500))
    assert (np.diff(calibrator.given) > 0).all()
    assert (np.diff(calibrator.calibrated) >= 0).all()
    assert 0 < calibrator.calibrated[0] <= calibrator.calibrated[-1] < 1


@pytest.mark.parametrize("kind", METHODS_BY_TASK["binary"][1:])
@pytest.mark.parametrize(
    "positive",
    [pytest.param(np.full(40, 0.3), id="constant"), pytest.param(np.repeat([0.0, 1.0], 20), id="certain and correct")],
)
def test_probabilities_of_0_and_1_are_calibrated(kind, positive):
    calibrator = fit_calibrator(kind, np.column_stack([1 - positive, positive]), np.repeat([0, 1], 20))
    assert np.isfinite(calibrator.apply(np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]))).all()


PROBABILITIES = st.lists(
    st.tuples(st.sampled_from(np.linspace(0, 1, 11).tolist()), st.booleans()), min_size=1, max_size=25
)


@given(PROBABILITIES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_no_threshold_costs_less_than_the_optimal_one(rows, false_positive, false_negative):
    probabilities, positive = (np.array(part) for part in zip(*rows, strict=True))
    costs = Costs(false_positive=false_positive, false_negative=false_negative)
    optimal = cost_optimal_threshold(probabilities, positive, costs)
    mean_costs = [costs.mean_cost(positive, probabilities >= threshold) for threshold in (*probabilities, 1.1)]
    assert costs.mean_cost(positive, probabilities >= optimal) == pytest.approx(min(mean_costs))


@pytest.mark.parametrize(
    ("costs", "threshold"),
    [
        pytest.param(Costs(), 0.5, id="equal costs"),
        pytest.param(Costs(false_negative=9), 0.1, id="expensive false negatives"),
        pytest.param(Costs(false_positive=4), 0.8, id="expensive false positives"),
    ],
)
def test_threshold_of_calibrated_probabilities_is_the_theoretical_one(costs, threshold):
    random = np.random.default_rng(0)
    probabilities = random.random(400_000)
    optimal = cost_optimal_threshold(probabilities, random.random(400_000) < probabilities, costs)
    assert optimal == pytest.approx(threshold, abs=0.02)


@pytest.mark.parametrize(
    ("calibration", "task", "supported"),
    [
        pytest.param("isotonic", "multiclass", "none, temperature", id="isotonic of many classes"),
        pytest.param("sigmoid", "multiclass", "none, temperature", id="sigmoid of many classes"),
        pytest.param("temperature", "regression", "none", id="temperature of a regression"),
    ],
)
def test_unsupported_calibration_is_refused(calibration, task, supported):
    with pytest.raises(ConfigError, match=f"{calibration} does not fit a {task} target") as caught:
        check_calibration(calibration, task)
    assert caught.value.hint == f"use one of {supported}"


def test_nan_probabilities_are_refused():
    outputs = Outputs.from_scores(np.full((3, 2), np.nan), ("no", "yes"))
    with pytest.raises(DataError, match="answers NaN"):
        fit_decision(np.array(["no", "yes", "no"]), outputs, interval=None, costs=Costs(), calibration="none")


def test_threshold_is_fitted_to_calibrated_probabilities():
    probabilities, truth = overconfident()
    labels = np.array(["no", "yes"], dtype=object)[truth]
    outputs = Outputs.from_scores(probabilities, ("no", "yes"))
    decision = fit_decision(labels, outputs, interval=None, costs=Costs(false_negative=9), calibration="sigmoid")
    assert decision.threshold == pytest.approx(0.1, abs=0.03)
