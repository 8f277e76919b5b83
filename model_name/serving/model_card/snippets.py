"""How to call a model, to be copied: the same row by curl and by KServe's client."""

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
"""What stands for the server; the script of the page puts its own address there."""

PYTHON = """import asyncio{imports}

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
    answer = await client.infer("{server}", request, model_name={name!r}{headers})
    for output in answer.outputs:
        print(output.name, output.data)


asyncio.run(main())"""


@dataclass(frozen=True)
class Call:
    """One way to call a model.

    Attributes:
        title: Of the way.
        code: To be copied.
    """

    title: str
    code: str


def calls(manifest: Manifest, *, name: str, needs_token: bool) -> list[Call]:
    """The ways to call a model, with the bundle's example."""
    row = public_example(manifest)
    place = quote(name, safe="")
    datatypes = {column: DATATYPES[manifest.table.columns[column].kind][0] for column in row}
    pairs = [f"{to_json(column)}: {to_json(value)}" for column, value in row.items()]
    tensors = [
        to_json({"name": column, "shape": [1], "datatype": datatypes[column], "data": [value]})
        for column, value in row.items()
    ]
    v1 = curl(f"v1/models/{place}:predict", enclosed('{"instances": [{', pairs, "}]}"), needs_token=needs_token)
    v2 = curl(f"v2/models/{place}/infer", enclosed('{"inputs": [', tensors, "]}"), needs_token=needs_token)
    python = PYTHON.format(
        row="\n".join(f"    {column!r}: ({datatypes[column]!r}, {value!r})," for column, value in row.items()),
        name=name,
        server=SERVER,
        imports="\nimport os" if needs_token else "",
        token='\ntoken = os.environ["TOKEN"]' if needs_token else "",
        headers=', headers={"authorization": f"Bearer {token}"}' if needs_token else "",
    )
    return [
        Call("curl, V1", v1),
        Call("curl, V2 (Open Inference Protocol)", v2),
        Call("Python, V2 by KServe's client", python),
    ]


def curl(path: str, body: str, *, needs_token: bool) -> str:
    """A request for a shell."""
    token = ' -H "authorization: Bearer $TOKEN"' if needs_token else ""
    return f"curl -s {SERVER}/{path} \\\n  -H 'content-type: application/json'{token} \\\n  -d {shlex.quote(body)}"


def enclosed(start: str, items: Iterable[str], end: str) -> str:
    """JSON of one line an item."""
    lines = ",\n  ".join(items)
    return f"{start}\n  {lines}\n{end}"


def to_json(value: Any) -> str:
    """JSON that people can read."""
    return json.dumps(value, ensure_ascii=False)
