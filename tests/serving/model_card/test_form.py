"""The form has one control per input: its type, initial value and options."""

from typing import Any

import pytest

from model_name.serving.model_card.form import MAX_SUGGESTIONS, Field, form_fields
from tests.support.manifests import manifest_of, table_of

MANY = [f"city {number}" for number in range(3000)]


def field_of(column: dict[str, Any], value: Any) -> Field:
    """Build the field of a column with an initial value."""
    (field,) = form_fields(manifest_of(table_of(columns={"x": column}), {"x": value}))
    return field


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        pytest.param({"kind": "numeric"}, 61.5, {"input_type": "number", "text": "61.5", "hint": ""}, id="a number"),
        pytest.param({"kind": "numeric"}, 3.0, {"text": "3"}, id="a whole number"),
        pytest.param({"kind": "numeric"}, 1e-07, {"text": "1e-07"}, id="a small number"),
        pytest.param(
            {"kind": "numeric", "min": 0, "max": 9.5},
            1.0,
            {"minimum": "0", "maximum": "9.5", "hint": "0 to 9.5"},
            id="a number with bounds",
        ),
        pytest.param(
            {"kind": "numeric", "min": 0, "out_of_bounds": "clip"},
            1.0,
            {"minimum": None, "maximum": None, "hint": "at least 0, else clipped"},
            id="a number that is clipped",
        ),
        pytest.param(
            {"kind": "numeric", "max": 9, "nullable": True},
            None,
            {"text": "", "hint": "at most 9; empty if missing"},
            id="a number that is missing",
        ),
        pytest.param({"kind": "boolean"}, True, {"input_type": "select", "hint": ""}, id="a boolean"),
        pytest.param(
            {"kind": "datetime"},
            "2025-03-07T09:30:00",
            {"input_type": "datetime", "text": "2025-03-07T09:30:00"},
            id="a datetime keeps its seconds",
        ),
        pytest.param(
            {"kind": "datetime"},
            "2025-03-07T09:30:15.123456",
            {"text": "2025-03-07T09:30:15.123"},
            id="a datetime to the millisecond",
        ),
        pytest.param(
            {"kind": "datetime", "nullable": True},
            None,
            {"text": "", "hint": "empty if missing"},
            id="a datetime that is missing",
        ),
        pytest.param({"kind": "datetime"}, "soon", {"text": ""}, id="a text that is not a datetime"),
        pytest.param(
            {"kind": "category", "values": MANY, "nullable": True},
            "city 7",
            {"input_type": "text", "text": "city 7", "hint": "one of 3,000; empty if missing", "accepts_empty": False},
            id="a category of many",
        ),
        pytest.param(
            {"kind": "category", "values": ["", *MANY]},
            "",
            {"input_type": "text", "text": "", "accepts_empty": True},
            id="a category of many, one of them the empty text",
        ),
    ],
)
def test_control_fits_its_column(column: dict[str, Any], value: Any, expected: dict[str, Any]) -> None:
    field = field_of(column, value)
    assert {name: getattr(field, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        pytest.param({"kind": "boolean"}, False, ["true", "*false"], id="a boolean"),
        pytest.param(
            {"kind": "boolean", "nullable": True}, None, ["*(missing)", "true", "false"], id="a nullable boolean"
        ),
        pytest.param({"kind": "category", "values": ["a", "b"]}, "b", ["a", "*b"], id="a category"),
        pytest.param(
            {"kind": "category", "values": ["", "a"], "nullable": True},
            "",
            ["(missing)", "*(empty text)", "a"],
            id="the empty text beside a missing value",
        ),
        pytest.param({"kind": "category", "values": ["a"]}, "z", ["a", "*z"], id="an unknown category"),
        pytest.param({"kind": "category"}, "Oak", ["Elm", "*Oak"], id="learnt categories"),
    ],
)
def test_select_offers_the_accepted_values(column: dict[str, Any], value: Any, expected: list[str]) -> None:
    field = field_of(column, value)
    assert [f"{'*' if option.is_selected else ''}{option.label}" for option in field.options] == expected
    assert [option.value for option in field.options if option.is_selected] == [value]


def test_number_of_suggestions_is_limited() -> None:
    assert field_of({"kind": "category", "values": MANY}, "city 1").suggestions == tuple(MANY[:MAX_SUGGESTIONS])


def test_ignored_columns_have_no_control() -> None:
    names = [field.name for field in form_fields(manifest_of(table_of()))]
    assert names == list(manifest_of(table_of()).table.inputs)
    assert not {"remark", "agent", "price"} & {*names}


def test_sensitive_values_and_learnt_categories_are_not_shown() -> None:
    assert field_of({"kind": "numeric", "sensitive": True, "min": 5}, 77.0).text == "5"
    assert field_of({"kind": "category", "sensitive": True}, "Elm").options == ()
