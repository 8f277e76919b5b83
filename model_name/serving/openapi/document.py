"""The OpenAPI document of a served model: paths with its name in them, bodies typed from its schema."""

from typing import Any
from urllib.parse import quote

from model_name.serving.bundle import Manifest
from model_name.serving.openapi.examples import public_example
from model_name.serving.openapi.json_schema import bodies, ref
from model_name.serving.protocols.tensors import DATATYPES

JSON = "application/json"
BINARY = "application/octet-stream"
TEXT = {"type": "string"}
REFUSALS = {
    "400": ("BadRequest", "The request is not one that the model can answer; the error names column, row and reason."),
    "401": ("Unauthorized", "The server asks for a token, and this is not one of its own."),
    "404": ("NotFound", "There is no model of this name."),
    "408": ("RequestTimeout", "The body did not come in time."),
    "413": ("ContentTooLarge", "The body is too large."),
    "415": ("UnsupportedMediaType", "The body is of a content type or encoding that the server does not read."),
    "429": ("TooManyRequests", "More requests wait than may; send it again later."),
    "503": ("Unavailable", "The model is not ready, or the server is about to stop; send it again later."),
}
"""What a request is answered by that is not answered by a model: status, name of the component, words."""

Document = dict[str, Any]

TAILED: Document = {
    BINARY: {
        "schema": {
            "description": "JSON as long as the header Inference-Header-Content-Length says, then the bytes of tensors."
        }
    }
}
ALIVE: Document = {JSON: {"schema": {"type": "object", "properties": {"status": {"const": "alive"}}}}}
"""What is told who does not accept HTML."""


def document(manifest: Manifest, *, name: str) -> Document:
    """What a server of this bundle serves by REST, as OpenAPI 3.1.

    Formats such as `date-time` are annotations, as OpenAPI 3.1 has them: the offset of a datetime may be left out.

    Args:
        manifest: Of the bundle.
        name: What the model is served under.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": name, "version": manifest.semver, "description": description(manifest)},
        "paths": predictions(manifest, name) | metadata(name) | operations(),
        "components": {
            "schemas": bodies(manifest) | {"Error": closed({"error": {"type": "string"}})},
            "responses": {
                component: {"description": words, "content": {JSON: {"schema": ref("Error")}}}
                for component, words in REFUSALS.values()
            },
            "headers": {
                "x-model-version": header("The number of the version in MLflow.", manifest.version),
                "x-model-semver": header("The semantic version.", manifest.semver),
            },
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def description(manifest: Manifest) -> str:
    """What is predicted from what, in a paragraph."""
    table = manifest.table
    target = f"{table.target.name} ({table.target.description.strip().rstrip('.')})"
    predicts = f"Predicts {target if table.target.description else table.target.name}: {table.target.task}."
    made = f"{manifest.kind}, version {manifest.version}, made {manifest.created}."
    return "\n\n".join(filter(None, [table.description.strip(), predicts, made]))


def predictions(manifest: Manifest, name: str) -> Document:
    """The two paths that answer rows."""
    row = public_example(manifest)
    place = quote(name, safe="")
    inputs = [
        {"name": column, "shape": [1], "datatype": DATATYPES[manifest.table.columns[column].kind][0], "data": [value]}
        for column, value in row.items()
    ]
    return {
        f"/v1/models/{place}:predict": {
            "post": post("predict", "Predict rows (KServe's V1 protocol)", "Predict", {"instances": [row]})
        },
        f"/v2/models/{place}/infer": {
            "post": post("infer", "Predict tensors (Open Inference Protocol)", "Infer", {"inputs": inputs}, more=TAILED)
        },
    }


def post(operation: str, summary: str, body: str, example: Document, *, more: Document | None = None) -> Document:
    """An operation that answers rows; `more` are the media types of both bodies beside JSON."""
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("x-model-version", "x-model-semver")}
    answer = {
        "description": "The predictions.",
        "headers": headers,
        "content": {JSON: {"schema": ref(f"{body}Response")}} | (more or {}),
    }
    content = {JSON: {"schema": ref(f"{body}Request"), "example": example}} | (more or {})
    request = {"required": True, "content": content}
    return {
        "operationId": operation,
        "summary": summary,
        "tags": ["predictions"],
        "security": [{}, {"bearer": []}],
        "requestBody": request,
        "responses": {"200": answer} | refusals(*REFUSALS),
    }


def metadata(name: str) -> Document:
    """What is told of the model."""
    place = quote(name, safe="")
    named = {"name": {"const": name}}
    ready = closed(named | {"ready": {"type": "boolean"}})
    tensor = closed({"name": TEXT, "datatype": TEXT, "shape": {"type": "array", "items": {"type": "integer"}}})
    tensors = {"type": "array", "items": tensor}
    model = {**named, "versions": {"type": "array", "items": TEXT}, "platform": TEXT}
    return {
        "/v1/models": get("models", "The models", closed({"models": {"type": "array", "items": TEXT}}), "401"),
        f"/v1/models/{place}": get("modelStatus", "Whether the model is ready", ready, "404", "503"),
        f"/v2/models/{place}": get(
            "modelMetadata",
            "Inputs and outputs of the model",
            opened({**model, "inputs": tensors, "outputs": tensors}, required=(*model, "inputs", "outputs")),
            "401",
            "404",
        ),
        f"/v2/models/{place}/ready": get("modelReady", "Whether the model is ready", ready, "404", "503"),
    }


def operations() -> Document:
    """What is told of the server."""
    server = {"name": TEXT, "version": TEXT, "extensions": {"type": "array", "items": TEXT}}
    return {
        "/v2": get("server", "Name and version of the server", closed(server), "401"),
        "/v2/health/live": get("live", "Whether the server is alive", closed({"live": {"type": "boolean"}})),
        "/v2/health/ready": get("ready", "Whether all is ready", closed({"ready": {"type": "boolean"}}), "503"),
        "/metrics": get("metrics", "Metrics for Prometheus", TEXT, kind="text/plain"),
        "/openapi.json": get("openapi", "This document", {"type": "object"}, "401"),
        "/": get("card", "The model card, with a form to try the model", TEXT, "401", kind="text/html", more=ALIVE),
    }


def get(
    operation: str, summary: str, schema: Document, *statuses: str, kind: str = JSON, more: Document | None = None
) -> Document:
    """A path that is read; `more` are the media types of its answer beside `kind`."""
    answer = {"description": f"{summary}.", "content": {kind: {"schema": schema}} | (more or {})}
    responses = {"200": answer} | refusals(*statuses)
    return {"get": {"operationId": operation, "summary": summary, "tags": ["metadata"], "responses": responses}}


def refusals(*statuses: str) -> Document:
    """References to the answers of some statuses."""
    return {status: {"$ref": f"#/components/responses/{REFUSALS[status][0]}"} for status in statuses}


def header(words: str, value: str) -> Document:
    """A header of an answer."""
    return {"description": words, "schema": TEXT, "example": value}


def closed(properties: Document) -> Document:
    """An object that has these properties, all of them."""
    return opened(properties, required=tuple(properties))


def opened(properties: Document, *, required: tuple[str, ...]) -> Document:
    """An object of which some properties must be there."""
    return {"type": "object", "properties": properties, "required": list(required)}
