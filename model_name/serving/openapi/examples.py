"""Example values that documents may publish: never a value of a column that the schema calls sensitive."""

from typing import Any

from model_name.core.schemas.columns import Column
from model_name.serving.bundle import Manifest


def public_example(manifest: Manifest) -> dict[str, Any]:
    """Return the example row of a bundle by input, with placeholders for sensitive values.

    A placeholder is a value that its column accepts; rules between columns are not considered.
    """
    return {
        name: placeholder_value(column) if column.sensitive else manifest.example.get(name)
        for name, column in manifest.table.inputs.items()
    }


def known_categories(manifest: Manifest, name: str) -> tuple[str, ...]:
    """Return the public categories of a column: those of the schema, else the learnt ones unless it is sensitive."""
    column = manifest.table.columns[name]
    if column.values is not None:
        return column.values
    return () if column.sensitive else manifest.features.categories(name)


def placeholder_value(column: Column) -> Any:
    """Return a value that the column accepts and that comes from no row."""
    if column.nullable:
        return None
    match column.kind:
        case "numeric":
            value = 0.0 if column.min is None else max(0.0, column.min)
            return value if column.max is None else min(value, column.max)
        case "boolean":
            return False
        case "datetime":
            return "2000-01-01T00:00:00"
    return column.values[0] if column.values else "text"
