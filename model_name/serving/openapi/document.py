"""OpenAPI document of a served model: the template `document.yaml`, filled in with what a bundle decides."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from model_name.serving.bundle import Manifest
from model_name.serving.openapi.column_schemas import column_schemas
from model_name.serving.openapi.examples import public_example
from model_name.serving.openapi.message_schemas import message_schemas
from model_name.serving.protocols.tensors import DATATYPES

Document = dict[str, Any]

TEMPLATE = Path(__file__).with_suffix(".yaml")


def build_document(manifest: Manifest, *, name: str) -> Document:
    """Build the OpenAPI 3.1 document of the REST API of a bundle.

    Formats such as `date-time` are annotations, as OpenAPI 3.1 defines them: the offset of a datetime may be left out.

    Args:
        manifest: Manifest of the bundle.
        name: Name under which the model is served.
    """
    row = public_example(manifest)
    values = message_schemas(manifest) | {
        "name": name,
        "version": manifest.version,
        "semver": manifest.semver,
        "description": describe_model(manifest),
        "example_row": row,
        "example_tensors": [
            {"name": column, "shape": [1], "datatype": datatype(manifest, column), "data": [value]}
            for column, value in row.items()
        ],
    }
    filled: Document = fill(load_template(), {f"${{{placeholder}}}": value for placeholder, value in values.items()})
    filled["paths"] = {path.replace("{name}", quote(name, safe="")): item for path, item in filled["paths"].items()}
    filled["components"]["schemas"] = column_schemas(manifest) | filled["components"]["schemas"]
    return filled


def describe_model(manifest: Manifest) -> str:
    """Describe what the model predicts, and from which table."""
    table = manifest.table
    target = f"{table.target.name} ({table.target.description.strip().rstrip('.')})"
    prediction = f"Predicts {target if table.target.description else table.target.name}: {table.target.task}."
    origin = f"{manifest.kind}, version {manifest.version}, made {manifest.created}."
    return "\n\n".join(filter(None, [table.description.strip(), prediction, origin]))


def datatype(manifest: Manifest, column: str) -> str:
    """Return the preferred datatype of a column in the Open Inference Protocol."""
    return DATATYPES[manifest.table.columns[column].kind][0]


@cache
def load_template() -> Document:
    """Load the template once."""
    import yaml  # not at start-up: most servers never serve the document

    template: Document = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    return template


def fill(template: Any, values: Mapping[str, Any]) -> Any:
    """Replace each text of a template that is a placeholder by its value; values themselves are not searched."""
    match template:
        case dict():
            return {key: fill(value, values) for key, value in template.items()}
        case list():
            return [fill(item, values) for item in template]
        case str():
            return values.get(template, template)
    return template
