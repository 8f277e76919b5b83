"""Code snippets that call a model: the same row with curl and with KServe's client."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from model_name.serving.bundle import Manifest
from model_name.serving.openapi.examples import public_example
from model_name.serving.protocols.tensors import DATATYPES

SERVER = "http://localhost:8080"
"""Placeholder of the server; the script of the page replaces it by the address of the page."""

PYTHON_TEMPLATE = """import asyncio{imports}

from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
{token}
row = {{
{row}
}}


async def main():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    inputs = [InferInput(name, [1], datatype, [value]) for name, (datatype, value) in row.items()]
    request = InferRequest({name!r}, inputs)
    response = await client.infer("{server}", request, model_name={name!r}{headers})
    for output in response.outputs:
        print(output.name, output.data)


asyncio.run(main())"""


@dataclass(frozen=True)
class CodeSnippet:
    """A code snippet.

    Attributes:
        title: Client and protocol.
        code: Code to copy.
    """

    title: str
    code: str


def code_snippets(manifest: Manifest, *, name: str, needs_token: bool) -> list[CodeSnippet]:
    """Build the snippets that predict the example of a bundle.

    Args:
        manifest: Manifest of the bundle.
        name: Name under which the model is served.
        needs_token: Whether the server requires a token.
    """
    row = public_example(manifest)
    path_name = quote(name, safe="")
    datatypes = {column: DATATYPES[manifest.table.columns[column].kind][0] for column in row}
    pairs = [f"{to_json(column)}: {to_json(value)}" for column, value in row.items()]
    tensors = [
        to_json({"name": column, "shape": [1], "datatype": datatypes[column], "data": [value]})
        for column, value in row.items()
    ]
    v1 = curl(f"v1/models/{path_name}:predict", indent_block('{"instances": [{', pairs, "}]}"), needs_token=needs_token)
    v2 = curl(f"v2/models/{path_name}/infer", indent_block('{"inputs": [', tensors, "]}"), needs_token=needs_token)
    python = PYTHON_TEMPLATE.format(
        row="\n".join(f"    {column!r}: ({datatypes[column]!r}, {value!r})," for column, value in row.items()),
        name=name,
        server=SERVER,
        imports="\nimport os" if needs_token else "",
        token='\ntoken = os.environ["TOKEN"]' if needs_token else "",
        headers=', headers={"authorization": f"Bearer {token}"}' if needs_token else "",
    )
    return [
        CodeSnippet("curl, V1", v1),
        CodeSnippet("curl, V2 (Open Inference Protocol)", v2),
        CodeSnippet("Python, V2 by KServe's client", python),
    ]


def curl(path: str, body: str, *, needs_token: bool) -> str:
    """Format a request as a curl command."""
    token = ' -H "authorization: Bearer $TOKEN"' if needs_token else ""
    return f"curl -s {SERVER}/{path} \\\n  -H 'content-type: application/json'{token} \\\n  -d {shlex.quote(body)}"


def indent_block(start: str, items: Iterable[str], end: str) -> str:
    """Format a JSON array or object with one line per item."""
    lines = ",\n  ".join(items)
    return f"{start}\n  {lines}\n{end}"


def to_json(value: Any) -> str:
    """Encode a value as JSON, with non-ASCII characters as they are."""
    return json.dumps(value, ensure_ascii=False)
