"""Parts of the JSON schemas of requests and responses that depend on a bundle. Requests that validate are accepted.

Each is the value of the placeholder of the same name in `document.yaml`. Rules between columns are only described,
because JSON Schema cannot express them.
"""

from typing import Any

from model_name.core.schemas.columns import label_text
from model_name.serving.bundle import Manifest
from model_name.serving.openapi.column_schemas import Schema, column_ref
from model_name.serving.protocols.tensors import DATATYPES, label_datatype

ROW_COUNT: Schema = {"type": "integer", "minimum": 1}
IGNORED_COLUMN: Schema = {"description": "Accepted and ignored."}
SCALARS: Schema = {"prefixItems": [ROW_COUNT], "minItems": 1, "maxItems": 1}  # the shape of an output


def message_schemas(manifest: Manifest) -> dict[str, Any]:
    """Derive what the bodies of requests and responses hold, by placeholder."""
    inputs = list(manifest.table.inputs)
    predictions = predict_properties(manifest)
    return {
        "row_description": describe_row(manifest),
        "row_properties": row_properties(manifest),
        "row_array_description": f"A row in the order of the inputs: {', '.join(inputs)}.",
        "ignores_extra_columns": manifest.table.extra == "drop",
        "input_names": inputs,
        "input_count": len(inputs),
        "input_schemas": [column_ref(position, name) for position, name in enumerate(inputs)],
        "predict_parameters": parameters(manifest, accepts_text=False),
        "predictions": predictions,
        "prediction_names": list(predictions),
        "infer_parameters": parameters(manifest, accepts_text=True),
        "input_tensors": [*input_tensors(manifest), *ignored_tensors(manifest)],
        "output_names": output_names(manifest),
        "output_tensors": output_tensors(manifest),
    }


def describe_row(manifest: Manifest) -> str:
    """Describe a row, with the rules between those of its columns that are inputs."""
    rules = [rule.holds for rule in manifest.table.rules if manifest.table.inputs.keys() >= {*rule.columns}]
    must_hold = f"It must hold: {'; '.join(rules)}." if rules else ""
    return f"A row by input. All rows of a request have the same keys. {must_hold}".strip()


def row_properties(manifest: Manifest) -> Schema:
    """Derive the properties of a row: its inputs, and columns that are accepted but ignored; never the target."""
    table = manifest.table
    return {
        **{name: column_ref(position, name) for position, name in enumerate(table.inputs)},
        **dict.fromkeys(ignored_columns(manifest), IGNORED_COLUMN),
        **({table.target.name: False} if table.extra == "drop" else {}),
    }


def ignored_columns(manifest: Manifest) -> list[str]:
    """List the columns that a request may hold and that are no inputs."""
    return [name for name, column in manifest.table.columns.items() if not column.is_input]


def parameters(manifest: Manifest, *, accepts_text: bool) -> Schema:
    """Derive the parameters of a request: `interval`, the level of prediction intervals if the model has any."""
    levels: list[Any] = interval_levels(manifest)
    if not levels:
        return {"type": ["object", "null"], "properties": {"interval": {"type": "null"}}}
    texts = [str(level) for level in levels] if accepts_text else []
    interval = {
        "enum": [*levels, *texts, None],
        "description": "Share of the actual values that lie in the prediction intervals.",
    }
    return {"type": ["object", "null"], "properties": {"interval": interval}}


def interval_levels(manifest: Manifest) -> list[float]:
    """List the levels of prediction intervals that a request may have."""
    intervals = manifest.decision.intervals
    return [*intervals.levels] if intervals and not manifest.table.classes else []


def predict_properties(manifest: Manifest) -> dict[str, Schema]:
    """Derive the properties of a V1 response: predictions, and probabilities of a classification."""
    classes = manifest.table.classes
    if not classes:
        number = {"type": "number"}
        interval = {
            "type": "object",
            "description": "If prediction intervals are requested.",
            "properties": dict.fromkeys(("prediction", "lower", "upper"), number),
            "required": ["prediction", "lower", "upper"],
        }
        return {"predictions": array_of({"anyOf": [number, interval]} if manifest.decision.intervals else number)}
    labels = [label_text(label) for label in classes]
    probabilities = {
        "type": "object",
        "properties": {label: {"type": "number", "minimum": 0, "maximum": 1} for label in labels},
        "required": labels,
        "additionalProperties": False,
    }
    return {"predictions": array_of({"enum": list(classes)}), "probabilities": array_of(probabilities)}


def input_tensors(manifest: Manifest) -> list[Schema]:
    """Derive the tensor of each input."""
    return [input_tensor(manifest, position, name) for position, name in enumerate(manifest.table.inputs)]


def input_tensor(manifest: Manifest, position: int, name: str) -> Schema:
    """Derive the tensor of an input: n values, or n x 1 values as flat or as nested data."""
    value = column_ref(position, name)
    nested = {"type": "array", "prefixItems": [value], "minItems": 1, "maxItems": 1}
    datatypes = {"enum": list(DATATYPES[manifest.table.columns[name].kind])}
    data = {"type": "array", "minItems": 1, "items": {"anyOf": [value, nested]}}
    shape = {"prefixItems": [ROW_COUNT, {"const": 1}], "minItems": 1, "maxItems": 2}
    is_flat = {"properties": {"shape": {"maxItems": 1}}}
    flat = {"properties": {"data": {"items": value}}}
    return {"title": name} | tensor({"const": name}, datatypes, data, shape) | {"if": is_flat, "then": flat}


def ignored_tensors(manifest: Manifest) -> list[Schema]:
    """Derive the tensor of the columns that are accepted but ignored, if there are any."""
    table, names = manifest.table, ignored_columns(manifest)
    if table.extra == "drop":
        return [tensor({"not": {"enum": [*table.inputs, table.target.name]}}, {}, {"type": "array"}, {})]
    return [tensor({"enum": names}, {}, {"type": "array"}, {})] if names else []


def output_tensors(manifest: Manifest) -> list[Schema]:
    """Derive the tensor of each output."""
    classes = manifest.table.classes
    shapes = {"probabilities": {"prefixItems": [ROW_COUNT, {"const": len(classes)}], "minItems": 2, "maxItems": 2}}
    datatypes = {"prediction": label_datatype(classes)}
    return [
        tensor({"const": name}, {"const": datatypes.get(name, "FP64")}, {"type": "array"}, shapes.get(name, SCALARS))
        for name in output_names(manifest)
    ]


def output_names(manifest: Manifest) -> list[str]:
    """List the outputs of V2."""
    if manifest.table.classes:
        return ["prediction", "probabilities"]
    return ["prediction", "lower", "upper"] if manifest.decision.intervals else ["prediction"]


def tensor(name: Schema, datatype: Schema, data: Schema, shape: Schema) -> Schema:
    """Build the schema of a tensor of V2."""
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string"} | name,
            "shape": {"type": "array"} | shape,
            "datatype": {"type": "string"} | datatype,
            "parameters": {"type": ["object", "null"]},
            "data": data,
        },
        "required": ["name", "shape", "datatype", "data"],
    }


def array_of(item: Schema) -> Schema:
    """Build the schema of an array with one item per row."""
    return {"type": "array", "items": item}
