"""Form of a model: one control per input, filled with an example."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from model_name.core.schemas.columns import Column, label_text
from model_name.serving.bundle import Manifest
from model_name.serving.openapi.column_schemas import describe_bounds
from model_name.serving.openapi.examples import known_categories, public_example

InputType = Literal["number", "select", "text", "datetime"]

MAX_OPTIONS = 50  # of a select; with more, a text field with suggestions is quicker to use
MAX_SUGGESTIONS = 1000  # so that the page stays small


@dataclass(frozen=True)
class Option:
    """An option of a select.

    Attributes:
        value: Value that is sent.
        label: Text that is shown.
        is_selected: Whether the example has this value.
    """

    value: Any
    label: str
    is_selected: bool


@dataclass(frozen=True)
class Field:
    """A form field.

    Attributes:
        id: HTML id of the control.
        name: Name of the input.
        input_type: Kind of control.
        hint: Help text on the values that are accepted.
        description: Description of the column.
        text: Initial text; empty for a select.
        options: Options of a select.
        suggestions: Suggested values of a text.
        minimum: Smallest value of a number.
        maximum: Largest value of a number.
        accepts_empty: Whether an empty text is a category, rather than a missing value.
    """

    id: str
    name: str
    input_type: InputType
    hint: str
    description: str
    text: str = ""
    options: tuple[Option, ...] = ()
    suggestions: tuple[str, ...] = ()
    minimum: str | None = None
    maximum: str | None = None
    accepts_empty: bool = False


def form_fields(manifest: Manifest) -> list[Field]:
    """Build the fields of the form, one per input."""
    return [
        form_field(f"f{position}", name, manifest.table.columns[name], value, known_categories(manifest, name))
        for position, (name, value) in enumerate(public_example(manifest).items())
    ]


def form_field(field_id: str, name: str, column: Column, value: Any, known: tuple[str, ...]) -> Field:
    """Build the field of one input.

    Args:
        field_id: HTML id of the control.
        name: Name of the input.
        column: Column of the table schema.
        value: Initial value, from the example.
        known: Categories of the column that may be published.
    """
    blank = Field(field_id, name, "text", help_text(column, known), column.description)
    match column.kind:
        case "numeric":
            is_bound = column.out_of_bounds != "clip"
            low, high = (number_text(bound) if is_bound else None for bound in (column.min, column.max))
            return replace(blank, input_type="number", text=number_text(value) or "", minimum=low, maximum=high)
        case "boolean":
            return replace(blank, input_type="select", options=select_options((True, False), column, value))
        case "datetime":
            return replace(blank, input_type="datetime", text=datetime_text(value))
    if 0 < len(known) <= MAX_OPTIONS:
        return replace(blank, input_type="select", options=select_options(known, column, value))
    text = "" if value is None else str(value)
    accepts_empty = "" in known and not column.nullable
    return replace(blank, text=text, suggestions=known[:MAX_SUGGESTIONS], accepts_empty=accepts_empty)


def select_options(values: tuple[Any, ...], column: Column, selected: Any) -> tuple[Option, ...]:
    """Build the options of a select; the value of the example is appended if it is not among `values`."""
    missing = (None,) if column.nullable or selected is None else ()
    other = () if selected is None or selected in values else (selected,)
    return tuple(Option(value, option_label(value), value == selected) for value in (*missing, *values, *other))


def option_label(value: Any) -> str:
    """Return the text that is shown for a value."""
    if value is None:
        return "(missing)"
    return label_text(value) or "(empty text)"


def help_text(column: Column, known: tuple[str, ...]) -> str:
    """Describe the values that are accepted, as far as the control itself does not show them."""
    parts = []
    is_select = column.kind == "boolean" or (column.kind == "category" and 0 < len(known) <= MAX_OPTIONS)
    if column.min is not None or column.max is not None:
        parts.append(describe_bounds(column) + (", else clipped" if column.out_of_bounds == "clip" else ""))
    if column.kind == "category" and len(known) > MAX_OPTIONS:
        parts.append(f"one of {len(known):,}")
    if column.nullable and not is_select:
        parts.append("empty if missing")
    return "; ".join(parts)


def number_text(value: Any) -> str | None:
    """Format a number for an input element; None stays None."""
    return None if value is None else repr(float(value)).removesuffix(".0")


def datetime_text(value: Any) -> str:
    """Format a datetime for an input element: to the millisecond and without offset; empty if it is not a datetime."""
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return ""
    precision = "milliseconds" if parsed.microsecond else "seconds"
    return parsed.replace(tzinfo=None).isoformat(timespec=precision)
