import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from model_name.core import frames
from model_name.core.models import BoostedTrees, ConstantModel, RandomForest
from model_name.core.models.trees import keep_output


@pytest.fixture
def checked(make_schema, make_table, task):
    return frames.check(make_table(task), make_schema(task)).frame


@pytest.mark.parametrize("kind", ["BoostedTrees", "RandomForest"])
def test_trees_learn_what_a_constant_does_not(fitted, kind, task, make_table):
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


def test_a_constant_answers_the_mean_or_the_shares(fitted, task, checked):
    answer = fitted("ConstantModel", task).predict(checked.head(2))
    if task == "regression":
        np.testing.assert_allclose(answer["prediction"], checked["outcome"].mean())
        return
    shares = checked["outcome"].value_counts(normalize=True)
    for label in shares.index:
        name = f"probability_{str(label).lower()}"
        np.testing.assert_allclose(answer[name], shares[label])


@pytest.mark.parametrize("kind", ["BoostedTrees", "RandomForest"])
def test_what_is_unseen_is_answered_like_what_is_missing(fitted, kind, task, checked):
    rows = checked.head(30)
    unseen, missing = (fitted(kind, task).predict(rows.assign(mark=value)) for value in ("never seen", None))
    np.testing.assert_array_equal(unseen.to_numpy(), missing.to_numpy())


def test_a_forest_fills_gaps_with_the_median_and_categories_with_a_code_of_their_own(fitted, make_schema, make_table):
    table = frames.check(make_table("regression"), make_schema("regression")).frame
    pipeline = fitted("RandomForest", "regression").get_internal_model()
    filled = pipeline["imputer"].transform(
        np.full((1, len(pipeline["imputer"].statistics_)), np.nan, dtype=np.float32)
    )[0]
    np.testing.assert_allclose(filled[1], np.median(table["gap"].dropna()), rtol=1e-5)
    assert filled[[2, 3]].tolist() == [3.0, 3.0]  # three categories have the codes 0 to 2


def test_columns_that_are_all_missing_do_not_stop_a_fit(task, make_schema, make_table):
    table = frames.check(make_table(task).assign(gap=None, mark=None, maybe=None), make_schema(task)).frame
    for model in (BoostedTrees(max_iter=3), RandomForest(n_estimators=3, n_jobs=1), ConstantModel()):
        answer = model.fit(make_schema(task), table).predict(table.head(5))
        assert answer["prediction"].notna().all()


def test_the_seed_decides_a_forest(make_schema, make_table):
    table = frames.check(make_table("regression"), make_schema("regression")).frame
    one, other = (
        RandomForest(n_estimators=3, n_jobs=1, random_state=seed).fit(make_schema("regression"), table).predict(table)
        for seed in (1, 2)
    )
    assert not one.equals(other)


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


def test_one_output_of_a_graph_is_left(fitted):
    graph = fitted("BoostedTrees", "multiclass").to_onnx()
    onnx.checker.check_model(graph)
    assert [output.name for output in graph.graph.output] == ["scores"]
    with pytest.raises(StopIteration):
        keep_output(graph, "nothing of this name")
