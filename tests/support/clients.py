"""Requests of every protocol to a real server, from rows."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub

from model_name.core.schemas import Outputs

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row


VERSION = "7"  # of the bundles
METADATA = {"area": "FP64", "age": "FP64", "district": "BYTES", "heating": "BYTES", "is_let": "BOOL", "sold": "BYTES"}
# What tells a missing value in gRPC: NaN where numbers go, the empty text where no category is.
DATATYPES = METADATA | {"is_let": "FP64"}
LABELS = {"regression": "FP64", "binary": "BOOL", "multiclass": "BYTES"}

Tensor = dict[str, Any]


def tensors(rows: list[Row], **changes: Tensor | None) -> list[Tensor]:
    """Rows as the inputs of V2 in JSON; `changes` are to the tensor of a column, None leaves it out."""
    made = {
        name: {"name": name, "shape": [len(rows)], "datatype": METADATA[name], "data": [row[name] for row in rows]}
        for name in rows[0]
    }
    made = {
        name: made.get(name, {"name": name}) | (changes.get(name) or {}) for name in [*made, *(changes.keys() - made)]
    }
    return [tensor for name, tensor in made.items() if changes.get(name, tensor) is not None]


def arrays(rows: list[Row]) -> dict[str, np.ndarray]:
    """Rows as arrays, with what stands for a missing value where there is no null."""
    return {name: as_array(DATATYPES[name], [row[name] for row in rows]) for name in rows[0]}


def as_array(datatype: str, values: list[Any]) -> np.ndarray:
    """One column; NaN or the empty text stands for a missing value."""
    if datatype == "BYTES":
        return np.array(["" if value is None else value for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def request_of(server: Server, columns: dict[str, np.ndarray], *, binary: bool, **more: Any) -> InferRequest:
    """Columns as a request of KServe's client, in raw bytes or in typed contents."""
    inputs = []
    for name, values in columns.items():
        tensor = InferInput(name, list(values.shape), DATATYPES[name])
        if binary:
            tensor.set_data_from_numpy(values, binary_data=True)
        else:
            tensor.data = values.tolist()
        inputs.append(tensor)
    return InferRequest(server.name, inputs, request_id="42", **more)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Wait for one."""
    return asyncio.run(coroutine)


async def infer_by_grpc(server: Server, request: InferRequest) -> InferResponse:
    """Ask by KServe's client of gRPC."""
    async with InferenceGRPCClient(server.grpc_url) as client:
        return await client.infer(request)


async def infer_by_rest(server: Server, request: InferRequest) -> InferResponse:
    """Ask by KServe's client of REST."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        return await client.infer(server.url, request, model_name=server.name)


def call_grpc(server: Server, method: str, request: Any) -> Any:
    """Call any method of the service."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        return getattr(GRPCInferenceServiceStub(channel), method)(request, timeout=60)


def post_v1(server: Server, body: Any, **more: Any) -> httpx.Response:
    """Ask by V1."""
    return server.client.post(f"/v1/models/{server.name}:predict", json=body, **more)


def post_v2(server: Server, body: Any, **more: Any) -> httpx.Response:
    """Ask by V2."""
    return server.client.post(f"/v2/models/{server.name}/infer", json=body, **more)


def assert_same(response: InferResponse, expected: Outputs, task: str) -> None:
    """What KServe's client got is what the data plane answers."""
    outputs = {output.name: output for output in response.outputs}
    assert (response.id, response.model_name, response.model_version or VERSION) == ("42", task, VERSION)
    assert outputs["prediction"].datatype == LABELS[task]
    predictions = outputs["prediction"].as_numpy().tolist()
    assert [v.decode() if isinstance(v, bytes) else v for v in predictions] == expected.prediction.tolist()
    assert list(outputs) == (["prediction"] if expected.probabilities is None else ["prediction", "probabilities"])
    if expected.probabilities is not None:
        np.testing.assert_array_equal(outputs["probabilities"].as_numpy(), expected.probabilities)
