"""Validation of rows agrees with the validation of columns."""

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_name.core.schemas.fast_validation import FastValidator
from model_name.core.schemas.row_validation import RowValidator, typed_rows_to_columns
from tests.support.manifests import EXAMPLE, table_of

SCHEMA = table_of()
VALID = EXAMPLE | {"seen": EXAMPLE["sold"]}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numeric": st.floats()
    | st.integers(-10, 600)
    | st.integers()
    | st.none()
    | st.sampled_from([10**400, 3.5e38, True, "5"]),
    "boolean": st.booleans() | st.none() | st.sampled_from([0, 1.0, "true"]),
    "category": st.sampled_from(["", "east", "3", "true", "gas", "Elm", "west", None, 3, True]),
    "datetime": st.datetimes().map(lambda moment: moment.isoformat())
    | st.sampled_from(["2025-03-07T09:30Z", "2025-03-07", "", None, "2025-02-30T00:00", "2025-03-07T09:30\n", 5])
    | st.just("2025-03-07T09:30\n2025-03-07T09:30"),
}


@st.composite
def rows(draw: st.DrawFn) -> list[Any]:
    """Generate a few rows of which most values are valid."""
    names = SCHEMA.inputs.items()
    return [
        [draw(st.just(VALID[name]) if draw(st.integers(0, 5)) else VALUES[column.kind]) for name, column in names]
        for _ in range(draw(st.integers(1, 3)))
    ]


@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows())
def test_rows_that_are_accepted_are_accepted_as_columns_with_equal_values(raw: list[Any]) -> None:
    typed = RowValidator(SCHEMA).validate(raw)
    if typed is None:
        return
    by_row = typed_rows_to_columns(typed)
    by_column = FastValidator(SCHEMA).validate(dict(zip(SCHEMA.inputs, map(list, zip(*raw, strict=True)), strict=True)))
    assert by_column is not None
    assert by_row.keys() == by_column.keys()
    for name, values in by_column.items():
        assert by_row[name].dtype == values.dtype, name
        np.testing.assert_array_equal(by_row[name], values)


@pytest.mark.parametrize("number", [1, 3])
def test_valid_rows_are_accepted(number: int) -> None:
    typed = RowValidator(SCHEMA).validate([[VALID[name] for name in SCHEMA.inputs]] * number)
    assert typed is not None
    assert len(typed) == number


@pytest.mark.parametrize(
    "row",
    [
        pytest.param([*VALID.values(), 1], id="a value too many"),
        pytest.param([*VALID.values()][:-1], id="a value too few"),
        pytest.param(VALID, id="an object"),
        pytest.param(None, id="no row"),
    ],
)
def test_rows_of_another_form_are_not_accepted(row: Any) -> None:
    assert RowValidator(SCHEMA).validate([row]) is None


def test_rows_of_a_schema_with_rules_are_not_accepted() -> None:
    schema = table_of(rules=[{"holds": "rooms <= area"}])
    assert RowValidator(schema).validate([[VALID[name] for name in schema.inputs]]) is None
