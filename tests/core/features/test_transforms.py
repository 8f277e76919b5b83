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

NO_TARGET_DATA = TargetData(np.empty(0))  # for features that do not use the target


def fit_with_number(columns, values):
    """Fit the features of some columns, next to a number that always varies."""
    columns = columns | {"n": Column(kind="numeric")}
    raw = {"name": "t", "target": {"name": "y", "task": "regression"}, "columns": columns}
    features = fit_features(TableSchema.model_validate(raw), values, NO_TARGET_DATA)
    return [feature for feature in features.columns if feature.source != "n"]


def hours(start: str, count: int, step: int = 1) -> np.ndarray:
    return pd.date_range(start, periods=count, freq=f"{step}h").to_numpy().astype("datetime64[us]")


def typed_columns(make_schema, make_table, task="regression", rows=60):
    schema = make_schema(task)
    return schema, dataframes.to_columns(make_table(task, rows=rows), schema)


@pytest.mark.parametrize(
    ("part", "datetime", "number"),
    [
        pytest.param("hour", "2024-02-29T13:30", 13.5, id="half past one"),
        pytest.param("weekday", "2024-02-29", 3, id="a Thursday"),
        pytest.param("month", "2024-02-29", 2, id="February"),
        pytest.param("hour", "1969-12-31T23:00", 23, id="an hour before 1970"),
        pytest.param("weekday", "1969-12-31", 2, id="a Wednesday before 1970"),
        pytest.param("month", "1969-12-31", 12, id="December before 1970"),
        pytest.param("weekday", "2024-03-03", 6, id="a Sunday"),
        pytest.param("hour", "NaT", np.nan, id="a missing time"),
    ],
)
def test_parts_of_a_datetime(part, datetime, number):
    feature = DatePartFeature(name="m", source="m", part=part)
    np.testing.assert_array_equal(feature.transform({"m": np.array([datetime], dtype="datetime64[us]")}), [number])


@given(st.datetimes())
def test_parts_agree_with_datetime(datetime):
    values = np.array([datetime], dtype="datetime64[us]")
    part = {
        name: DatePartFeature(name="m", source="m", part=name).transform({"m": values})[0]
        for name in ("hour", "weekday", "month")
    }
    assert (part["weekday"], part["month"]) == (datetime.weekday(), datetime.month)
    assert int(part["hour"]) == datetime.hour


@pytest.mark.parametrize(
    ("datetimes", "seasonal"),
    [
        pytest.param(
            hours("2024-01-01", 24 * 365 * 2 + 2), {"hour": True, "weekday": True, "month": True}, id="two years"
        ),
        pytest.param(hours("2024-01-01", 24 * 365), {"hour": True, "weekday": True, "month": False}, id="one year"),
        pytest.param(hours("2024-01-05", 24 * 10), {"hour": True, "weekday": False}, id="ten days of one month"),
        pytest.param(hours("2024-01-01", 10, step=24 * 7), {"month": False}, id="Mondays at midnight"),
        pytest.param(np.array(["NaT", "2024-01-01"], dtype="datetime64[us]"), {}, id="one known time"),
        pytest.param(np.array(["NaT"], dtype="datetime64[us]"), {}, id="none known"),
    ],
)
def test_varying_parts_are_features_and_detect_their_season(datetimes, seasonal):
    features = fit_with_number(
        {"m": Column(kind="datetime", nullable=True)}, {"m": datetimes, "n": np.arange(len(datetimes))}
    )
    assert {feature.part: feature.is_seasonal for feature in features} == seasonal
    assert [feature.name for feature in features] == [f"m.{part}" for part in seasonal]


def test_unseen_and_missing_categories_are_nan():
    feature = OrdinalFeature(name="g", source="g", values=("a", "b"))
    codes = feature.transform({"g": np.array(["b", "a", "z", None], dtype=object)})
    np.testing.assert_array_equal(codes, np.array([1, 0, np.nan, np.nan], dtype=np.float32))


def test_features_follow_the_order_of_the_inputs(make_schema, make_table):
    # given a schema with listed and with unlisted categories
    schema, columns = typed_columns(make_schema, make_table)
    # when the features are fitted
    features = fit_features(schema, columns, NO_TARGET_DATA)
    # then ids are left out, and categories are the listed ones, or those of the table, sorted
    assert features.names == ["size", "gap", "group", "mark", "flag", "maybe", "moment.hour", "moment.weekday"]
    values = {feature.name: feature.values for feature in features.columns if feature.kind == "category"}
    assert values == {"group": ("a", "b", "c"), "mark": ("p", "q", "r")}


def test_matrix_is_float32_with_nan_for_missing_values(make_schema, make_table):
    schema, columns = typed_columns(make_schema, make_table)
    matrix = fit_features(schema, columns, NO_TARGET_DATA).transform(columns)
    assert (matrix.shape, matrix.dtype) == ((60, 8), np.float32)
    np.testing.assert_array_equal(np.isnan(matrix[:, 1]), np.isnan(columns["gap"]))
    np.testing.assert_array_equal(np.isnan(matrix[:, 3]), [value is None for value in columns["mark"]])
    np.testing.assert_array_equal(matrix[:, 0], columns["size"].astype(np.float32))


def test_features_round_trip_through_json_with_the_same_matrix(make_schema, make_table, task):
    schema, columns = typed_columns(make_schema, make_table, task)
    features = fit_features(schema, columns, NO_TARGET_DATA)
    again = Features.model_validate_json(features.model_dump_json())
    assert again == features
    other = dataframes.to_columns(make_table(task, seed=9).assign(group="unseen"), schema)
    np.testing.assert_array_equal(again.transform(other), features.transform(other))


def test_no_rows_give_an_empty_matrix(make_schema, make_table):
    schema, columns = typed_columns(make_schema, make_table)
    features = fit_features(schema, columns, NO_TARGET_DATA)
    assert features.transform({name: values[:0] for name, values in columns.items()}).shape == (0, 8)


def test_column_without_known_values_has_no_categories():
    assert distinct_categories(np.array([None, None], dtype=object)) == ()


def test_inputs_that_do_not_vary_are_refused():
    raw = {"name": "t", "target": {"name": "y", "task": "regression"}, "columns": {"when": {"kind": "datetime"}}}
    schema = TableSchema.model_validate(raw)
    columns = {"when": np.array(["2024-01-01"] * 3, dtype="datetime64[us]")}
    with pytest.raises(DataError, match="nothing to learn from: when does not vary"):
        fit_features(schema, columns, NO_TARGET_DATA)
