"""Metrics and their thresholds."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core.metrics import DEFAULT_METRICS, METRIC_DEFINITIONS, Metric, default_metrics, score_all
from model_name.core.schemas import Outputs
from model_name.errors import ConfigError

TASKS = ("regression", "binary", "multiclass")

TARGETS = {
    "regression": [1.0, 2.0, 4.0],
    "binary": ["no"] * 5 + ["yes"] * 3,
    "multiclass": [1, 2, 3],
}
OUTPUTS = {
    "regression": Outputs.from_scores(np.array([1.0, 3.0, 2.0]), ()),
    # 2 of 3 `yes` are predicted `yes`, and 2 of 5 `no`.
    "binary": Outputs.from_scores(
        np.array([[1 - p, p] for p in (0.1, 0.2, 0.3, 0.55, 0.6, 0.7, 0.4, 0.8)]), ("no", "yes")
    ),
    "multiclass": Outputs.from_scores(np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.3, 0.4, 0.3]]), (1, 2, 3)),
}
BY_HAND = {
    ("rmse", "regression"): math.sqrt(5 / 3),
    ("mse", "regression"): 5 / 3,
    ("mae", "regression"): 1.0,
    ("r2", "regression"): -1 / 14,
    ("accuracy", "binary"): 5 / 8,
    ("accuracy", "multiclass"): 2 / 3,
    ("balanced_accuracy", "binary"): (3 / 5 + 2 / 3) / 2,
    ("balanced_accuracy", "multiclass"): 2 / 3,
    ("f1", "binary"): 4 / 7,
    ("precision", "binary"): 1 / 2,
    ("recall", "binary"): 2 / 3,
    ("f1_macro", "binary"): (4 / 7 + 2 / 3) / 2,
    ("f1_macro", "multiclass"): (1 + 2 / 3 + 0) / 3,
    ("roc_auc", "binary"): 13 / 15,
    ("average_precision", "binary"): (1 + 1 + 3 / 5) / 3,
    ("brier", "binary"): 1.2925 / 8,
    ("log_loss", "binary"): -sum(map(math.log, (0.9, 0.8, 0.7, 0.45, 0.4, 0.7, 0.4, 0.8))) / 8,
    ("log_loss", "multiclass"): -sum(map(math.log, (0.7, 0.5, 0.3))) / 3,
    ("roc_auc_ovr", "multiclass"): (1 + 1 + 0.75) / 3,
}


def binary(*probabilities: float) -> Outputs:
    return Outputs.from_scores(np.array([[1 - p, p] for p in probabilities]), (False, True))


@pytest.mark.parametrize(("name", "task"), BY_HAND, ids=lambda part: part)
def test_metrics_computed_by_hand(name, task):
    value = Metric(name=name).score(TARGETS[task], OUTPUTS[task])
    assert value == pytest.approx(BY_HAND[name, task])


def test_every_metric_is_computed_by_hand():
    assert set(BY_HAND) == {
        (name, task) for name, definition in METRIC_DEFINITIONS.items() for task in definition.tasks
    }


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METRIC_DEFINITIONS)
def test_unsupported_task_is_refused(name, task):
    metric = Metric(name=name)
    if task in METRIC_DEFINITIONS[name].tasks:
        metric.check_task(task)
        return
    with pytest.raises(ConfigError, match=f"{name} does not fit a {task} target") as caught:
        metric.check_task(task)
    assert all(
        task in METRIC_DEFINITIONS[better].tasks for better in caught.value.hint.removeprefix("use one of ").split(", ")
    )


@pytest.mark.parametrize(
    ("name", "threshold", "value", "passes"),
    [
        pytest.param("rmse", 3.0, 2.9, True, id="an error below its threshold"),
        pytest.param("rmse", 3.0, 3.0, True, id="an error on its threshold"),
        pytest.param("rmse", 3.0, 3.1, False, id="an error above its threshold"),
        pytest.param("roc_auc", 0.8, 0.81, True, id="a share above its threshold"),
        pytest.param("roc_auc", 0.8, 0.8, True, id="a share on its threshold"),
        pytest.param("roc_auc", 0.8, 0.79, False, id="a share below its threshold"),
        pytest.param("rmse", 3.0, math.nan, False, id="NaN of an error"),
        pytest.param("roc_auc", 0.8, math.nan, False, id="NaN of a score"),
        pytest.param("rmse", None, 1e9, True, id="no threshold: reported only"),
    ],
)
def test_threshold_decides_whether_a_value_passes(name, threshold, value, passes):
    assert Metric(name=name, threshold=threshold).passes(value) is passes


@settings(deadline=None)
@given(
    name=st.sampled_from(list(METRIC_DEFINITIONS)),
    threshold=st.floats(-10, 10),
    value=st.floats(-10, 10),
    other=st.floats(-10, 10),
)
def test_value_better_than_a_passing_one_passes(name, threshold, value, other):
    metric = Metric(name=name, threshold=threshold)
    assert not (metric.is_better(value, other) and metric.is_better(other, value))
    if metric.passes(value) and metric.is_better(other, value):
        assert metric.passes(other)


@pytest.mark.parametrize("name", METRIC_DEFINITIONS)
def test_nan_is_never_better(name):
    assert not Metric(name=name).is_better(math.nan, 0.0)


def test_error_lists_the_known_metrics():
    with pytest.raises(ValidationError, match=r"rsme is not a metric; there are rmse, mse.*log_loss"):
        Metric(name="rsme")


def test_error_suggests_the_nearest_key():
    with pytest.raises(ValidationError, match="did you mean threshold"):
        Metric.model_validate({"name": "rmse", "treshold": 3.0})


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("name", "targets", "outputs"),
    [
        pytest.param("roc_auc", [True, True], binary(0.2, 0.7), id="AUC of positives only"),
        pytest.param("roc_auc", [False, False], binary(0.2, 0.7), id="AUC of negatives only"),
        pytest.param("average_precision", [False, False], binary(0.2, 0.7), id="average precision without positives"),
        pytest.param("recall", [False, False], binary(0.2, 0.7), id="recall without positives"),
        pytest.param("f1", [False, False], binary(0.2, 0.3), id="F1 without positives, predicted or actual"),
        pytest.param("r2", [1.0], Outputs.from_scores(np.array([1.0]), ()), id="R2 of one row"),
        pytest.param("roc_auc_ovr", [1, 2, 2], OUTPUTS["multiclass"], id="one-vs-rest AUC where a class is absent"),
        pytest.param("rmse", [1.0], Outputs.from_scores(np.array([math.nan]), ()), id="a prediction of NaN"),
        pytest.param("accuracy", [False, True], binary(math.nan, 0.7), id="a label from probabilities of NaN"),
        pytest.param("log_loss", [False, True], binary(math.nan, 0.7), id="probabilities of NaN"),
    ],
)
def test_undefined_metric_is_nan(name, targets, outputs):
    value = Metric(name=name).score(targets, outputs)
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("name", "targets", "outputs", "value"),
    [
        pytest.param("precision", [False, True], binary(0.1, 0.2), 0.0, id="precision without predicted positives"),
        pytest.param("recall", [False, True], binary(0.1, 0.2), 0.0, id="recall without predicted positives"),
        pytest.param("f1", [False, True], binary(0.1, 0.2), 0.0, id="F1 without predicted positives"),
        pytest.param("brier", [True, True], binary(1.0, 0.5), 0.125, id="Brier of one class"),
        pytest.param("log_loss", [True, True], binary(0.5, 0.5), math.log(2), id="log loss of one class"),
        pytest.param(
            "log_loss",
            [1, 1, 1],
            OUTPUTS["multiclass"],
            -math.log(0.7 * 0.2 * 0.3) / 3,
            id="log loss of one class of three",
        ),
    ],
)
def test_edge_cases_with_a_defined_value(name, targets, outputs, value):
    assert Metric(name=name).score(targets, outputs) == pytest.approx(value)


def test_positive_class_is_the_second_of_the_schema():
    # given: the positive class is the second of the schema, not in alphabetical order
    outputs = Outputs.from_scores(np.array([[0.1, 0.9], [0.8, 0.2]]), ("yes", "no"))
    assert Metric(name="roc_auc").score(["no", "yes"], outputs) == 1.0
    assert Metric(name="recall").score(["no", "yes"], outputs) == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_different_lengths_are_refused(task):
    name = DEFAULT_METRICS[task][0]
    with pytest.raises(ValueError, match="cannot be compared"):
        Metric(name=name).score(TARGETS[task][:-1], OUTPUTS[task])


@pytest.mark.parametrize("task", TASKS)
def test_default_metrics_support_their_task(task):
    metrics = default_metrics(task)
    scores = score_all(metrics, TARGETS[task], OUTPUTS[task])
    for metric in metrics:
        metric.check_task(task)
    assert list(scores) == list(DEFAULT_METRICS[task])
    assert all(math.isfinite(value) for value in scores.values())
