"""Rules between the columns of a row: violations are dropped or refused."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.schemas import TableSchema
from model_name.errors import DataError

COLUMNS = {
    "low": {"kind": "numeric", "nullable": True},
    "high": {"kind": "numeric", "nullable": True},
    "net price": {"kind": "numeric"},
    "is_open": {"kind": "boolean"},
    "start": {"kind": "datetime", "nullable": True},
    "end": {"kind": "datetime", "nullable": True},
    "paid": {"kind": "numeric", "feature": False},
    "region": {"kind": "category"},
}


def schema(holds: str, otherwise: str = "refuse") -> TableSchema:
    rules = [{"holds": holds, "otherwise": otherwise}]
    target = {"name": "y", "task": "regression"}
    return TableSchema.model_validate({"name": "t", "target": target, "columns": COLUMNS, "rules": rules})


def table(**changes: object) -> pd.DataFrame:
    """Make three rows with low < high and start < end, and replace some columns."""
    days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"])
    values = {"low": [1.0, 2.0, 3.0], "high": [4.0, 5.0, 6.0], "net price": 7.0, "is_open": True}
    values |= {"start": days, "end": days + pd.Timedelta("1h"), "paid": 1.0, "region": "a", "y": [1.0, 2.0, 3.0]}
    return pd.DataFrame(values | changes)


RULES = [
    pytest.param("low < high", {"low": [1.0, 4.0, 7.0], "high": [4.0] * 3}, [1, 0, 0], id="<"),
    pytest.param("low <= high", {"low": [1.0, 4.0, 7.0], "high": [4.0] * 3}, [1, 1, 0], id="<="),
    pytest.param("low > high", {"low": [1.0, 4.0, 7.0], "high": [4.0] * 3}, [0, 0, 1], id=">"),
    pytest.param("low >= high", {"low": [1.0, 4.0, 7.0], "high": [4.0] * 3}, [0, 1, 1], id=">="),
    pytest.param("low == high", {"low": [1.0, 4.0, 7.0], "high": [4.0] * 3}, [0, 1, 0], id="=="),
    pytest.param("low != high", {"low": [1.0, 4.0, 7.0], "high": [4.0] * 3}, [1, 0, 1], id="!="),
    pytest.param("low >= 2.5", {}, [0, 0, 1], id="a number"),
    pytest.param("low > -1e3", {}, [1, 1, 1], id="a negative number with an exponent"),
    pytest.param(
        "low < high", {"low": [9.0, np.nan, 9.0], "high": [1.0, 1.0, np.nan]}, [0, 1, 1], id="a missing value"
    ),
    pytest.param("start < end", {"end": pd.to_datetime(["2023-01-01", "2024-02-01", None])}, [0, 1, 1], id="datetimes"),
    pytest.param("net price < low", {"low": [6.0, 8.0, 9.0]}, [0, 1, 1], id="a name of two words"),
    pytest.param("is_open == 1", {"is_open": [True, False, True]}, [1, 0, 1], id="a boolean"),
    pytest.param("paid >= low", {}, [1, 0, 0], id="a column that is no feature"),
]


@pytest.mark.parametrize(("holds", "changes", "kept"), RULES)
def test_violating_rows_are_dropped_and_counted(holds, changes, kept):
    rule_schema = schema(holds, "drop")
    rows, violations = table(**changes), 3 - sum(kept)
    if violations == 2:  # a table of one row has a constant target
        rows = pd.concat([rows, rows.assign(y=9.0)], ignore_index=True)
    checked = dataframes.check_frame(rows, rule_schema)
    assert list(checked.frame.index[checked.frame.index < 3]) == list(np.flatnonzero(kept))
    times = len(rows) // 3
    messages = [f"{violations * times} of {len(rows)} rows dropped: {holds} does not hold"] if violations else []
    assert checked.report.messages() == messages


def test_refusal_names_column_and_row():
    with pytest.raises(DataError, match=r"low, row 1: low <= high does not hold; low, row 2"):
        dataframes.check_frame(table(low=[1.0, 9.0, 9.0]), schema("low <= high"))


@pytest.mark.parametrize("otherwise", ["refuse", "drop"])
def test_request_with_a_violating_row_is_refused(otherwise):
    rule_schema = schema("low <= high", otherwise)
    request = table(low=[1.0, 9.0, 1.0])[list(rule_schema.inputs)]
    with pytest.raises(DataError, match="low, row 1: low <= high does not hold"):
        rule_schema.check_request({name: request[name].to_numpy() for name in request})


def test_request_without_the_column_is_not_checked():
    rule_schema = schema("paid >= low")
    request = table()[list(rule_schema.inputs)]
    assert len(rule_schema.check_request({name: request[name].to_numpy() for name in request})["low"]) == 3


def test_rules_apply_to_clipped_values():
    columns = COLUMNS | {"low": {"kind": "numeric", "max": 3, "out_of_bounds": "clip"}}
    rule_schema = schema("low <= high").model_dump() | {"columns": columns}
    checked = dataframes.check_frame(table(low=[1.0, 99.0, 3.0]), TableSchema.model_validate(rule_schema))
    assert len(checked.frame) == 3


INVALID = [
    pytest.param("low<high", "is not of the form", id="no spaces"),
    pytest.param("low", "is not of the form", id="no comparison"),
    pytest.param("low = high", "is not of the form", id="a single equals sign"),
    pytest.param("low =< high", "is not of the form", id="a reversed operator"),
    pytest.param("< high", "is not of the form", id="no left side"),
    pytest.param("low < ", "is not of the form", id="no right side"),
    pytest.param("low < low", "compares with nothing", id="a column with itself"),
    pytest.param("low < nan", "compares with nothing", id="not a number"),
    pytest.param("low < inf", "compares with nothing", id="infinity"),
    pytest.param("low <= hihg", "hihg is not a column; did you mean high", id="an unknown column"),
    pytest.param("low <= high <= paid", "high <= paid is not a column", id="two comparisons at once"),
    pytest.param("region == low", "region is not a numeric or datetime column", id="a category"),
    pytest.param("y > low", "y is the target; rules look at the other columns alone", id="the target"),
    pytest.param("start < high", "compares a datetime with a number", id="a datetime and a number"),
    pytest.param("start > 2020", "compares a datetime with a number", id="a datetime and a year"),
]


@pytest.mark.parametrize(("holds", "message"), INVALID)
def test_invalid_rule_is_refused(holds, message):
    with pytest.raises(ValidationError, match=message):
        schema(holds)
