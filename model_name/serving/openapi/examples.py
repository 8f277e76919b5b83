"""What a page or a document may show of the values of a bundle: nothing of what its schema calls sensitive."""

from typing import Any

from model_name.core.schemas.columns import Column
from model_name.serving.bundle import Manifest


def public_example(manifest: Manifest) -> dict[str, Any]:
    """The bundle's example by input, for anybody to see: in the place of a sensitive value stands one that is accepted.

    Rules between columns are not looked at.
    """
    return {
        name: stand_in(column) if column.sensitive else manifest.example.get(name)
        for name, column in manifest.table.inputs.items()
    }


def known_categories(manifest: Manifest, name: str) -> tuple[str, ...]:
    """The categories of a column that anybody may see: those of the schema, else those that were learnt."""
    column = manifest.table.columns[name]
    if column.values is not None:
        return column.values
    return () if column.sensitive else manifest.features.categories(name)


def stand_in(column: Column) -> Any:
    """A value that the schema of a column accepts, and that tells nothing."""
    if column.nullable:
        return None
    match column.kind:
        case "numeric":
            lowest = 0.0 if column.min is None else max(0.0, column.min)
            return lowest if column.max is None else min(lowest, column.max)
        case "boolean":
            return False
        case "datetime":
            return "2000-01-01T00:00:00"
    return column.values[0] if column.values else "text"
