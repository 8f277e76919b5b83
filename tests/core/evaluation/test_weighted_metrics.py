"""Weighted metrics equal scikit-learn's, and a weight counts as repeated rows."""

import numpy as np
import pytest

from model_name.core.evaluation.weighted_metrics import weighted_metric
from model_name.core.metrics import METRIC_DEFINITIONS, Metric
from model_name.core.schemas import Outputs

CASES = [(name, task) for name, definition in METRIC_DEFINITIONS.items() for task in sorted(definition.tasks)]
CLASSES = {"regression": (), "binary": ("no", "yes"), "multiclass": ("a", "b", "c")}


def make_outputs(task, rows=300, seed=0):
    """Build targets, and outputs with ties that are better than chance."""
    random = np.random.default_rng(seed)
    classes = CLASSES[task]
    if not classes:
        targets = random.normal(100, 3, rows)
        return targets, Outputs.from_scores(targets + random.normal(0, 1, rows), ())
    truth = random.integers(0, len(classes), rows)
    scores = np.round(random.random((rows, len(classes))) + np.eye(len(classes))[truth], 1) + 0.1
    targets = np.array(classes, dtype=object)[truth]
    return targets, Outputs.from_scores(scores / scores.sum(axis=1, keepdims=True), classes)


@pytest.mark.parametrize(("name", "task"), CASES)
def test_unit_weights_give_the_unweighted_metric(name, task):
    targets, outputs = make_outputs(task)
    metric = Metric(name=name)
    assert weighted_metric(metric, targets, outputs)(np.ones(300)) == pytest.approx(metric.score(targets, outputs))


@pytest.mark.parametrize(("name", "task"), CASES)
def test_weight_counts_as_repeated_rows(name, task):
    # given
    targets, outputs = make_outputs(task)
    weights = np.random.default_rng(5).integers(0, 4, 300)
    rows = np.repeat(np.arange(300), weights)
    # when
    value = weighted_metric(Metric(name=name), targets, outputs)(weights.astype(float))
    # then
    assert value == pytest.approx(Metric(name=name).score(targets[rows], outputs.take(rows)))


@pytest.mark.parametrize("name", ["rmse", "roc_auc", "log_loss"])
def test_undefined_metric_is_nan(name):
    task = "regression" if name == "rmse" else "binary"
    targets, outputs = make_outputs(task)
    nothing = Outputs.from_scores(np.full((300, max(1, len(outputs.classes))), np.nan), outputs.classes)
    assert np.isnan(weighted_metric(Metric(name=name), targets, nothing)(np.ones(300)))


def test_auc_of_a_single_class_is_nan():
    targets, outputs = make_outputs("binary")
    assert np.isnan(weighted_metric(Metric(name="roc_auc"), targets, outputs)((targets == "yes").astype(float)))


def test_metric_without_a_prepared_form_uses_scikit_learn(monkeypatch):
    targets, outputs = make_outputs("regression")
    weights = np.random.default_rng(1).integers(0, 3, 300).astype(float)
    median = METRIC_DEFINITIONS["rmse"].__class__(
        "median_absolute_error", frozenset({"regression"}), greater_is_better=False
    )
    monkeypatch.setitem(METRIC_DEFINITIONS, "median", median)
    rows = np.repeat(np.arange(300), weights.astype(int))
    expected = np.median(np.abs(targets - outputs.prediction)[rows])
    assert weighted_metric(Metric(name="median"), targets, outputs)(weights) == pytest.approx(expected, abs=0.05)
