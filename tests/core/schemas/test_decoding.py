"""Decoding of raw values into typed columns."""

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas import Column, TableSchema
from model_name.errors import DataError

NAN, NAT = float("nan"), np.datetime64("NaT")


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
