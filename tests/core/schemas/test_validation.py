"""Validation of typed columns: missing values, bounds and categories."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas import TableSchema
from model_name.core.schemas.validation import CheckReport, ValidationIssues
from model_name.errors import DataError

NAN = float("nan")


def one_column(**column) -> TableSchema:
    """Make a schema with the single input `x`."""
    target = {"name": "y", "task": "regression"}
    return TableSchema.model_validate({"name": "t", "target": target, "columns": {"x": column}})


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


def test_reports_of_batches_add_up():
    first = CheckReport(rows=10, kept=8, dropped={"a": 2}, clipped={"x": 1}, ignored=("z",))
    first.add(CheckReport(rows=5, kept=4, dropped={"a": 1, "b": 1}, unseen={"g": 3}, ignored=("z", "w")))
    expected = CheckReport(15, 12, dropped={"a": 3, "b": 1}, clipped={"x": 1}, unseen={"g": 3}, ignored=("z", "w"))
    assert first == expected
    assert "column w is not in the schema and was dropped" in first.messages()
