"""The bodies of requests and answers as JSON Schema, derived from a bundle: what validates is not refused.

Two things are left to words, because JSON Schema has none for them: rules between columns, and days that no month has.
"""

import re
from collections.abc import Iterable
from typing import Any

from model_name.core.schemas.columns import LARGEST, Column, label_text
from model_name.serving.bundle import Manifest
from model_name.serving.openapi.examples import known_categories
from model_name.serving.protocols.tensors import DATATYPES, label_datatype

Schema = dict[str, Any]

SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
"""The characters of the name of a component."""
DAY = r"(?!0000)[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?"
ZONE = r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
MOMENT = f"^{DAY}([T ]{CLOCK}{ZONE}?)?$"
SHOWN_CATEGORIES = 20  # of those that are known but not the only ones that are accepted
WHOLE = re.compile(r"0|-?[1-9][0-9]*")
LONGEST_NUMBER = 15  # digits; longer ones are not what JavaScript sent
COUNT = {"type": "integer", "minimum": 1}  # of rows
SENT_ANYWAY = {"description": "Accepted, and not looked at."}


def bodies(manifest: Manifest) -> dict[str, Schema]:
    """The schemas of a document by name: one an input, the rows, the tensors, and the bodies that hold them."""
    inputs = manifest.table.inputs
    return {
        **{component(position, name): value(manifest, name) for position, name in enumerate(inputs)},
        "Row": row(manifest),
        "RowArray": row_array(manifest),
        "PredictRequest": predict_request(manifest),
        "PredictResponse": predict_response(manifest),
        "InferRequest": infer_request(manifest),
        "InferResponse": infer_response(manifest),
    }


def component(position: int, name: str) -> str:
    """The name of the component of an input: its own where that can be one, else its place."""
    return f"column.{name}" if name and SAFE.issuperset(name) else f"column-{position}"


def ref(name: str) -> Schema:
    """A reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def value(manifest: Manifest, name: str) -> Schema:
    """What one value of an input may be."""
    column = manifest.table.columns[name]
    match column.kind:
        case "numeric":
            schema: Schema = {"type": "number"} | limits(column)
        case "boolean":
            schema = {"type": ["boolean", "integer"], "enum": [True, False, 0, 1]}
        case "datetime":
            schema = {"type": "string", "format": "date-time", "pattern": MOMENT}
        case _:
            schema = category(column, known_categories(manifest, name))
    if column.nullable:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = [*kinds, "null"]
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return {"title": name, "description": words(column)} | schema


def limits(column: Column) -> Schema:
    """The numbers that are not refused: those that are clipped are not."""
    low = -LARGEST if column.min is None else max(column.min, -LARGEST)
    high = LARGEST if column.max is None else min(column.max, LARGEST)
    clips_low, clips_high = (
        column.out_of_bounds == "clip" and bound is not None and abs(bound) <= LARGEST
        for bound in (column.min, column.max)
    )
    return ({} if clips_low else {"minimum": low}) | ({} if clips_high else {"maximum": high})


def category(column: Column, known: tuple[str, ...]) -> Schema:
    """A text, or what is spelt like one: `3` is the category "3", `true` the category "true"."""
    types = ["string", "number", "boolean"]
    if column.values is None or column.unseen == "other":
        return {"type": types} | ({"examples": list(known[:SHOWN_CATEGORIES])} if known else {})
    allowed = [*column.values, *(raw for text in column.values for raw in spelt_like(text))]
    return {"type": types if len(allowed) > len(column.values) else "string", "enum": allowed}


def spelt_like(text: str) -> Iterable[bool | int]:
    """The values of JSON, beside the text itself, that are read as a category."""
    if text in ("true", "false"):
        yield text == "true"
    elif len(text) <= LONGEST_NUMBER and WHOLE.fullmatch(text):
        yield int(text)


def words(column: Column) -> str:
    """What a schema cannot say of a column."""
    said = [column.description.strip()]
    if column.kind == "datetime":
        said.append("ISO 8601; with an offset it becomes UTC, without one it is taken as it stands.")
    if column.out_of_bounds == "clip" and (column.min is not None or column.max is not None):
        said.append(f"What is beyond {bounds(column)} is clipped.")
    if column.kind == "category" and (column.values is None or column.unseen == "other"):
        said.append("A category that is not known counts as missing.")
    return " ".join(filter(None, said))


def bounds(column: Column) -> str:
    """`"0 to 10"`, `"at least 0"`, `"at most 10"`."""
    if column.min is None or column.max is None:
        return f"at most {column.max:g}" if column.min is None else f"at least {column.min:g}"
    return f"{column.min:g} to {column.max:g}"


def row(manifest: Manifest) -> Schema:
    """A row as an object."""
    table, inputs = manifest.table, manifest.table.inputs
    is_open = table.extra == "drop"
    forbidden = {table.target.name: False} if is_open else {}
    rules = [rule.holds for rule in table.rules if inputs.keys() >= {*rule.columns}]
    must_hold = f"It must hold: {'; '.join(rules)}." if rules else ""
    return {
        "type": "object",
        "description": f"A row by input. All rows of a request have the same keys. {must_hold}".strip(),
        "properties": {
            **{name: ref(component(place, name)) for place, name in enumerate(inputs)},
            **dict.fromkeys(unused(manifest), SENT_ANYWAY),
            **forbidden,
        },
        "required": list(inputs),
        "additionalProperties": is_open,
    }


def unused(manifest: Manifest) -> list[str]:
    """The columns that a request may hold, and that are not looked at."""
    return [name for name, column in manifest.table.columns.items() if not column.is_input]


def row_array(manifest: Manifest) -> Schema:
    """A row as an array."""
    inputs = list(manifest.table.inputs)
    return {
        "type": "array",
        "description": f"A row in the order of the inputs: {', '.join(inputs)}.",
        "prefixItems": [ref(component(position, name)) for position, name in enumerate(inputs)],
        "minItems": len(inputs),
        "maxItems": len(inputs),
    }


def predict_request(manifest: Manifest) -> Schema:
    """The body of a request of V1."""
    return {
        "type": "object",
        "properties": {
            "instances": {"type": "array", "minItems": 1, "items": {"anyOf": [ref("Row"), ref("RowArray")]}},
            "parameters": parameters(manifest, texts=False),
        },
        "required": ["instances"],
    }


def parameters(manifest: Manifest, *, texts: bool) -> Schema:
    """The parameters of a request: `interval` asks for prediction intervals, where there are such."""
    intervals = manifest.decision.intervals
    levels: list[Any] = [*intervals.levels] if intervals and not manifest.table.classes else []
    if not levels:
        return {"type": ["object", "null"], "properties": {"interval": {"type": "null"}}}
    spelt = [str(level) for level in levels] if texts else []
    interval = {
        "enum": [*levels, *spelt, None],
        "description": "The share of actual values that each prediction interval is to hold.",
    }
    return {"type": ["object", "null"], "properties": {"interval": interval}}


def predict_response(manifest: Manifest) -> Schema:
    """The body of an answer of V1."""
    classes = manifest.table.classes
    if not classes:
        number = {"type": "number"}
        ends = {
            "type": "object",
            "description": "Where a level of prediction intervals was asked for.",
            "properties": dict.fromkeys(("prediction", "lower", "upper"), number),
            "required": ["prediction", "lower", "upper"],
        }
        item = {"anyOf": [number, ends]} if manifest.decision.intervals else number
        return {"type": "object", "properties": {"predictions": many(item)}, "required": ["predictions"]}
    labels = [label_text(label) for label in classes]
    shares = {
        "type": "object",
        "properties": {label: {"type": "number", "minimum": 0, "maximum": 1} for label in labels},
        "required": labels,
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"predictions": many({"enum": list(classes)}), "probabilities": many(shares)},
        "required": ["predictions", "probabilities"],
    }


def infer_request(manifest: Manifest) -> Schema:
    """The body of a request of V2."""
    inputs = manifest.table.inputs
    tensors = [input_tensor(manifest, position, name) for position, name in enumerate(inputs)]
    outputs = {"name": {"enum": output_names(manifest)}, "parameters": {"type": ["object", "null"]}}
    return {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": parameters(manifest, texts=True),
            "inputs": {
                "type": "array",
                "description": "One tensor an input, all of as many rows.",
                "minItems": len(inputs),
                "items": {"anyOf": [*tensors, *unused_tensor(manifest)]},
            },
            "outputs": {
                "type": ["array", "null"],
                "description": "The outputs that are wanted; all where none is named.",
                "items": {"type": "object", "properties": outputs, "required": ["name"]},
            },
        },
        "required": ["inputs"],
    }


def input_tensor(manifest: Manifest, position: int, name: str) -> Schema:
    """The tensor of one input."""
    item = ref(component(position, name))
    nested = {"type": "array", "prefixItems": [item], "minItems": 1, "maxItems": 1}
    datatypes = {"enum": list(DATATYPES[manifest.table.columns[name].kind])}
    data = {"type": "array", "minItems": 1, "items": {"anyOf": [item, nested]}}
    column = {"prefixItems": [COUNT, {"const": 1}], "minItems": 1, "maxItems": 2}
    is_flat = {"properties": {"shape": {"maxItems": 1}}}
    flat = {"properties": {"data": {"items": item}}}
    return {"title": name} | tensor({"const": name}, datatypes, data, column) | {"if": is_flat, "then": flat}


def unused_tensor(manifest: Manifest) -> list[Schema]:
    """The tensor of what is accepted and not looked at, if anything is."""
    table, names = manifest.table, unused(manifest)
    if table.extra == "drop":
        return [tensor({"not": {"enum": [*table.inputs, table.target.name]}}, {}, {"type": "array"}, {})]
    return [tensor({"enum": names}, {}, {"type": "array"}, {})] if names else []


def infer_response(manifest: Manifest) -> Schema:
    """The body of an answer of V2."""
    classes = manifest.table.classes
    wide = {"probabilities": {"prefixItems": [COUNT, {"const": len(classes)}], "minItems": 2, "maxItems": 2}}
    datatypes = {"prediction": label_datatype(classes)}
    flat = {"prefixItems": [COUNT], "minItems": 1, "maxItems": 1}
    outputs = [
        tensor({"const": name}, {"const": datatypes.get(name, "FP64")}, {"type": "array"}, wide.get(name, flat))
        for name in output_names(manifest)
    ]
    return {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": many({"anyOf": outputs}),
        },
        "required": ["model_name", "outputs"],
    }


def output_names(manifest: Manifest) -> list[str]:
    """The outputs of V2."""
    if manifest.table.classes:
        return ["prediction", "probabilities"]
    return ["prediction", "lower", "upper"] if manifest.decision.intervals else ["prediction"]


def tensor(name: Schema, datatype: Schema, data: Schema, shape: Schema) -> Schema:
    """A tensor of V2."""
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


def many(item: Schema) -> Schema:
    """An array, one item a row."""
    return {"type": "array", "items": item}
