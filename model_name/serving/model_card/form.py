"""The form of a model: one control an input, filled with an example."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from model_name.core.schemas.columns import Column, label_text
from model_name.serving.bundle import Manifest
from model_name.serving.openapi.examples import known_categories, public_example
from model_name.serving.openapi.json_schema import bounds

Control = Literal["number", "select", "text", "datetime"]

MOST_OPTIONS = 50  # of a select; with more, a text that suggests them is quicker
MOST_SUGGESTED = 1000  # so that the page stays small


@dataclass(frozen=True)
class Option:
    """One choice of a select.

    Attributes:
        value: What is sent.
        label: What is shown.
        is_chosen: Whether it is that of the example.
    """

    value: Any
    label: str
    is_chosen: bool


@dataclass(frozen=True)
class Field:
    """One control.

    Attributes:
        id: Of its element.
        name: The input.
        control: What it is.
        hint: What may be put in.
        description: Of the column.
        text: What is in it at first; none of a select.
        options: Of a select.
        suggestions: Of a text.
        low: Of a number.
        high: Of a number.
        takes_empty: Whether an empty text is one of its values, and not a missing one.
    """

    id: str
    name: str
    control: Control
    hint: str
    description: str
    text: str = ""
    options: tuple[Option, ...] = ()
    suggestions: tuple[str, ...] = ()
    low: str | None = None
    high: str | None = None
    takes_empty: bool = False


def fields(manifest: Manifest) -> list[Field]:
    """The form of a bundle."""
    return [
        field(f"f{position}", name, manifest.table.columns[name], value, known_categories(manifest, name))
        for position, (name, value) in enumerate(public_example(manifest).items())
    ]


def field(place: str, name: str, column: Column, value: Any, known: tuple[str, ...]) -> Field:
    """The control of one input."""
    blank = Field(place, name, "text", hint(column, known), column.description)
    match column.kind:
        case "numeric":
            is_bound = column.out_of_bounds != "clip"
            low, high = (number_text(bound) if is_bound else None for bound in (column.min, column.max))
            return replace(blank, control="number", text=number_text(value) or "", low=low, high=high)
        case "boolean":
            return replace(blank, control="select", options=options((True, False), column, value))
        case "datetime":
            return replace(blank, control="datetime", text=moment_text(value))
    if 0 < len(known) <= MOST_OPTIONS:
        return replace(blank, control="select", options=options(known, column, value))
    text = "" if value is None else str(value)
    takes_empty = "" in known and not column.nullable
    return replace(blank, text=text, suggestions=known[:MOST_SUGGESTED], takes_empty=takes_empty)


def options(values: tuple[Any, ...], column: Column, chosen: Any) -> tuple[Option, ...]:
    """The choices of a select; one of the example that is not among them is added."""
    missing = (None,) if column.nullable or chosen is None else ()
    other = () if chosen is None or chosen in values else (chosen,)
    return tuple(Option(value, option_label(value), value == chosen) for value in (*missing, *values, *other))


def option_label(value: Any) -> str:
    """A choice in words."""
    if value is None:
        return "(missing)"
    return label_text(value) or "(empty text)"


def hint(column: Column, known: tuple[str, ...]) -> str:
    """What may be put into a control, where it does not show."""
    said = []
    is_select = column.kind == "boolean" or (column.kind == "category" and 0 < len(known) <= MOST_OPTIONS)
    if column.min is not None or column.max is not None:
        said.append(bounds(column) + (", else clipped" if column.out_of_bounds == "clip" else ""))
    if column.kind == "category" and len(known) > MOST_OPTIONS:
        said.append(f"one of {len(known):,}")
    if column.nullable and not is_select:
        said.append("empty if missing")
    return "; ".join(said)


def number_text(value: Any) -> str | None:
    """A number as a control holds it; none where there is none."""
    return None if value is None else repr(float(value)).removesuffix(".0")


def moment_text(value: Any) -> str:
    """A datetime as a control holds it: to the millisecond, without an offset; empty where it is none."""
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return ""
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision)
