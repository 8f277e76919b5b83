"""Lag columns use exactly the earlier rows of their definition, and never later ones."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.schemas import TableSchema
from model_name.core.schemas.lags import LagSpec, compute_lags, to_timedelta
from model_name.errors import DataError

START = np.datetime64("2024-01-01", "us")
HOUR = np.timedelta64(1, "h")
NAN = np.nan


def naive_lags(history: LagSpec, times, entities, values) -> list[float]:
    """Compute lags row by row from their definition."""
    lag = to_timedelta(history.lag)
    means = []
    for time, entity in zip(times, entities, strict=True):
        averaged = []
        for repeat in range(1, history.repeats + 1):
            newest = time - repeat * lag
            for other, other_entity, value in zip(times, entities, values, strict=True):
                is_used = other == newest
                if history.window:
                    is_used = newest - to_timedelta(history.window) < other <= newest
                if is_used and other_entity == entity and not np.isnan(value):
                    averaged.append(value)
        means.append(float(np.mean(averaged)) if averaged else NAN)
    return means


SPECS = st.one_of(
    st.builds(LagSpec, of=st.just("y"), lag=st.sampled_from(["1h", "2h", "30m", "1d"]), repeats=st.integers(1, 4)),
    st.builds(LagSpec, of=st.just("y"), lag=st.sampled_from(["1h", "3h"]), window=st.sampled_from(["30m", "2h", "1d"])),
)
# Half hours in any order, so that times match lags, repeat and have gaps.
ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 2), st.one_of(st.just(NAN), st.integers(-9, 9).map(float))),
    max_size=25,
)


def arrays(rows):
    times = np.array([START + step * HOUR / 2 for step, _, _ in rows], dtype="datetime64[us]")
    return times, np.array([row[1] for row in rows], dtype=int), np.array([row[2] for row in rows], dtype=float)


@given(SPECS, ROWS)
def test_lags_equal_the_naive_definition(history, rows):
    times, entities, values = arrays(rows)
    computed = compute_lags(history, times, entities, values)
    np.testing.assert_allclose(computed, naive_lags(history, times, entities, values), atol=1e-12)


@given(SPECS, ROWS.filter(bool), st.data())
def test_values_newer_than_the_lag_have_no_effect(history, rows, data):
    # Given the lag of a row
    times, entities, values = arrays(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    lags = compute_lags(history, times, entities, values)[row]
    # When all values newer than the row's time less the lag change
    changed = np.where(times > times[row] - to_timedelta(history.lag), values + 1000, values)
    # Then the lag is the same
    np.testing.assert_equal(compute_lags(history, times, entities, changed)[row], lags)


BY_HAND = [
    pytest.param({"lag": "1h"}, [0, 1, 2], [1, 2, 3], [NAN, 1, 2], id="the hour before"),
    pytest.param({"lag": "2h"}, [0, 1, 2], [1, 2, 3], [NAN, NAN, 1], id="two hours before"),
    pytest.param({"lag": "1h"}, [0, 2, 3], [1, 2, 3], [NAN, NAN, 2], id="a gap"),
    pytest.param({"lag": "1h"}, [2, 0, 1], [3, 1, 2], [2, NAN, 1], id="unsorted rows"),
    pytest.param({"lag": "1h"}, [0, 0, 1], [1, 3, 5], [NAN, NAN, 2], id="a repeated time"),
    pytest.param({"lag": "1h"}, [0, 1], [NAN, 2], [NAN, NAN], id="a missing value"),
    pytest.param({"lag": "1h", "repeats": 2}, [0, 1, 2], [1, 3, 9], [NAN, 1, 2], id="the mean of two"),
    pytest.param({"lag": "1h", "repeats": 2}, [0, 1, 2], [1, NAN, 9], [NAN, 1, 1], id="of which one is missing"),
    pytest.param({"lag": "1h", "window": "2h"}, [0, 1, 2, 3], [1, 3, 5, 9], [NAN, 1, 2, 4], id="a window"),
    pytest.param({"lag": "1h"}, [5], [1], [NAN], id="a single row"),
    pytest.param({"lag": "1h"}, [], [], [], id="no row"),
]


@pytest.mark.parametrize(("history", "hours", "values", "expected"), BY_HAND)
def test_lags_computed_by_hand(history, hours, values, expected):
    times = np.array([START + hour * HOUR for hour in hours], dtype="datetime64[us]")
    computed = compute_lags(
        LagSpec(of="y", **history), times, np.zeros(len(hours), dtype=int), np.array(values, dtype=float)
    )
    np.testing.assert_array_equal(computed, np.array(expected, dtype=float))


def test_lag_is_exact_next_to_a_far_larger_value():
    times = START + np.arange(3) * HOUR
    lags = compute_lags(LagSpec(of="y", lag="1h"), times, np.zeros(3, dtype=int), np.array([1e30, 0.1, 3.0]))
    assert lags[2] == 0.1


def test_row_without_a_time_has_no_lag_and_is_in_none():
    times = np.array(["NaT", "2024-01-01", "NaT"], dtype="datetime64[us]")
    lags = compute_lags(LagSpec(of="y", lag="1h"), times, np.zeros(3, dtype=int), np.ones(3))
    assert np.isnan(lags).all()


INVALID = [
    pytest.param({"lag": "-24h"}, "-24h looks ahead", id="negative"),
    pytest.param({"lag": "0h"}, "must be above zero", id="zero"),
    pytest.param({"lag": "24"}, "is not a span of time such as", id="no unit"),
    pytest.param({"lag": 24}, "is not a span of time such as", id="a number"),
    pytest.param({"lag": "1.5h"}, "is not a span of time such as", id="a fraction"),
    pytest.param({"lag": "1y"}, "is not a span of time such as", id="an unknown unit"),
    pytest.param({"lag": "1h", "repeats": 2, "window": "1d"}, "exclude each other", id="repeats and a window"),
    pytest.param({"lag": "1h", "repeats": 0}, "repeats", id="no repeats"),
    pytest.param({"lag": "1h", "repeat": 2}, "not a key of History; did you mean repeats", id="a misspelt key"),
]


@pytest.mark.parametrize(("history", "message"), INVALID)
def test_invalid_lag_spec_is_refused(history, message):
    with pytest.raises(ValidationError, match=message):
        LagSpec(of="y", **history)


@pytest.mark.parametrize("text", ["30m", "24h", "7d", "2w"])
def test_time_spans_equal_those_of_datetime(text):
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[text[-1]]
    assert to_timedelta(text) == np.timedelta64(timedelta(**{unit: int(text[:-1])}))


def schema(history: dict[str, object] | None = None, task: str = "regression", **more: object) -> TableSchema:
    """Make a schema with the lag column `was`."""
    target = {"name": "y", "task": task} | ({"classes": ["no", "yes"]} if task == "binary" else {})
    columns = {
        "shop": {"kind": "category"},
        "when": {"kind": "datetime"},
        "size": {"kind": "numeric", "nullable": True},
        "was": {"kind": "numeric", "nullable": True, "history": {"of": "y", "lag": "1h"} | (history or {})},
    }
    return TableSchema.model_validate(
        {"name": "t", "target": target, "time": "when", "columns": columns} | more, strict=False
    )


def raw_table(rows: int = 6, **columns: object) -> pd.DataFrame:
    """Make hourly rows of two shops without the lag column."""
    when = pd.date_range("2024-01-01", periods=rows // 2, freq="h").repeat(2)
    values = {"shop": ["a", "b"] * (rows // 2), "when": when, "size": np.arange(rows) * 1.5, "y": np.arange(rows) * 1.0}
    return pd.DataFrame(values | columns)


TABLES = [
    pytest.param({"by": ["shop"]}, raw_table(), [NAN, NAN, 0, 1, 2, 3], id="by shop"),
    pytest.param({}, raw_table(), [NAN, NAN, 0.5, 0.5, 2.5, 2.5], id="the mean of both shops"),
    pytest.param({"by": ["shop"], "of": "size"}, raw_table(), [NAN, NAN, 0, 1.5, 3, 4.5], id="of another column"),
    pytest.param({"by": ["shop"]}, raw_table(was=[9.0] * 6), [9.0] * 6, id="a table that has the column"),
    pytest.param(
        {"by": ["shop"]}, raw_table().assign(y=[0.0, 1, 2, 3, None, None]), [NAN, NAN, 0, 1, 2, 3], id="rows to predict"
    ),
    pytest.param(
        {"by": ["shop"]}, raw_table(when=raw_table()["when"].astype(str)), [NAN, NAN, 0, 1, 2, 3], id="dates as texts"
    ),
    pytest.param(
        {"by": ["shop"]},
        raw_table(shop=pd.Categorical(["a", "b"] * 3)),
        [NAN, NAN, 0, 1, 2, 3],
        id="a pandas categorical",
    ),
    pytest.param({"by": ["shop"]}, raw_table(shop=["a", None] * 3), [NAN, NAN, 0, 1, 2, 3], id="a shop without a name"),
]


@pytest.mark.parametrize(("history", "table", "expected"), TABLES)
def test_lag_columns_are_added_to_a_table(history, table, expected):
    computed = dataframes.add_lag_columns(table, schema(history))
    np.testing.assert_array_equal(computed["was"].to_numpy(dtype=float), np.array(expected, dtype=float))
    assert "was" not in table.columns or table is computed


def test_lag_of_a_binary_target_is_the_share_of_the_positive_class():
    table = raw_table().assign(y=["no", "yes", "yes", None, "no", "no"])
    lags = dataframes.add_lag_columns(table, schema(task="binary"))["was"]
    np.testing.assert_array_equal(lags, [NAN, NAN, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(raw_table().drop(columns="y"), "was: is a history of y, which is not a column", id="no target"),
        pytest.param(
            raw_table().drop(columns="when"), "was: is a history of when, which is not a column", id="no time"
        ),
        pytest.param(raw_table(when="soon"), "when, row 0: not a date and time", id="a time that is not a date"),
        pytest.param(raw_table().assign(y="much"), "not a number", id="a target that is not a number"),
    ],
)
def test_unusable_source_column_is_refused(table, message):
    with pytest.raises(DataError, match=message):
        dataframes.add_lag_columns(table, schema({"by": ["shop"]}))


IMPOSSIBLE = [
    pytest.param({}, {"time": None}, "history needs a time column", id="no time column"),
    pytest.param({"of": "shop"}, {}, "shop is not the target or a numeric column", id="of a category"),
    pytest.param({"of": "was"}, {}, "was is not the target or a numeric column", id="of itself"),
    pytest.param({"of": "nothing"}, {}, "nothing is not the target", id="of an unknown column"),
    pytest.param({"by": ["was"]}, {}, "was is not a column of the table", id="by itself"),
    pytest.param({"by": ["y"]}, {}, "y is not a column of the table", id="by the target"),
]


@pytest.mark.parametrize(("history", "more", "message"), IMPOSSIBLE)
def test_schema_with_an_impossible_lag_is_refused(history, more, message):
    with pytest.raises(ValidationError, match=message):
        schema(history, **more)


def test_lag_of_a_multiclass_target_is_refused():
    target = {"name": "y", "task": "multiclass", "classes": ["a", "b", "c"]}
    with pytest.raises(ValidationError, match="y has classes, of which there is no mean"):
        schema(target=target)
