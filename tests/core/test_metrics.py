"""What a prediction is worth."""

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
    # 2 of 3 `yes` are found, 2 of 5 `no` are taken for one.
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
def test_a_metric_is_what_a_hand_computes(name, task):
    # when
    value = Metric(name=name).score(TARGETS[task], OUTPUTS[task])
    # then
    assert value == pytest.approx(BY_HAND[name, task])


def test_the_table_by_hand_leaves_no_metric_out():
    assert set(BY_HAND) == {(name, task) for name, definition in METRIC_DEFINITIONS.items() for task in definition.tasks}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", METRIC_DEFINITIONS)
def test_a_metric_is_required_to_fit_its_task(name, task):
    # given
    metric = Metric(name=name)
    # then
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
        pytest.param("rmse", 3.0, math.nan, False, id="NaN where small is good"),
        pytest.param("roc_auc", 0.8, math.nan, False, id="NaN where large is good"),
        pytest.param("rmse", None, 1e9, True, id="no threshold: reported only"),
    ],
)
def test_a_threshold_is_a_gate(name, threshold, value, passes):
    assert Metric(name=name, threshold=threshold).passes(value) is passes


@settings(deadline=None)
@given(
    name=st.sampled_from(list(METRIC_DEFINITIONS)),
    threshold=st.floats(-10, 10),
    value=st.floats(-10, 10),
    other=st.floats(-10, 10),
)
def test_what_beats_a_passing_value_passes(name, threshold, value, other):
    # given
    metric = Metric(name=name, threshold=threshold)
    # then
    assert not (metric.is_better(value, other) and metric.is_better(other, value))
    if metric.passes(value) and metric.is_better(other, value):
        assert metric.passes(other)


@pytest.mark.parametrize("name", METRIC_DEFINITIONS)
def test_nan_beats_nothing(name):
    assert not Metric(name=name).is_better(math.nan, 0.0)


def test_an_unknown_metric_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match=r"rsme is not a metric; there are rmse, mse.*log_loss"):
        Metric(name="rsme")


def test_an_unknown_key_is_answered_with_the_nearest():
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
        pytest.param("f1", [False, False], binary(0.2, 0.3), id="F1 without positives, found or there"),
        pytest.param("r2", [1.0], Outputs.from_scores(np.array([1.0]), ()), id="R2 of one row"),
        pytest.param("roc_auc_ovr", [1, 2, 2], OUTPUTS["multiclass"], id="one-vs-rest AUC where a class is absent"),
        pytest.param("rmse", [1.0], Outputs.from_scores(np.array([math.nan]), ()), id="a prediction of NaN"),
        pytest.param("accuracy", [False, True], binary(math.nan, 0.7), id="a label from probabilities of NaN"),
        pytest.param("log_loss", [False, True], binary(math.nan, 0.7), id="probabilities of NaN"),
    ],
)
def test_what_is_not_defined_is_nan(name, targets, outputs):
    # when
    value = Metric(name=name).score(targets, outputs)
    # then
    assert math.isnan(value)


@pytest.mark.parametrize(
    ("name", "targets", "outputs", "value"),
    [
        pytest.param("precision", [False, True], binary(0.1, 0.2), 0.0, id="precision where nothing is found"),
        pytest.param("recall", [False, True], binary(0.1, 0.2), 0.0, id="recall where nothing is found"),
        pytest.param("f1", [False, True], binary(0.1, 0.2), 0.0, id="F1 where nothing is found"),
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
def test_what_is_defined_at_the_edge_is_a_number(name, targets, outputs, value):
    assert Metric(name=name).score(targets, outputs) == pytest.approx(value)


def test_labels_are_compared_in_the_order_of_the_schema():
    # given: the positive class is the second of the schema, not of the alphabet
    outputs = Outputs.from_scores(np.array([[0.1, 0.9], [0.8, 0.2]]), ("yes", "no"))
    # then
    assert Metric(name="roc_auc").score(["no", "yes"], outputs) == 1.0
    assert Metric(name="recall").score(["no", "yes"], outputs) == 1.0


@pytest.mark.parametrize("task", TASKS)
def test_targets_and_outputs_of_different_length_are_no_nan(task):
    name = DEFAULT_METRICS[task][0]
    with pytest.raises(ValueError, match="cannot be compared"):
        Metric(name=name).score(TARGETS[task][:-1], OUTPUTS[task])


@pytest.mark.parametrize("task", TASKS)
def test_the_defaults_of_a_task_fit_it(task):
    # given
    metrics = default_metrics(task)
    # when
    scores = score_all(metrics, TARGETS[task], OUTPUTS[task])
    # then
    for metric in metrics:
        metric.check_task(task)
    assert list(scores) == list(DEFAULT_METRICS[task])
    assert all(math.isfinite(value) for value in scores.values())
