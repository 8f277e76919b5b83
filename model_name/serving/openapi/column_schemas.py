"""JSON Schema of the values of each input, derived from the table schema.

A description states what JSON Schema cannot express, such as days that do not exist in a month.
"""

import re
from collections.abc import Iterable
from typing import Any

from model_name.core.schemas.columns import FLOAT32_MAX, Column, float32_bounds
from model_name.serving.bundle import Manifest
from model_name.serving.openapi.examples import known_categories

Schema = dict[str, Any]

COMPONENT_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
DATE = r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?"
OFFSET = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
DATETIME = f"^{DATE}([T ]{TIME}{OFFSET}?)?$"
MAX_EXAMPLES = 20  # of the known categories of a column that accepts others as well
INTEGER = re.compile(r"0|-?[1-9][0-9]*")
MAX_DIGITS = 15  # of an integer that JavaScript represents exactly


def column_schemas(manifest: Manifest) -> dict[str, Schema]:
    """Derive the schema of each input, by the name of its component."""
    return {
        component_name(position, name): column_schema(manifest, name)
        for position, name in enumerate(manifest.table.inputs)
    }


def column_ref(position: int, name: str) -> Schema:
    """Reference the schema of an input."""
    return {"$ref": f"#/components/schemas/{component_name(position, name)}"}


def component_name(position: int, name: str) -> str:
    """Name the component of an input after the column, or after its position if the name is not allowed there."""
    return f"column.{name}" if name and COMPONENT_NAME_CHARACTERS.issuperset(name) else f"column-{position}"


def column_schema(manifest: Manifest, name: str) -> Schema:
    """Derive the schema of the values of an input."""
    column = manifest.table.columns[name]
    match column.kind:
        case "numeric":
            schema: Schema = {"type": "number"} | numeric_bounds(column)
        case "boolean":
            schema = {"type": ["boolean", "integer"], "enum": [True, False, 0, 1]}
        case "datetime":
            schema = {"type": "string", "format": "date-time", "pattern": DATETIME}
        case _:
            schema = category_schema(column, known_categories(manifest, name))
    if column.nullable:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*types, "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return {"title": name, "description": describe_column(column)} | schema


def numeric_bounds(column: Column) -> Schema:
    """Bound the numbers that are accepted; a bound at which values are clipped does not reject any."""
    low, high = float32_bounds(column)
    clips_low, clips_high = (
        column.out_of_bounds == "clip" and bound is not None and abs(bound) <= FLOAT32_MAX
        for bound in (column.min, column.max)
    )
    return ({} if clips_low else {"minimum": low}) | ({} if clips_high else {"maximum": high})


def category_schema(column: Column, known: tuple[str, ...]) -> Schema:
    """Derive the schema of a category: a text, or its JSON equivalent (`3` for "3", `true` for "true")."""
    types = ["string", "number", "boolean"]
    if column.values is None or column.unseen == "other":
        return {"type": types} | ({"examples": list(known[:MAX_EXAMPLES])} if known else {})
    allowed = [*column.values, *(value for text in column.values for value in json_equivalents(text))]
    return {"type": types if len(allowed) > len(column.values) else "string", "enum": allowed}


def json_equivalents(text: str) -> Iterable[bool | int]:
    """Yield the JSON values, beside the text itself, that are decoded as a category."""
    if text in ("true", "false"):
        yield text == "true"
    elif len(text) <= MAX_DIGITS and INTEGER.fullmatch(text):
        yield int(text)


def describe_column(column: Column) -> str:
    """Describe a column, including what its schema cannot express."""
    sentences = [column.description.strip()]
    if column.kind == "datetime":
        sentences.append("ISO 8601; with an offset it is converted to UTC, without one it is used unchanged.")
    if column.out_of_bounds == "clip" and (column.min is not None or column.max is not None):
        sentences.append(f"Numbers are clipped to {describe_bounds(column)}.")
    if column.kind == "category" and (column.values is None or column.unseen == "other"):
        sentences.append("An unknown category counts as missing.")
    return " ".join(filter(None, sentences))


def describe_bounds(column: Column) -> str:
    """Describe the bounds of a column: `"0 to 10"`, `"at least 0"` or `"at most 10"`."""
    if column.min is None or column.max is None:
        return f"at most {column.max:g}" if column.min is None else f"at least {column.min:g}"
    return f"{column.min:g} to {column.max:g}"
