"""Inference of the schema of a table."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.core import dataframes
from model_name.core.profiling.schema_inference import InferredSchema, infer_schema, propose_bounds
from model_name.errors import DataError

DATA = Path(__file__).parents[3] / "data"
ROWS = 240
RNG = np.random.default_rng(7)
NOISE = RNG.normal(size=ROWS)
DAYS = pd.date_range("2024-01-01", periods=ROWS, freq="12h")


def table(**columns: object) -> pd.DataFrame:
    """Make a table with an unpredictable target `y`, one harmless feature and the given columns."""
    return pd.DataFrame({"y": NOISE, "x": RNG.permutation(NOISE)} | columns)


def infer(frame: pd.DataFrame, **given: object) -> InferredSchema:
    return infer_schema(frame, **({"name": "things", "target": "y"} | given))


def findings_about(inferred: InferredSchema, about: str) -> str:
    return " | ".join(finding for finding in inferred.findings if finding.startswith(about))


@pytest.mark.parametrize("name", ["flights", "delays"])
def test_schema_of_an_example_accepts_its_table(name):
    path = DATA / f"{name}.parquet"
    if not path.exists():
        pytest.skip(f"python data/make.py {name}")
    frame = pd.read_parquet(path)
    inferred = infer_schema(frame, name=name, target={"flights": "departures", "delays": "delayed"}[name])
    table = dataframes.add_lag_columns(frame.head(50_000), inferred.schema)
    assert len(dataframes.check_frame(table, inferred.schema).frame) == min(len(frame), 50_000)
    assert inferred.schema.time == "time_hour"
    assert inferred.schema.key == (("origin", "time_hour") if name == "flights" else ())


KINDS = [
    pytest.param(RNG.normal(size=ROWS), "numeric", id="floats"),
    pytest.param(RNG.integers(0, 5, ROWS), "numeric", id="few integers"),
    pytest.param(RNG.integers(0, 2, ROWS), "numeric", id="0 and 1"),
    pytest.param(pd.array([1, 2, None] * 80, dtype="Int64"), "numeric", id="nullable integers"),
    pytest.param([Decimal("1.5"), Decimal(2), None] * 80, "numeric", id="decimals"),
    pytest.param(RNG.random(ROWS) > 0.5, "boolean", id="booleans"),
    pytest.param(pd.array([True, False, None] * 80, dtype="boolean"), "boolean", id="nullable booleans"),
    pytest.param([True, None, False] * 80, "boolean", id="booleans among objects"),
    pytest.param(["true", "false"] * 120, "category", id="booleans as texts"),
    pytest.param(["NO", "SE", None] * 80, "category", id="texts"),
    pytest.param(pd.Categorical([1, 2, 3] * 80), "category", id="a pandas categorical of numbers"),
    pytest.param(["a", 1, True] * 80, "category", id="texts and numbers"),
    pytest.param(pd.array(["a", "b", None] * 80, dtype="string"), "category", id="pandas strings"),
    pytest.param(DAYS, "datetime", id="datetimes"),
    pytest.param(DAYS.tz_localize("Europe/Berlin"), "datetime", id="datetimes with a zone"),
    pytest.param([dt.date(2024, 1, 1 + day % 28) for day in range(ROWS)], "datetime", id="dates"),
    pytest.param(DAYS.astype(str), "datetime", id="datetimes as texts"),
    pytest.param(["2024-01-01T10:00:00+02:00", None] * 120, "datetime", id="ISO texts with a zone"),
    pytest.param(["2024-01-01"] * 239 + ["soon"], "category", id="dates as texts with one exception"),
    pytest.param([f"name {row}" for row in range(ROWS)], "text-id", id="distinct texts"),
    pytest.param([str(UUID(int=row % 3)) for row in range(ROWS)], "text-id", id="repeated UUIDs"),
    pytest.param([f"city {row % 110}" for row in range(ROWS)], "category", id="many categories"),
]


@pytest.mark.parametrize(("values", "kind"), KINDS)
def test_kind_follows_from_the_values(values, kind):
    frame = table(c=values)
    inferred = infer(frame)
    column = inferred.schema.columns["c"]
    assert column.kind == kind
    assert column.nullable == bool(pd.isna(frame["c"]).any())
    assert len(dataframes.check_frame(frame, inferred.schema).frame) == ROWS


def test_few_categories_are_listed():
    inferred = infer(table(few=["NO", "1", "a b"] * 80, many=[f"city {row % 110}" for row in range(ROWS)]))
    assert inferred.schema.columns["few"].values == ("1", "NO", "a b")
    assert inferred.schema.columns["many"].values is None
    assert "110 categories are not listed" in findings_about(inferred, "many")


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        pytest.param([0.0, 42.57], 0, 86, id="not below zero"),
        pytest.param([-9.0, -3.0], -15, 0, id="not above zero"),
        pytest.param([-9.94, 78.08], -98, 167, id="on both sides of zero"),
        pytest.param([983.8, 1042.1], 925, 1101, id="far from zero"),
        pytest.param([5.0, 5.0], 0, 10, id="constant"),
        pytest.param([0.0, 0.0], 0, 1, id="zero"),
        pytest.param([0.001, 0.004], 0, 0.007, id="small"),
        pytest.param([1.0, np.inf, np.nan, 3.0], 0, 5, id="infinite values do not count"),
        pytest.param([np.nan, np.inf], None, None, id="no finite value"),
        pytest.param([5e-324, 5e-324], None, None, id="subnormal numbers"),
    ],
)
def test_bounds_leave_room_for_new_values(values, low, high):
    assert propose_bounds(np.array(values)) == (low, high)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_bounds_contain_the_observed_values_and_keep_their_sign(values):
    low, high = propose_bounds(np.array(values, dtype=np.float64))
    assert low is None or low <= min(values)
    assert high is None or high >= max(values)
    assert low is None or min(values) < 0 or low >= 0
    assert high is None or max(values) > 0 or high <= 0 or set(values) == {0.0}


TARGETS = [
    pytest.param(NOISE, "regression", None, id="floats"),
    pytest.param(RNG.poisson(3, ROWS), "regression", None, id="a count, with its rare tail"),
    pytest.param(np.arange(ROWS) % 5 * 10, "regression", None, id="few integers that are not numbered"),
    pytest.param([Decimal("1.5"), Decimal("2.5"), Decimal("3.5")] * 80, "regression", None, id="decimals"),
    pytest.param([0.5, 1.5] * 120, "regression", None, id="two numbers with a fraction"),
    pytest.param([True, False] * 120, "binary", (False, True), id="booleans"),
    pytest.param([1, 0] * 120, "binary", (0, 1), id="0 and 1"),
    pytest.param([1.0, 0.0] * 120, "binary", (0, 1), id="0 and 1 as floats"),
    pytest.param([2, 1] * 120, "binary", (1, 2), id="1 and 2"),
    pytest.param(["Yes", "no"] * 120, "binary", ("no", "Yes"), id="the positive text is second"),
    pytest.param(["Y", "n"] * 120, "binary", ("n", "Y"), id="the positive initial is second"),
    pytest.param(["b", "a"] * 120, "binary", ("a", "b"), id="other texts are sorted"),
    pytest.param(["1", "0"] * 120, "binary", ("0", "1"), id="digits as texts stay texts"),
    pytest.param(["c", "NO", "a"] * 80, "multiclass", ("NO", "a", "c"), id="three texts"),
    pytest.param(np.arange(ROWS) % 4 + 1, "multiclass", (1, 2, 3, 4), id="numbered classes"),
    pytest.param(pd.Categorical([0, 1, 2] * 80), "multiclass", (0, 1, 2), id="categories keep their type"),
]


@pytest.mark.parametrize(("values", "task", "classes"), TARGETS)
def test_task_follows_from_the_target(values, task, classes):
    frame = table(y=values)
    inferred = infer(frame)
    assert (inferred.schema.target.task, inferred.schema.target.classes) == (task, classes)
    assert [type(label) for label in inferred.schema.classes] == [type(label) for label in classes or ()]
    assert task in findings_about(inferred, "target")
    dataframes.check_frame(frame, inferred.schema)


def test_classes_with_few_rows_are_reported():
    assert "c (4 rows)" in findings_about(infer(table(y=["a", "b"] * 118 + ["c"] * 4)), "target")


TIMES = [
    pytest.param({"day": DAYS}, None, "day", "only datetime", id="the only one"),
    pytest.param(
        {"day": DAYS, "due": DAYS[::-1]}, None, None, "day, due could each order the rows", id="two, none named"
    ),
    pytest.param({"day": DAYS, "due": DAYS[::-1]}, "due", "due", "due orders", id="two, one named"),
    pytest.param({"day": [None, *DAYS[1:]]}, None, None, "missing in 1 rows", id="not in every row"),
    pytest.param({"day": [DAYS[0], DAYS[1]] * 120}, None, None, "single day", id="a single day"),
    pytest.param({"day": [DAYS[0]] * 200 + [*DAYS[200:]]}, None, None, "first moment", id="most rows at once"),
    pytest.param({"day": DAYS.astype(str)}, None, "day", "only datetime", id="as texts"),
    pytest.param({}, None, None, "no datetime", id="none"),
]


@pytest.mark.parametrize(("columns", "given", "expected", "message"), TIMES)
def test_time_column_must_order_the_rows(columns, given, expected, message):
    inferred = infer(table(**columns), time=given)
    assert inferred.schema.time == expected
    assert message in findings_about(inferred, "time")


IDS = [f"id {row}" for row in range(ROWS)]
TWELVE = [f"c{row % 12}" for row in range(ROWS)]
TWENTY = [f"d{row // 12}" for row in range(ROWS)]
KEYS = [
    pytest.param({"c": TWELVE, "d": TWENTY, "id": IDS}, ("id",), id="a unique text"),
    pytest.param({"c": TWELVE, "d": TWENTY, "n": range(ROWS)}, ("n",), id="a number that counts the rows"),
    pytest.param({"c": TWELVE, "day": DAYS}, ("day",), id="the datetime"),
    pytest.param({"b": ["q", "r"] * 120, "c": TWELVE, "d": TWENTY}, ("c", "d"), id="two columns together"),
    pytest.param({"c": TWELVE, "d": [None, *TWENTY[1:]]}, (), id="not one that is missing in a row"),
    pytest.param({"n": RNG.permutation(ROWS)}, (), id="not unsorted numbers"),
]


@pytest.mark.parametrize(("columns", "key"), KEYS)
def test_key_is_the_smallest_that_identifies_each_row(columns, key):
    frame = table(**columns)
    inferred = infer(frame)
    assert inferred.schema.key == key
    assert ", ".join(key) in findings_about(inferred, "key")
    assert len(dataframes.check_frame(frame, inferred.schema).frame) == ROWS


def test_given_key_with_duplicates_drops_them():
    frame = table(c=TWELVE)
    inferred = infer(frame, key=["c"])
    assert (inferred.schema.key, inferred.schema.duplicates) == (("c",), "drop")
    assert "228 rows have the c of an earlier row" in findings_about(inferred, "key")
    assert len(dataframes.check_frame(frame, inferred.schema).frame) == 12


BINARY = RNG.random(ROWS) > 0.7
NUMBERED = RNG.integers(0, 3, ROWS)
LEAKS = [
    pytest.param(NOISE, {"leak": NOISE * 3 + 1}, id="the target on another scale"),
    pytest.param(NOISE, {"leak": -np.exp(NOISE)}, id="monotone, but not linear"),
    pytest.param(np.abs(NOISE), {"leak": NOISE}, id="not even monotone"),
    pytest.param(BINARY, {"leak": np.where(BINARY, "paid", "open")}, id="a category for each class"),
    pytest.param(BINARY, {"leak": np.where(BINARY, NOISE, np.nan)}, id="missing in one class"),
    pytest.param(BINARY, {"leak": pd.Series(DAYS).where(BINARY)}, id="a date in one class"),
    pytest.param(NUMBERED, {"leak": np.array(["p", "q", "r"])[NUMBERED]}, id="the names of the classes"),
    pytest.param(RNG.permutation(ROWS) % 12 * 1.5, {}, id="no leak"),
]


@pytest.mark.parametrize(("y", "columns"), LEAKS)
def test_leaking_column_is_no_feature(y, columns):
    frame = table(y=y, **columns)
    inferred = infer(frame)
    assert [name for name, column in inferred.schema.columns.items() if not column.feature] == list(columns)
    assert [name for name in columns if "suspected leak" in findings_about(inferred, name)] == list(columns)
    dataframes.check_frame(frame, inferred.schema)


USELESS = [
    pytest.param([4] * ROWS, "constant", id="constant"),
    pytest.param([None] * ROWS, "all its values are missing", id="no value"),
    pytest.param([np.nan] * ROWS, "all its values are missing", id="only NaN"),
    pytest.param(range(100, 100 + ROWS), "counts the rows", id="an id"),
    pytest.param("x", "the same as x", id="a copy"),
]


@pytest.mark.parametrize(("values", "reason"), USELESS)
def test_useless_column_stays_but_is_no_feature(values, reason):
    frame = table()
    frame["c"] = frame["x"] if isinstance(values, str) else values
    inferred = infer(frame)
    assert not inferred.schema.columns["c"].feature
    assert reason in findings_about(inferred, "c")
    assert reason in inferred.notes["c"]
    dataframes.check_frame(frame, inferred.schema)


def test_suspected_leak_is_a_feature_if_it_is_the_only_one():
    inferred = infer(pd.DataFrame({"y": NOISE, "leak": NOISE * 2}))
    assert inferred.schema.columns["leak"].feature


def test_name_similar_to_the_target_is_only_reported():
    inferred = infer(table().rename(columns={"y": "price", "x": "Price_class"}), target="price")
    assert inferred.schema.columns["Price_class"].feature
    assert "target's name" in findings_about(inferred, "Price_class")


def test_unsupported_types_are_left_out_and_reported():
    frame = table(nested=[[1, 2]] * ROWS, wait=pd.to_timedelta(range(ROWS), unit="h"))
    inferred = infer(frame)
    assert list(inferred.schema.columns) == ["x"]
    assert inferred.schema.extra == "drop"
    assert "left out" in findings_about(inferred, "nested")
    assert "left out" in findings_about(inferred, "wait")
    dataframes.check_frame(frame, inferred.schema)


@pytest.mark.parametrize("value", [pytest.param(np.inf, id="infinite"), pytest.param(1e300, id="beyond float32")])
def test_infinite_values_are_reported(value):
    inferred = infer(table(c=[value, *NOISE[:0:-1]]))
    assert "in 1 rows; every job REFUSES the table" in findings_about(inferred, "c")
    assert inferred.schema.columns["c"].max < 100


def test_column_names_are_converted_to_text():
    inferred = infer(pd.DataFrame({"y": NOISE, 7: NOISE[::-1]}))
    assert list(inferred.schema.columns) == ["7"]


REFUSED = [
    pytest.param(table().head(0), {}, "table is empty", id="no rows"),
    pytest.param(pd.DataFrame(), {}, "table is empty", id="no columns"),
    pytest.param(table(), {"target": "yy"}, "did you mean y?", id="no such target"),
    pytest.param(table(), {"time": "day"}, "day: the time is not a column", id="no such time"),
    pytest.param(table(), {"time": "x"}, "numeric, not a datetime", id="a time that is not a datetime"),
    pytest.param(table(day=[None, *DAYS[1:]]), {"time": "day"}, "missing in 1 rows", id="a time with missing values"),
    pytest.param(table(), {"time": "y"}, "is the target", id="the target as time"),
    pytest.param(table(), {"key": ["id"]}, "id: the key is not a column", id="no such key"),
    pytest.param(table(), {"key": ["y"]}, "is the target", id="the target as key"),
    pytest.param(table(), {"key": ["x", "x"]}, "names a column twice", id="a key with a column twice"),
    pytest.param(table(c=[[1]] * ROWS), {"key": ["c"]}, "cannot be read", id="a key that cannot be read"),
    pytest.param(table(c=1, y=[1.5] * 239 + [2.5]), {"key": ["c"]}, "one target", id="a key that leaves one row"),
    pytest.param(table(y=[1.0] * ROWS), {}, "constant", id="a constant target"),
    pytest.param(table(y=[None, *NOISE[1:]]), {}, "missing in 1 of 240 rows", id="a target with missing values"),
    pytest.param(table(y=[np.inf, *NOISE[1:]]), {}, "infinite in 1 rows", id="an infinite target"),
    pytest.param(table(y=DAYS), {}, "is a date", id="a date as target"),
    pytest.param(table(y=IDS), {}, "240 different values", id="a target of unique texts"),
    pytest.param(table(y=[[1], [2]] * 120), {}, "cannot be read", id="a target that cannot be read"),
    pytest.param(table()[["y"]], {}, "no other column", id="only the target"),
    pytest.param(table(x=1, id=IDS), {}, "x: it is constant", id="no feature"),
    pytest.param(pd.DataFrame({1: NOISE, "1": NOISE, "y": NOISE}), {}, "twice", id="two columns of one name"),
    pytest.param(table(y=["true", True] * 120), {}, "constant", id="labels with the same text"),
]


@pytest.mark.parametrize(("frame", "given", "message"), REFUSED)
def test_unsuitable_table_is_refused_with_the_reason(frame, given, message):
    with pytest.raises(DataError, match=message):
        infer(frame, **given)


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
VALUES = [
    st.floats(width=32, allow_infinity=False),
    st.integers(-(2**40), 2**40),
    st.integers(0, 3),
    st.booleans(),
    TEXT,
    st.sampled_from(["NO", "1", "1e5", "2024-01-01", ""]),
    st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1)),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.dates(),
    st.none(),
    st.one_of(TEXT, st.integers(0, 5), st.booleans()),
    st.lists(st.integers(), max_size=1),
    st.decimals(-5, 5, places=2),
    st.timedeltas(),
]


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    rows = draw(st.integers(2, 25))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=rows, max_size=rows))

    target = column(draw(st.sampled_from([st.floats(-5, 5, width=32), st.integers(0, 3), st.sampled_from("abc")])))
    names = draw(st.lists(TEXT.filter(lambda name: name != "y"), min_size=1, max_size=4, unique=True))
    kinds = [draw(st.sampled_from(VALUES)) for _ in names]
    features = [column(values | st.none() if draw(st.booleans()) else values) for values in kinds]
    return pd.DataFrame({"y": target} | dict(zip(names, features, strict=True)))


@given(tables())
@settings(max_examples=150, deadline=None)
def test_inferred_schema_accepts_its_table_or_the_table_is_refused(frame):
    try:
        inferred = infer(frame)
    except DataError:
        return
    with_lags = dataframes.add_lag_columns(frame, inferred.schema)
    assert len(dataframes.check_frame(with_lags, inferred.schema).frame) == len(frame)
