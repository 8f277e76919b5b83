import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core import dataframes
from model_name.core.features import DatePartFeature, Features, OrdinalFeature
from model_name.core.features.fitting import TargetData, distinct_categories, fit_features
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Column
from model_name.errors import DataError

NO_GOAL = TargetData(np.empty(0))  # for features that do not look at it


def fitted(columns, values):
    """The features of the columns named, beside a number that is always there."""
    columns = columns | {"n": Column(kind="numeric")}
    raw = {"name": "t", "target": {"name": "y", "task": "regression"}, "columns": columns}
    found = fit_features(TableSchema.model_validate(raw), values, NO_GOAL)
    return [feature for feature in found.columns if feature.source != "n"]


def hours(start: str, count: int, step: int = 1) -> np.ndarray:
    return pd.date_range(start, periods=count, freq=f"{step}h").to_numpy().astype("datetime64[us]")


def typed(make_schema, make_table, task="regression", rows=60):
    schema = make_schema(task)
    return schema, dataframes.to_columns(make_table(task, rows=rows), schema)


@pytest.mark.parametrize(
    ("part", "moment", "number"),
    [
        pytest.param("hour", "2024-02-29T13:30", 13.5, id="half past one"),
        pytest.param("weekday", "2024-02-29", 3, id="a Thursday"),
        pytest.param("month", "2024-02-29", 2, id="February"),
        pytest.param("hour", "1969-12-31T23:00", 23, id="an hour before 1970"),
        pytest.param("weekday", "1969-12-31", 2, id="a Wednesday before 1970"),
        pytest.param("month", "1969-12-31", 12, id="December before 1970"),
        pytest.param("weekday", "2024-03-03", 6, id="a Sunday"),
        pytest.param("hour", "NaT", np.nan, id="a missing moment"),
    ],
)
def test_the_parts_of_a_moment(part, moment, number):
    feature = DatePartFeature(name="m", source="m", part=part)
    np.testing.assert_array_equal(feature.transform({"m": np.array([moment], dtype="datetime64[us]")}), [number])


@given(st.datetimes())
def test_the_parts_agree_with_python(moment):
    values = np.array([moment], dtype="datetime64[us]")
    part = {
        name: DatePartFeature(name="m", source="m", part=name).transform({"m": values})[0] for name in ("hour", "weekday", "month")
    }
    assert (part["weekday"], part["month"]) == (moment.weekday(), moment.month)
    assert int(part["hour"]) == moment.hour


@pytest.mark.parametrize(
    ("moments", "seasonal"),
    [
        pytest.param(
            hours("2024-01-01", 24 * 365 * 2 + 2), {"hour": True, "weekday": True, "month": True}, id="two years"
        ),
        pytest.param(hours("2024-01-01", 24 * 365), {"hour": True, "weekday": True, "month": False}, id="one year"),
        pytest.param(hours("2024-01-05", 24 * 10), {"hour": True, "weekday": False}, id="ten days of one month"),
        pytest.param(hours("2024-01-01", 10, step=24 * 7), {"month": False}, id="Mondays at midnight"),
        pytest.param(np.array(["NaT", "2024-01-01"], dtype="datetime64[us]"), {}, id="one known moment"),
        pytest.param(np.array(["NaT"], dtype="datetime64[us]"), {}, id="none known"),
    ],
)
def test_parts_that_vary_are_features_and_know_their_season(moments, seasonal):
    found = fitted({"m": Column(kind="datetime", nullable=True)}, {"m": moments, "n": np.arange(len(moments))})
    assert {feature.part: feature.is_seasonal for feature in found} == seasonal
    assert [feature.name for feature in found] == [f"m.{part}" for part in seasonal]


def test_categories_are_codes_and_what_is_unseen_or_missing_is_not_a_number():
    feature = OrdinalFeature(name="g", source="g", values=("a", "b"))
    codes = feature.transform({"g": np.array(["b", "a", "z", None], dtype=object)})
    np.testing.assert_array_equal(codes, np.array([1, 0, np.nan, np.nan], dtype=np.float32))


def test_the_features_of_a_table_are_its_inputs_in_their_order(make_schema, make_table):
    # given a schema with given and with unknown categories
    schema, columns = typed(make_schema, make_table)
    # when they are fitted
    features = fit_features(schema, columns, NO_GOAL)
    # then ids are none of them, and categories are as given, or as found and sorted
    assert features.names == ["size", "gap", "group", "mark", "flag", "maybe", "moment.hour", "moment.weekday"]
    values = {feature.name: feature.values for feature in features.columns if feature.kind == "category"}
    assert values == {"group": ("a", "b", "c"), "mark": ("p", "q", "r")}


def test_the_matrix_is_float32_with_nan_where_nothing_is_known(make_schema, make_table):
    schema, columns = typed(make_schema, make_table)
    matrix = fit_features(schema, columns, NO_GOAL).transform(columns)
    assert (matrix.shape, matrix.dtype) == ((60, 8), np.float32)
    np.testing.assert_array_equal(np.isnan(matrix[:, 1]), np.isnan(columns["gap"]))
    np.testing.assert_array_equal(np.isnan(matrix[:, 3]), [value is None for value in columns["mark"]])
    np.testing.assert_array_equal(matrix[:, 0], columns["size"].astype(np.float32))


def test_features_survive_json_with_the_identical_matrix(make_schema, make_table, task):
    schema, columns = typed(make_schema, make_table, task)
    features = fit_features(schema, columns, NO_GOAL)
    again = Features.model_validate_json(features.model_dump_json())
    assert again == features
    other = dataframes.to_columns(make_table(task, seed=9).assign(group="unseen"), schema)
    np.testing.assert_array_equal(again.transform(other), features.transform(other))


def test_no_rows_make_no_matrix_rows(make_schema, make_table):
    schema, columns = typed(make_schema, make_table)
    features = fit_features(schema, columns, NO_GOAL)
    assert features.transform({name: values[:0] for name, values in columns.items()}).shape == (0, 8)


def test_a_column_without_a_known_category_has_none():
    assert distinct_categories(np.array([None, None], dtype=object)) == ()


def test_nothing_to_learn_from_is_an_error():
    raw = {"name": "t", "target": {"name": "y", "task": "regression"}, "columns": {"when": {"kind": "datetime"}}}
    schema = TableSchema.model_validate(raw)
    columns = {"when": np.array(["2024-01-01"] * 3, dtype="datetime64[us]")}
    with pytest.raises(DataError, match="nothing to learn from: when does not vary"):
        fit_features(schema, columns, NO_GOAL)
