"""Explanations by LIME: a weight for each feature of each row."""

import sys

import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.models.lime import explain_with_lime
from model_name.errors import DependencyError


@pytest.fixture
def parts(make_schema, make_table, task):
    checked = dataframes.check_frame(make_table(task), make_schema(task)).frame
    return checked[:-10], checked[-10:]


def test_lime_weights_every_feature_of_every_row_and_finds_the_signal(fitted, parts, task):
    # Given a model of a table whose outcome depends on size, group and flag
    train, sample = parts
    model = fitted("BoostedTrees", task)
    # When the rows are explained
    result = explain_with_lime(model, train, sample, seed=1)
    # Then each row has one weight per feature, and the features with signal come first
    assert list(result.weights.columns) == model.features.names
    assert (result.weights.index == sample.index).all()
    assert set(list(result.importances)[:2]) <= {"size", "group", "flag"}
    assert 0 < result.fidelity <= 1
    assert result.scale == ("prediction" if task == "regression" else "probability")


def test_the_sign_of_a_lime_weight_is_the_direction_of_the_score(fitted, make_schema, make_table):
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    result = explain_with_lime(fitted("BoostedTrees", "regression"), table, table.head(40), seed=1)
    large, small = (table["size"].head(40) > 37).to_numpy(), (table["size"].head(40) < 12).to_numpy()
    assert (result.weights["size"][large] > 0).all()
    assert (result.weights["size"][small] < 0).all()


def test_lime_is_repeatable(fitted, make_schema, make_table):
    table = dataframes.check_frame(make_table("binary"), make_schema("binary")).frame
    first, second = (
        explain_with_lime(fitted("BoostedTrees", "binary"), table, table.head(3), seed=7) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first.weights, second.weights)


def test_an_error_names_the_extra_of_lime(fitted, make_schema, make_table, monkeypatch):
    monkeypatch.setitem(sys.modules, "lime.lime_tabular", None)
    table = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    with pytest.raises(DependencyError, match=r"model-name\[explain\]"):
        explain_with_lime(fitted("BoostedTrees", "regression"), table, table.head(2), seed=0)
