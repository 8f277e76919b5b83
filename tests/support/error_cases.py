"""Invalid values that every protocol refuses, with the reasons."""

from __future__ import annotations

import pytest

NOT_A_CATEGORY = "'west' is not one of its categories"


BAD_VALUES = [
    pytest.param("area", "wide", "area: not a number", id="a text for a number"),
    pytest.param("area", "61.5", "area: not a number", id="a quoted number"),
    pytest.param("area", True, "area: not a number", id="a boolean for a number"),
    pytest.param("area", [61.5], "area: not a number", id="a list for a number"),
    pytest.param("area", None, "area: is missing", id="null in a column that is not nullable"),
    pytest.param("area", float("nan"), "area: not a number", id="NaN, which is not JSON"),
    pytest.param("age", float("-inf"), "age: not a number", id="Infinity, which is not JSON"),
    pytest.param("area", 501, "area: 501.0 is above 500.0", id="above the bound"),
    pytest.param("area", -1, "area: -1.0 is below 0.0", id="below the bound"),
    pytest.param("age", 1e300, "age: 1e+300 is too large for float32", id="beyond float32"),
    pytest.param("district", "west", f"district: {NOT_A_CATEGORY}", id="an unseen category that is refused"),
    pytest.param("district", ["east"], "district: not a text", id="a list for a category"),
    pytest.param("heating", float("nan"), "heating: not a text", id="NaN for a category"),
    pytest.param("is_let", "yes", "is_let: not a boolean", id="a text for a boolean"),
    pytest.param("is_let", 2, "is_let: not a boolean", id="2 for a boolean"),
    pytest.param("sold", "soon", "sold: not a date and time (ISO 8601)", id="a text for a datetime"),
    pytest.param("sold", 20250307, "sold: not a date and time (ISO 8601)", id="a number for a datetime"),
]


ALL = ("area", "age", "district", "heating", "is_let", "sold")
BAD_TENSORS = [
    pytest.param({"area": None}, "area: column is missing", id="a missing tensor"),
    pytest.param(
        dict.fromkeys(ALL), "area: column is missing (and age, district, heating, is_let, sold)", id="no tensor"
    ),
    pytest.param(
        {"again": {"name": "area", "shape": [3], "datatype": "FP64", "data": [1.0] * 3}},
        "area: comes twice",
        id="a tensor that comes twice",
    ),
    pytest.param(
        {"rent": {"shape": [3], "datatype": "FP64", "data": [1.0] * 3}},
        "rent: is not a column of flats",
        id="an extra tensor",
    ),
    pytest.param(
        {"price": {"shape": [3], "datatype": "FP64", "data": [1.0] * 3}},
        "price: is the target; a request must not carry it",
        id="the target",
    ),
    pytest.param(
        {"area": {"shape": [1, 3]}}, "area: has shape [1, 3], the shape of a column is [n] or [n, 1]", id="1 x n"
    ),
    pytest.param({"area": {"shape": [3, 1, 1]}}, "area: has shape [3, 1, 1], the shape of", id="three dimensions"),
    pytest.param({"area": {"shape": []}}, "area: has shape [], the shape of", id="no dimension"),
    pytest.param({"area": {"shape": [-3]}}, "area: has shape [-3], the shape of", id="a negative size"),
    pytest.param({"area": {"shape": [4]}}, "area: has 3 values where its shape [4] says 4", id="too few values"),
    pytest.param({"area": {"shape": [2]}}, "area: has 3 values where its shape [2] says 2", id="too many values"),
    pytest.param({"area": {"data": []}}, "area: the data are not FP64 of shape [3]", id="no values"),
    pytest.param({"area": {"shape": [0], "data": []}}, "area: the request holds no row", id="no row"),
    pytest.param(
        {"area": {"shape": [2], "data": [61.5, 8.0]}},
        "columns differ in length: {'area': 2, 'age': 3",
        id="tensors of different lengths",
    ),
    pytest.param(
        {"area": {"datatype": "BYTES", "data": ["1", "2", "3"]}},
        "area: BYTES is not a datatype of a numeric column; these are: FP64, ",
        id="BYTES for a number",
    ),
    pytest.param(
        {"area": {"datatype": "BOOL", "data": [True, True, False]}},
        "area: BOOL is not a datatype of a numeric column",
        id="BOOL for a number",
    ),
    pytest.param(
        {"district": {"datatype": "FP64", "data": [1.0, 2.0, 3.0]}},
        "district: FP64 is not a datatype of a category column",
        id="FP64 for a category",
    ),
    pytest.param(
        {"sold": {"datatype": "INT64", "data": [1, 2, 3]}},
        "sold: INT64 is not a datatype of a datetime column; these are: BYTES",
        id="INT64 for a datetime",
    ),
    pytest.param({"area": {"data": [61.5, float("nan"), 8.0]}}, "area, row 1: ", id="NaN where nothing may be missing"),
    pytest.param({"area": {"data": [1.0, float("inf"), 8.0]}}, "area, row 1: ", id="infinity"),
    pytest.param(
        {"sold": {"data": ["2025-03-07", "2025-03-08", ""]}},
        "sold, row 2: is missing",
        id="the empty text where nothing may be missing",
    ),
]
