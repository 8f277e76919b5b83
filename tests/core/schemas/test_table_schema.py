import json
from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.columns import Column, label_text
from model_name.core.schemas.strict_models import did_you_mean
from model_name.core.schemas.validation import CheckReport, ValidationIssues
from model_name.errors import DataError

NAN, NAT = float("nan"), np.datetime64("NaT")


def one_column(**column) -> TableSchema:
    """Make a schema with the single input `x`."""
    target = {"name": "y", "task": "regression"}
    return TableSchema.model_validate({"name": "t", "target": target, "columns": {"x": column}})


def datetimes(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


@pytest.mark.parametrize(
    ("kind", "raw", "expected"),
    [
        pytest.param("numeric", [1, 2.5, None, np.float32(3)], [1.0, 2.5, NAN, 3.0], id="JSON numbers"),
        pytest.param("numeric", [Decimal("1.5"), pd.NA], [1.5, NAN], id="decimals and pandas NA"),
        pytest.param("numeric", np.array([1, 2], dtype=np.uint8), [1.0, 2.0], id="an array of integers"),
        pytest.param("numeric", np.array([1, NAN], dtype=np.float32), [1.0, NAN], id="an array of floats"),
        pytest.param("numeric", np.array([], dtype=np.int64), [], id="an empty array"),
        pytest.param("category", ["a", None, NAN, pd.NA], ["a", None, None, None], id="texts and missing ones"),
        pytest.param(
            "category", [1, 1.0, 1.5, True, b"a"], ["1", "1", "1.5", "true", "a"], id="values with one canonical text"
        ),
        pytest.param("category", np.array(["a", "b"]), ["a", "b"], id="an array of texts"),
        pytest.param("category", np.array([True, False]), ["true", "false"], id="an array of booleans as texts"),
        pytest.param("text-id", ["x", 7, None], ["x", "7", None], id="ids"),
        pytest.param("boolean", [True, False, None, 1, 0.0], [1.0, 0.0, NAN, 1.0, 0.0], id="booleans and 0 and 1"),
        pytest.param("boolean", np.array([True, False]), [1.0, 0.0], id="an array of booleans"),
        pytest.param("boolean", np.array([1, 0]), [1.0, 0.0], id="an array of 0 and 1"),
        pytest.param(
            "datetime",
            [
                "2024-01-02",
                "2024-01-02T03:04:05",
                "2024-01-02T03:00:00+02:00",
                "2024-01-02T03:00:00Z",
                b"2024-01-02",
                None,
            ],
            datetimes("2024-01-02", "2024-01-02T03:04:05", "2024-01-02T01:00", "2024-01-02T03:00", "2024-01-02", "NaT"),
            id="ISO texts, zones taken as UTC",
        ),
        pytest.param(
            "datetime",
            [
                datetime(2024, 1, 2, 3),
                datetime(2024, 1, 2, 3, tzinfo=UTC),
                date(2024, 1, 2),
                pd.Timestamp("2024-01-02T03:00", tz="Europe/Berlin"),
                np.datetime64("2024-01-02", "D"),
                pd.NaT,
            ],
            datetimes("2024-01-02T03:00", "2024-01-02T03:00", "2024-01-02", "2024-01-02T02:00", "2024-01-02", "NaT"),
            id="datetimes of Python, pandas and numpy",
        ),
        pytest.param(
            "datetime",
            np.array(["2024-01-02T03", "NaT"], dtype="datetime64[ns]"),
            datetimes("2024-01-02T03:00", "NaT"),
            id="an array of datetimes",
        ),
    ],
)
def test_raw_values_are_decoded(kind, raw, expected):
    columns = {"x": {"kind": kind, "nullable": True}, "z": {"kind": "numeric"}}  # a schema needs an input besides ids
    raw_schema = {"name": "t", "target": {"name": "y", "task": "regression"}, "columns": columns}
    decoded = TableSchema.model_validate(raw_schema).decode({"x": raw}, names=["x"])["x"]
    expected_values = np.asarray(expected, dtype=decoded.dtype)
    assert decoded.dtype == {"datetime": "datetime64[us]", "category": object, "text-id": object}.get(kind, np.float64)
    np.testing.assert_array_equal(decoded, expected_values)


@pytest.mark.parametrize(
    ("kind", "bad", "reason"),
    [
        pytest.param("numeric", "12", "not a number", id="a number in quotes"),
        pytest.param("numeric", "warm", "not a number", id="a text as a number"),
        pytest.param("numeric", True, "not a number", id="a boolean as a number"),
        pytest.param("numeric", [1], "not a number", id="a list as a number"),
        pytest.param("numeric", np.complex64(1 + 2j), "not a number", id="a complex number"),
        pytest.param("numeric", 10**400, "not a number", id="a number that no float holds"),
        pytest.param("numeric", float("inf"), "inf is not finite", id="infinity"),
        pytest.param("numeric", 1e39, "1e+39 is too large for float32", id="a number that the graph cannot be given"),
        pytest.param("numeric", NAN, "is missing", id="NaN in a column that is not nullable"),
        pytest.param("numeric", None, "is missing", id="null in a column that is not nullable"),
        pytest.param("category", {"a": 1}, "not a text", id="an object as a category"),
        pytest.param("category", b"\xff", "not a text", id="bytes that are not UTF-8"),
        pytest.param("category", None, "is missing", id="a missing category"),
        pytest.param("boolean", "true", "not a boolean", id="a boolean in quotes"),
        pytest.param("boolean", 2, "not a boolean", id="a number other than 0 and 1"),
        pytest.param("datetime", "yesterday", "not a date and time (ISO 8601)", id="a text that is not a datetime"),
        pytest.param("datetime", 1700000000, "not a date and time (ISO 8601)", id="seconds since 1970"),
        pytest.param("datetime", None, "is missing", id="a missing datetime"),
    ],
)
def test_refusal_names_column_row_and_reason(kind, bad, reason):
    schema = one_column(kind=kind)
    good = {"numeric": 1.0, "category": "a", "boolean": True, "datetime": "2024-01-01"}[kind]
    # given a request of one row, the message has no row number
    with pytest.raises(DataError) as single:
        schema.check_request({"x": [bad]})
    assert single.value.message == f"x: {reason}"
    # given several rows, it has one
    with pytest.raises(DataError) as batch:
        schema.check_request({"x": [good, good, good, bad]})
    assert batch.value.message == f"x, row 3: {reason}"


def test_ten_issues_are_listed_and_the_rest_counted():
    with pytest.raises(DataError) as caught:
        one_column(kind="numeric").check_request({"x": ["bad"] * 25})
    assert caught.value.message.count("not a number") == 10
    assert caught.value.message.endswith("; and 15 more")


@pytest.mark.parametrize(
    ("rule", "value", "reason"),
    [
        pytest.param({"max": 60}, 900.0, "x: 900.0 is above 60.0", id="above the bound"),
        pytest.param({"min": 0}, -1, "x: -1.0 is below 0.0", id="below the bound"),
        pytest.param(
            {"max": 60, "out_of_bounds": "drop"},
            900.0,
            "x: 900.0 is above 60.0",
            id="a request is refused instead of dropped",
        ),
        pytest.param({"max": 60}, 1e39, "x: 1e+39 is above 60.0", id="a value far above the bound is reported once"),
        pytest.param(
            {"max": 60, "sensitive": True}, 900.0, "x: the value is above 60.0", id="a sensitive value is not shown"
        ),
    ],
)
def test_request_beyond_the_bounds_is_refused(rule, value, reason):
    with pytest.raises(DataError) as caught:
        one_column(kind="numeric", **rule).check_request({"x": [value]})
    assert caught.value.message == reason


def test_values_beyond_the_bounds_are_clipped_and_counted():
    schema = one_column(kind="numeric", min=0, max=10, out_of_bounds="clip", nullable=True)
    checked, keep, report = schema.check_columns({"x": np.array([-5.0, 5.0, 1e39, NAN])}, may_drop=True)
    np.testing.assert_array_equal(checked["x"], [0.0, 5.0, 10.0, NAN])
    assert keep.all()
    assert report.clipped == {"x": 2}
    assert report.messages() == ["2 values of x clipped to its bounds"]


def test_rows_beyond_the_bounds_are_dropped_and_counted():
    schema = one_column(kind="numeric", min=0, max=10, out_of_bounds="drop")
    _, keep, report = schema.check_columns({"x": np.array([-5.0, 5.0, 1e39, 11.0])}, may_drop=True)
    assert keep.tolist() == [False, True, False, False]
    assert (report.rows, report.kept) == (4, 1)
    assert report.messages() == ["1 of 4 rows dropped: x is below 0.0", "2 of 4 rows dropped: x is above 10.0"]


@pytest.mark.parametrize("nullable", [pytest.param(True, id="nullable"), pytest.param(False, id="not nullable")])
def test_unseen_category_is_counted_and_kept(nullable):
    schema = one_column(kind="category", values=["a", "b"], nullable=nullable)
    checked, keep, report = schema.check_columns({"x": np.array(["a", "z"], dtype=object)}, may_drop=False)
    assert keep.all()
    assert report.messages() == ["1 values of x are unseen categories, taken as missing"]
    # and the result passes the check again
    again, _, _ = schema.check_columns(checked, may_drop=False)
    assert again["x"].tolist() == checked["x"].tolist()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        pytest.param({}, "x: 'z' is not one of its categories", id="shown"),
        pytest.param({"sensitive": True}, "x: the value is not one of its categories", id="sensitive"),
    ],
)
def test_unseen_category_is_refused_if_configured(rule, reason):
    with pytest.raises(DataError) as caught:
        one_column(kind="category", values=["a"], unseen="refuse", **rule).check_request({"x": ["z"]})
    assert caught.value.message == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"size": None}, "size: column is missing", id="a column is missing"),
        pytest.param({"size": None, "flag": None}, "size: column is missing (and flag)", id="two columns are missing"),
        pytest.param({"outcome": [1.0]}, "outcome: is the target; a request must not carry it", id="the target"),
        pytest.param({"other": [1.0]}, "other: is not a column of things", id="an extra column"),
        pytest.param({"size": [1.0, 2.0]}, "columns differ in length: ", id="columns of different lengths"),
    ],
)
def test_request_with_wrong_columns_is_refused(make_schema, make_table, change, reason):
    request = {
        name: [value] for name, value in make_table("regression", rows=1).drop(columns="outcome").iloc[0].items()
    }
    request = {name: values for name, values in (request | change).items() if values is not None}
    with pytest.raises(DataError) as caught:
        make_schema("regression").check_request(request)
    assert caught.value.message.startswith(reason)


def test_request_may_lack_ids_and_carry_dropped_columns(make_schema, make_table):
    row = make_table("regression", rows=1).drop(columns=["outcome", "code"]).iloc[0]
    request = {name: [value] for name, value in row.items()} | {"other": ["x"]}
    checked = make_schema("regression", extra="drop").check_request(request)
    assert list(checked) == ["size", "gap", "group", "mark", "flag", "maybe", "moment"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"kind": "number"}, "'numeric', 'category'", id="a kind that does not exist"),
        pytest.param(
            {"kind": "numeric", "nulable": True},
            "nulable is not a key of Column; did you mean nullable?",
            id="a typing error",
        ),
        pytest.param(
            {"kind": "category", "min": 1}, "min and max belong to numeric columns", id="bounds of a category"
        ),
        pytest.param({"kind": "numeric", "min": 2, "max": 1}, "min 2.0 is above max 1.0", id="bounds that cross"),
        pytest.param({"kind": "numeric", "min": NAN}, "finite number", id="a bound that is no number"),
        pytest.param(
            {"kind": "numeric", "values": ["a"]}, "values belong to category columns", id="categories of a number"
        ),
        pytest.param({"kind": "category", "values": ["a", "a"]}, "names a category twice", id="a category twice"),
        pytest.param({"kind": "category", "values": [1]}, "valid string", id="a category that is no text"),
        pytest.param({"kind": "text-id"}, "no column is a feature", id="only an id"),
        pytest.param({"kind": "numeric", "feature": False}, "no column is a feature", id="no feature"),
    ],
)
def test_error_explains_an_invalid_column(change, reason):
    with pytest.raises(ValidationError, match=reason.replace("?", r"\?")):
        one_column(**change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"time": "size"}, "time: size is not a datetime column", id="time is not a datetime"),
        pytest.param({"time": "when"}, "time: when is not a datetime column", id="unknown time"),
        pytest.param({"key": ["nope"]}, "key: nope is not a column", id="unknown key"),
        pytest.param(
            {"target": {"name": "size", "task": "regression"}}, "is also one of the columns", id="target twice"
        ),
        pytest.param(
            {"target": {"name": "y", "task": "regression", "classes": [1, 2]}},
            "belong to classifications",
            id="classes of a number",
        ),
        pytest.param({"target": {"name": "y", "task": "binary"}}, "needs its classes", id="no classes"),
        pytest.param(
            {"target": {"name": "y", "task": "binary", "classes": [1]}}, "has 2 classes, not 1", id="one class"
        ),
        pytest.param(
            {"target": {"name": "y", "task": "multiclass", "classes": [1, 2]}},
            "at least 3",
            id="two classes of a multiclass target",
        ),
        pytest.param(
            {"target": {"name": "y", "task": "binary", "classes": [1, "1"]}}, "a label twice", id="a label twice"
        ),
        pytest.param({"colums": {}}, "colums is not a key of TableSchema; did you mean columns", id="a typing error"),
    ],
)
def test_error_explains_an_invalid_schema(make_schema, change, reason):
    with pytest.raises(ValidationError, match=reason):
        make_schema("regression", **change)


def test_schema_round_trips_through_yaml_and_json(make_schema, task):
    schema = make_schema(task)
    as_yaml = yaml.safe_dump(schema.model_dump(mode="json", exclude_defaults=True))
    assert TableSchema.model_validate(yaml.safe_load(as_yaml)) == schema
    assert TableSchema.model_validate_json(schema.model_dump_json()) == schema
    assert TableSchema.model_validate(json.loads(schema.model_dump_json())).fingerprint == schema.fingerprint


def changed(schema: TableSchema, name: str, **changes) -> dict:
    raw = schema.model_dump(mode="json")
    raw["columns"][name] |= changes
    return raw


@pytest.mark.parametrize(
    ("change", "is_contract"),
    [
        pytest.param(lambda s: changed(s, "size", kind="boolean"), True, id="another kind"),
        pytest.param(lambda s: changed(s, "size", nullable=True), True, id="another nullability"),
        pytest.param(lambda s: changed(s, "size", feature=False), True, id="one input fewer"),
        pytest.param(
            lambda s: (
                s.model_dump(mode="json") | {"columns": dict(reversed(s.model_dump(mode="json")["columns"].items()))}
            ),
            True,
            id="another order",
        ),
        pytest.param(
            lambda s: s.model_dump(mode="json") | {"target": {"name": "other", "task": "regression"}},
            True,
            id="another target",
        ),
        pytest.param(lambda s: changed(s, "size", description="text"), False, id="description"),
        pytest.param(lambda s: changed(s, "size", sensitive=True), False, id="sensitivity"),
        pytest.param(lambda s: changed(s, "size", min=0.0), True, id="a bound"),
        pytest.param(
            lambda s: s.model_dump(mode="json") | {"name": "other", "duplicates": "drop"},
            False,
            id="name and duplicates",
        ),
    ],
)
def test_fingerprint_changes_only_with_the_contract(make_schema, change, is_contract):
    schema = make_schema("regression")
    assert (TableSchema.model_validate(change(schema)).fingerprint != schema.fingerprint) == is_contract


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (True, "true"),
        (np.False_, "false"),
        (3, "3"),
        (3.0, "3"),
        (np.float32(2.5), "2.5"),
        ("abc", "abc"),
        (b"abc", "abc"),
        (float("inf"), "inf"),
    ],
)
def test_labels_have_one_canonical_text(label, text):
    assert label_text(label) == text


def test_output_columns_are_named_by_class():
    # given probabilities of three rows
    outputs = Outputs.from_scores(np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), (False, True))
    # then the class with the larger probability is predicted, the first one of equals
    assert outputs.prediction.tolist() == [False, True, False]
    assert list(outputs.columns) == ["prediction", "probability_false", "probability_true"]
    assert outputs.columns["probability_true"].tolist() == [0.1, 0.8, 0.5]
    # and a regression has only predictions
    plain = Outputs.from_scores(np.array([[1.0], [2.0]]), ())
    assert list(plain.columns) == ["prediction"]
    assert plain.prediction.tolist() == [1.0, 2.0]


def test_reports_of_batches_add_up():
    first = CheckReport(rows=10, kept=8, dropped={"a": 2}, clipped={"x": 1}, ignored=("z",))
    first.add(CheckReport(rows=5, kept=4, dropped={"a": 1, "b": 1}, unseen={"g": 3}, ignored=("z", "w")))
    expected = CheckReport(15, 12, dropped={"a": 3, "b": 1}, clipped={"x": 1}, unseen={"g": 3}, ignored=("z", "w"))
    assert first == expected
    assert "column w is not in the schema and was dropped" in first.messages()


def test_suggestion_is_the_nearest_word_or_all_words():
    assert did_you_mean("nmae", ["name", "kind"]) == "; did you mean name?"
    assert did_you_mean("zzz", ["name", "kind"]) == "; there are name, kind"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.datetimes() | st.binary(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)


@given(
    kind=st.sampled_from(["numeric", "category", "boolean", "datetime", "text-id"]), values=st.lists(JSON, max_size=5)
)
def test_any_value_is_decoded_or_refused_with_its_location(kind, values):
    column = Column(kind=kind, nullable=True)
    schema = TableSchema.model_validate(
        {
            "name": "t",
            "target": {"name": "y", "task": "regression"},
            "columns": {"x": column.model_dump(), "z": {"kind": "numeric"}},
        }
    )
    refusal = ""
    try:
        decoded = schema.decode({"x": values}, names=["x"])["x"]
    except DataError as err:
        refusal = err.message
    if refusal:
        assert refusal.startswith("x: " if len(values) == 1 else "x, row ")
        return
    assert len(decoded) == len(values)
    again = schema.decode({"x": decoded}, names=["x"])["x"]
    np.testing.assert_array_equal(again, decoded)


@given(st.lists(st.lists(st.integers(0, 50), max_size=20), max_size=4))
def test_every_issue_is_listed_or_counted(columns):
    issues = ValidationIssues()
    for rows in columns:
        issues.add("x", rows, lambda row: "bad", total=100)
    total = sum(map(len, columns))
    if not total:
        issues.raise_if_any()
        assert issues.messages == []
        return
    with pytest.raises(DataError) as caught:
        issues.raise_if_any()
    named = caught.value.message.count(": bad")
    more = (
        int(caught.value.message.rpartition("and ")[2].removesuffix(" more")) if "more" in caught.value.message else 0
    )
    assert named + more == total
