"""The learning curve: fits on the newest rows, and the model itself as the last point."""

import pytest

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision, Temperature
from model_name.core.evaluation.learning_curve import learning_curve, training_subsets
from model_name.core.metrics import Metric
from model_name.core.models import BoostedTrees


@pytest.fixture
def split(make_table, make_schema):
    def of(task, **changes):
        schema = make_schema(task, **changes)
        table = dataframes.check_frame(make_table(task, rows=400), schema).frame
        return schema, table[:300], table[300:]

    return of


def test_last_point_is_the_model_itself(split):
    schema, train, test = split("regression")
    model = BoostedTrees(max_iter=20, min_samples_leaf=2).fit(schema, train)
    rmse = Metric(name="rmse")
    points = learning_curve(model, schema, train, test, lambda outputs: rmse.score(test["outcome"], outputs))
    assert [point.rows for point in points] == [30, 75, 150, 300]
    assert points[-1].score == rmse.score(test["outcome"], model.outputs(test))
    assert points[-1].score < points[0].score


def test_training_subsets_are_the_newest_rows_in_table_order(split):
    schema, train, _ = split("regression")
    shuffled = train.sample(frac=1, random_state=0)
    for part, rows in zip(training_subsets(shuffled, schema, seed=0), (30, 75, 150), strict=True):
        assert set(part["code"]) == set(train["code"].tail(rows))
        assert part.index.tolist() == [row for row in shuffled.index if row in set(part.index)]


def test_training_subsets_without_time_are_nested_samples(split):
    schema, train, _ = split("regression", time=None)
    parts = [set(part["code"]) for part in training_subsets(train, schema, seed=0)]
    assert parts[0] < parts[1] < parts[2]
    assert not parts[0] <= set(train["code"].tail(30))


def test_subset_without_one_of_the_classes_is_skipped(split):
    schema, train, test = split("binary")
    train = train.copy()
    train.loc[train.index[150:], "outcome"] = True
    model = BoostedTrees(max_iter=2).fit(schema, train)
    points = learning_curve(model, schema, train, test, lambda outputs: 0.0)
    assert [point.rows for point in points] == [300]


def test_points_are_scored_without_calibration(split):
    schema, train, test = split("binary")
    model = BoostedTrees(max_iter=5).fit(schema, train)
    loss = Metric(name="log_loss")
    plain = loss.score(test["outcome"], model.outputs(test))
    model.set_decision(Decision(calibrator=Temperature(temperature=9)))
    points = learning_curve(model, schema, train, test, lambda outputs: loss.score(test["outcome"], outputs))
    assert points[-1].score == plain != loss.score(test["outcome"], model.outputs(test))
