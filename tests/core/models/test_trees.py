import threading
import time

import numpy as np
import onnx
import onnxruntime as ort
import pandas as pd
import pytest
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.models import BoostedTrees, ConstantModel, RandomForest
from model_name.core.models.trees import select_output


@pytest.fixture
def checked(make_schema, make_table, task):
    return dataframes.check_frame(make_table(task), make_schema(task)).frame


@pytest.mark.parametrize("kind", ["BoostedTrees", "RandomForest"])
def test_trees_beat_a_constant(fitted, kind, task, make_table):
    # given rows that were not trained on
    rows = make_table(task, seed=3)
    if task == "regression":
        errors = [
            np.abs(fitted(name, task).predict(rows)["prediction"] - rows["outcome"]).mean()
            for name in (kind, "ConstantModel")
        ]
        assert errors[0] < 0.6 * errors[1]
        return
    hits = [
        (fitted(name, task).predict(rows)["prediction"] == rows["outcome"]).mean() for name in (kind, "ConstantModel")
    ]
    assert hits[0] > hits[1] + 0.2


def test_constant_predicts_the_mean_or_the_class_frequencies(fitted, task, checked):
    predictions = fitted("ConstantModel", task).predict(checked.head(2))
    if task == "regression":
        np.testing.assert_allclose(predictions["prediction"], checked["outcome"].mean())
        return
    shares = checked["outcome"].value_counts(normalize=True)
    for label in shares.index:
        name = f"probability_{str(label).lower()}"
        np.testing.assert_allclose(predictions[name], shares[label])


@pytest.mark.parametrize("kind", ["BoostedTrees", "RandomForest"])
def test_unseen_categories_are_predicted_like_missing_values(fitted, kind, task, checked):
    rows = checked.head(30)
    unseen, missing = (fitted(kind, task).predict(rows.assign(mark=value)) for value in ("never seen", None))
    np.testing.assert_array_equal(unseen.to_numpy(), missing.to_numpy())


def test_forest_imputes_medians_and_a_separate_code_for_missing_categories(fitted, make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    pipeline = fitted("RandomForest", "regression").get_internal_model()
    filled = pipeline["imputer"].transform(
        np.full((1, len(pipeline["imputer"].statistics_)), np.nan, dtype=np.float32)
    )[0]
    np.testing.assert_allclose(filled[1], np.median(table["gap"].dropna()), rtol=1e-5)
    assert filled[[2, 3]].tolist() == [3.0, 3.0]  # three categories have the codes 0 to 2


def test_fit_accepts_columns_without_values(task, make_schema, make_table):
    table = dataframes.check_frame(make_table(task).assign(gap=None, mark=None, maybe=None), make_schema(task)).frame
    for model in (BoostedTrees(max_iter=3), RandomForest(n_estimators=3, n_jobs=1), ConstantModel()):
        predictions = model.fit(make_schema(task), table).predict(table.head(5))
        assert predictions["prediction"].notna().all()


def test_forest_depends_on_the_seed(make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    first, second = (
        RandomForest(n_estimators=3, n_jobs=1, random_state=seed).fit(make_schema("regression"), table).predict(table)
        for seed in (1, 2)
    )
    assert not first.equals(second)


@pytest.mark.parametrize("kind", [BoostedTrees, RandomForest])
def test_balanced_class_weights_predict_the_rare_class_more_often(make_schema, make_table, kind):
    # given a rare class that is hard to separate from the other
    table = dataframes.check_frame(make_table("binary", rows=600), make_schema("binary")).frame
    random = np.random.default_rng(0)
    table["outcome"] = (table["size"] > 40) & (random.random(len(table)) < 0.4)
    size = {"max_iter": 10} if kind is BoostedTrees else {"n_estimators": 10, "n_jobs": 1}
    # when each class has the same weight, or each row
    plain, balanced = (
        kind(**size, class_weight=weight).fit(make_schema("binary"), table).predict(table)
        for weight in ("none", "balanced")
    )
    # then the rare one is predicted more often, with higher probabilities
    assert balanced["prediction"].sum() > plain["prediction"].sum()
    assert balanced["probability_true"].mean() > 2 * plain["probability_true"].mean()


def test_class_weight_has_no_effect_on_a_regression(make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    plain, balanced = (
        BoostedTrees(max_iter=3, class_weight=weight).fit(make_schema("regression"), table).predict(table)
        for weight in ("none", "balanced")
    )
    assert plain.equals(balanced)


def test_randomized_forest_has_extra_trees(make_schema, checked, task):
    names = [
        type(
            RandomForest(n_estimators=3, n_jobs=1, randomized=randomized)
            .fit(make_schema(task), checked)
            .get_internal_model()["forest"]
        ).__name__
        for randomized in (False, True)
    ]
    ending = "Regressor" if task == "regression" else "Classifier"
    assert names == [f"RandomForest{ending}", f"ExtraTrees{ending}"]


@pytest.mark.parametrize("kind", ["BoostedTrees", "RandomForest"])
@pytest.mark.parametrize(("share", "left"), [(0.5, 4), (0.25, 6), (0.99, 1), (0.01, 8)])
def test_pruning_removes_the_last_trees_of_a_copy(fitted, task, checked, kind, share, left):
    model = fitted(kind, task)
    before = model.predict(checked)
    # when a share of its eight trees is removed
    smaller = model.prune(share)
    # then the other trees predict, in the graph as well
    estimator = smaller.get_internal_model()
    assert len(estimator._predictors if kind == "BoostedTrees" else estimator["forest"].estimators_) == left
    session = ort.InferenceSession(smaller.to_onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    (served,) = session.run(["scores"], {"features": smaller.matrix(checked)})
    expected = smaller.scores(checked)
    np.testing.assert_allclose(served.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)
    assert smaller.explain(checked.head(5)).additivity_error < 1e-4
    assert (left == 8) == np.array_equal(expected, model.scores(checked))
    # and the original model is unchanged
    pd.testing.assert_frame_equal(model.predict(checked), before)


def test_pruned_boosted_trees_equal_a_shorter_fit(make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    long, short = (BoostedTrees(max_iter=trees).fit(make_schema("regression"), table) for trees in (10, 4))
    np.testing.assert_array_equal(long.prune(0.6).scores(table), short.scores(table))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 2.0])
def test_pruned_share_has_bounds(fitted, share):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        fitted("BoostedTrees", "regression").prune(share)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (BoostedTrees, {"learning_rate": 0}),
        (BoostedTrees, {"max_leaf_nodes": 1}),
        (BoostedTrees, {"max_features": 1.5}),
        (RandomForest, {"n_estimators": 0}),
        (RandomForest, {"max_features": 0}),
        (RandomForest, {"max_depth": 0}),
    ],
)
def test_hyperparameters_have_bounds(kind, wrong):
    with pytest.raises(ValidationError, match=r"greater than|less than or equal"):
        kind(**wrong)


def test_select_output_leaves_one_output(fitted):
    graph = fitted("BoostedTrees", "multiclass").to_onnx()
    onnx.checker.check_model(graph)
    assert [output.name for output in graph.graph.output] == ["scores"]
    with pytest.raises(StopIteration):
        select_output(graph, "nothing of this name")


def test_other_threads_run_while_a_forest_is_explained(make_schema, make_table):
    # given a forest that takes long to explain
    table = dataframes.check_frame(make_table("regression", rows=400), make_schema("regression")).frame
    model = RandomForest(n_estimators=60, n_jobs=1).fit(make_schema("regression"), table)
    explain, matrix = model.explainer(), np.tile(model.matrix(table), (5, 1))
    # when it is explained while another thread records the time
    timestamps, done = [], threading.Event()

    def record_times():
        while not done.wait(0.002):
            timestamps.append(time.perf_counter())

    thread = threading.Thread(target=record_times)
    thread.start()
    started = time.perf_counter()
    explain(matrix)
    took = time.perf_counter() - started
    done.set()
    thread.join()
    # then that thread was never blocked for half of the time, even on a busy machine
    assert np.diff(timestamps).max() < took / 2
