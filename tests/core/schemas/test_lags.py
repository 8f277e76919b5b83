"""What a row is told of earlier ones: exactly that, and never of later ones."""

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


def naive(history: LagSpec, times, entities, values) -> list[float]:
    """The same by its definition, row by row."""
    lag = to_timedelta(history.lag)
    told = []
    for time, entity in zip(times, entities, strict=True):
        found = []
        for repeat in range(1, history.repeats + 1):
            newest = time - repeat * lag
            for other, its_entity, value in zip(times, entities, values, strict=True):
                is_there = other == newest
                if history.window:
                    is_there = newest - to_timedelta(history.window) < other <= newest
                if is_there and its_entity == entity and not np.isnan(value):
                    found.append(value)
        told.append(float(np.mean(found)) if found else NAN)
    return told


HISTORIES = st.one_of(
    st.builds(LagSpec, of=st.just("y"), lag=st.sampled_from(["1h", "2h", "30m", "1d"]), repeats=st.integers(1, 4)),
    st.builds(LagSpec, of=st.just("y"), lag=st.sampled_from(["1h", "3h"]), window=st.sampled_from(["30m", "2h", "1d"])),
)
# Steps of half an hour, so that moments meet, repeat and leave gaps; in any order.
ROWS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 2), st.one_of(st.just(NAN), st.integers(-9, 9).map(float))),
    max_size=25,
)


def arrays(rows):
    times = np.array([START + step * HOUR / 2 for step, _, _ in rows], dtype="datetime64[us]")
    return times, np.array([row[1] for row in rows], dtype=int), np.array([row[2] for row in rows], dtype=float)


@given(HISTORIES, ROWS)
def test_a_row_is_told_what_the_definition_says(history, rows):
    times, entities, values = arrays(rows)
    found = compute_lags(history, times, entities, values)
    np.testing.assert_allclose(found, naive(history, times, entities, values), atol=1e-12)


@given(HISTORIES, ROWS.filter(bool), st.data())
def test_nothing_newer_than_the_lag_changes_what_a_row_is_told(history, rows, data):
    # Given what a row is told
    times, entities, values = arrays(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    told = compute_lags(history, times, entities, values)[row]
    # When all values are changed that are newer than the row's moment less the lag
    changed = np.where(times > times[row] - to_timedelta(history.lag), values + 1000, values)
    # Then it is told the same
    np.testing.assert_equal(compute_lags(history, times, entities, changed)[row], told)


BY_HAND = [
    pytest.param({"lag": "1h"}, [0, 1, 2], [1, 2, 3], [NAN, 1, 2], id="the hour before"),
    pytest.param({"lag": "2h"}, [0, 1, 2], [1, 2, 3], [NAN, NAN, 1], id="two hours before"),
    pytest.param({"lag": "1h"}, [0, 2, 3], [1, 2, 3], [NAN, NAN, 2], id="a gap"),
    pytest.param({"lag": "1h"}, [2, 0, 1], [3, 1, 2], [2, NAN, 1], id="rows in disorder"),
    pytest.param({"lag": "1h"}, [0, 0, 1], [1, 3, 5], [NAN, NAN, 2], id="a moment twice"),
    pytest.param({"lag": "1h"}, [0, 1], [NAN, 2], [NAN, NAN], id="a missing value"),
    pytest.param({"lag": "1h", "repeats": 2}, [0, 1, 2], [1, 3, 9], [NAN, 1, 2], id="the mean of two"),
    pytest.param({"lag": "1h", "repeats": 2}, [0, 1, 2], [1, NAN, 9], [NAN, 1, 1], id="of which one is missing"),
    pytest.param({"lag": "1h", "window": "2h"}, [0, 1, 2, 3], [1, 3, 5, 9], [NAN, 1, 2, 4], id="a window"),
    pytest.param({"lag": "1h"}, [5], [1], [NAN], id="a single row"),
    pytest.param({"lag": "1h"}, [], [], [], id="no row"),
]


@pytest.mark.parametrize(("history", "hours", "values", "expected"), BY_HAND)
def test_histories_by_hand(history, hours, values, expected):
    times = np.array([START + hour * HOUR for hour in hours], dtype="datetime64[us]")
    found = compute_lags(LagSpec(of="y", **history), times, np.zeros(len(hours), dtype=int), np.array(values, dtype=float))
    np.testing.assert_array_equal(found, np.array(expected, dtype=float))


def test_a_lag_is_told_to_the_last_digit_beside_a_value_far_larger():
    times = START + np.arange(3) * HOUR
    told = compute_lags(LagSpec(of="y", lag="1h"), times, np.zeros(3, dtype=int), np.array([1e30, 0.1, 3.0]))
    assert told[2] == 0.1


def test_a_row_without_a_moment_is_told_nothing_and_tells_nothing():
    times = np.array(["NaT", "2024-01-01", "NaT"], dtype="datetime64[us]")
    told = compute_lags(LagSpec(of="y", lag="1h"), times, np.zeros(3, dtype=int), np.ones(3))
    assert np.isnan(told).all()


WRONG = [
    pytest.param({"lag": "-24h"}, "-24h looks ahead", id="negative"),
    pytest.param({"lag": "0h"}, "must be above zero", id="zero"),
    pytest.param({"lag": "24"}, "is not a span of time such as", id="no unit"),
    pytest.param({"lag": 24}, "is not a span of time such as", id="a number"),
    pytest.param({"lag": "1.5h"}, "is not a span of time such as", id="a fraction"),
    pytest.param({"lag": "1y"}, "is not a span of time such as", id="a unit that there is not"),
    pytest.param({"lag": "1h", "repeats": 2, "window": "1d"}, "exclude each other", id="repeats and a window"),
    pytest.param({"lag": "1h", "repeats": 0}, "repeats", id="the mean of none"),
]


@pytest.mark.parametrize(("history", "words"), WRONG)
def test_a_history_that_cannot_be_meant_is_refused(history, words):
    with pytest.raises(ValidationError, match=words):
        LagSpec(of="y", **history)


@pytest.mark.parametrize("text", ["30m", "24h", "7d", "2w"])
def test_spans_are_those_of_python(text):
    unit = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[text[-1]]
    assert to_timedelta(text) == np.timedelta64(timedelta(**{unit: int(text[:-1])}))


def schema(history: dict[str, object] | None = None, task: str = "regression", **more: object) -> TableSchema:
    """A schema in which `was` is a history."""
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


def raw(rows: int = 6, **columns: object) -> pd.DataFrame:
    """Hours in two shops, without the column that tells of earlier ones."""
    when = pd.date_range("2024-01-01", periods=rows // 2, freq="h").repeat(2)
    values = {"shop": ["a", "b"] * (rows // 2), "when": when, "size": np.arange(rows) * 1.5, "y": np.arange(rows) * 1.0}
    return pd.DataFrame(values | columns)


TABLES = [
    pytest.param({"by": ["shop"]}, raw(), [NAN, NAN, 0, 1, 2, 3], id="each shop its own"),
    pytest.param({}, raw(), [NAN, NAN, 0.5, 0.5, 2.5, 2.5], id="the mean of both"),
    pytest.param({"by": ["shop"], "of": "size"}, raw(), [NAN, NAN, 0, 1.5, 3, 4.5], id="of another column"),
    pytest.param({"by": ["shop"]}, raw(was=[9.0] * 6), [9.0] * 6, id="a table that brings it"),
    pytest.param(
        {"by": ["shop"]}, raw().assign(y=[0.0, 1, 2, 3, None, None]), [NAN, NAN, 0, 1, 2, 3], id="rows to predict"
    ),
    pytest.param({"by": ["shop"]}, raw(when=raw()["when"].astype(str)), [NAN, NAN, 0, 1, 2, 3], id="dates as texts"),
    pytest.param(
        {"by": ["shop"]}, raw(shop=pd.Categorical(["a", "b"] * 3)), [NAN, NAN, 0, 1, 2, 3], id="a category of pandas"
    ),
    pytest.param({"by": ["shop"]}, raw(shop=["a", None] * 3), [NAN, NAN, 0, 1, 2, 3], id="a shop without a name"),
]


@pytest.mark.parametrize(("history", "table", "expected"), TABLES)
def test_a_table_is_told_of_its_earlier_rows(history, table, expected):
    found = dataframes.add_lag_columns(table, schema(history))
    np.testing.assert_array_equal(found["was"].to_numpy(dtype=float), np.array(expected, dtype=float))
    assert "was" not in table.columns or table is found


def test_the_history_of_a_class_is_the_share_of_the_positive_one():
    table = raw().assign(y=["no", "yes", "yes", None, "no", "no"])
    told = dataframes.add_lag_columns(table, schema(task="binary"))["was"]
    np.testing.assert_array_equal(told, [NAN, NAN, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        pytest.param(raw().drop(columns="y"), "was: is a history of y, which is not a column", id="no target"),
        pytest.param(raw().drop(columns="when"), "was: is a history of when, which is not a column", id="no time"),
        pytest.param(raw(when="soon"), "when, row 0: not a date and time", id="no date"),
        pytest.param(raw().assign(y="much"), "not a number", id="no number"),
    ],
)
def test_what_a_history_needs_and_does_not_find_is_told(table, words):
    with pytest.raises(DataError, match=words):
        dataframes.add_lag_columns(table, schema({"by": ["shop"]}))


RELATED = [
    pytest.param({}, {"time": None}, "history needs a time column", id="no time column"),
    pytest.param({"of": "shop"}, {}, "shop is not the target or a numeric column", id="of a category"),
    pytest.param({"of": "was"}, {}, "was is not the target or a numeric column", id="of itself"),
    pytest.param({"of": "nothing"}, {}, "nothing is not the target", id="of a column that there is not"),
    pytest.param({"by": ["was"]}, {}, "was is not a column of the table", id="by itself"),
    pytest.param({"by": ["y"]}, {}, "y is not a column of the table", id="by the target"),
]


@pytest.mark.parametrize(("history", "more", "words"), RELATED)
def test_a_schema_whose_histories_have_nothing_to_look_at_is_refused(history, more, words):
    with pytest.raises(ValidationError, match=words):
        schema(history, **more)


def test_the_history_of_several_classes_is_refused():
    target = {"name": "y", "task": "multiclass", "classes": ["a", "b", "c"]}
    with pytest.raises(ValidationError, match="y has classes, of which there is no mean"):
        schema(target=target)
