"""Requests of rows over every protocol to a real server."""

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
METADATA_DATATYPES = {
    "area": "FP64",
    "age": "FP64",
    "district": "BYTES",
    "heating": "BYTES",
    "is_let": "BOOL",
    "sold": "BYTES",
}
# A missing value is NaN in a numeric tensor, and the empty text in one of categories.
DATATYPES = METADATA_DATATYPES | {"is_let": "FP64"}
LABEL_DATATYPES = {"regression": "FP64", "binary": "BOOL", "multiclass": "BYTES"}

Tensor = dict[str, Any]


def to_json_tensors(rows: list[Row], **changes: Tensor | None) -> list[Tensor]:
    """Encode rows as V2 inputs in JSON; `changes` update the tensor of a column, None removes it."""
    tensors = {
        name: {
            "name": name,
            "shape": [len(rows)],
            "datatype": METADATA_DATATYPES[name],
            "data": [row[name] for row in rows],
        }
        for name in rows[0]
    }
    tensors = {
        name: tensors.get(name, {"name": name}) | (changes.get(name) or {})
        for name in [*tensors, *(changes.keys() - tensors)]
    }
    return [tensor for name, tensor in tensors.items() if changes.get(name, tensor) is not None]


def to_arrays(rows: list[Row]) -> dict[str, np.ndarray]:
    """Convert rows to arrays, in which NaN or the empty text is a missing value."""
    return {name: to_array(DATATYPES[name], [row[name] for row in rows]) for name in rows[0]}


def to_array(datatype: str, values: list[Any]) -> np.ndarray:
    """Convert a column to an array, in which NaN or the empty text is a missing value."""
    if datatype == "BYTES":
        return np.array(["" if value is None else value for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def kserve_request(server: Server, columns: dict[str, np.ndarray], *, binary: bool, **more: Any) -> InferRequest:
    """Build a request of KServe's client, with raw bytes or typed contents."""
    inputs = []
    for name, values in columns.items():
        tensor = InferInput(name, list(values.shape), DATATYPES[name])
        if binary:
            tensor.set_data_from_numpy(values, binary_data=True)
        else:
            tensor.data = values.tolist()
        inputs.append(tensor)
    return InferRequest(server.name, inputs, request_id="42", **more)


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine."""
    return asyncio.run(coroutine)


async def infer_by_grpc(server: Server, request: InferRequest) -> InferResponse:
    """Send a request with KServe's gRPC client."""
    async with InferenceGRPCClient(server.grpc_url) as client:
        return await client.infer(request)


async def infer_by_rest(server: Server, request: InferRequest) -> InferResponse:
    """Send a request with KServe's REST client."""
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        return await client.infer(server.url, request, model_name=server.name)


def call_grpc(server: Server, method: str, request: Any) -> Any:
    """Call a method of the gRPC service."""
    with grpc.insecure_channel(server.grpc_url) as channel:
        return getattr(GRPCInferenceServiceStub(channel), method)(request, timeout=60)


def post_v1(server: Server, body: Any, **more: Any) -> httpx.Response:
    """Post a V1 request."""
    return server.client.post(f"/v1/models/{server.name}:predict", json=body, **more)


def post_v2(server: Server, body: Any, **more: Any) -> httpx.Response:
    """Post a V2 request."""
    return server.client.post(f"/v2/models/{server.name}/infer", json=body, **more)


def assert_same_outputs(response: InferResponse, expected: Outputs, task: str) -> None:
    """Assert that KServe's client got the outputs of the data plane."""
    outputs = {output.name: output for output in response.outputs}
    assert (response.id, response.model_name, response.model_version or VERSION) == ("42", task, VERSION)
    assert outputs["prediction"].datatype == LABEL_DATATYPES[task]
    predictions = outputs["prediction"].as_numpy().tolist()
    assert [v.decode() if isinstance(v, bytes) else v for v in predictions] == expected.prediction.tolist()
    assert list(outputs) == (["prediction"] if expected.probabilities is None else ["prediction", "probabilities"])
    if expected.probabilities is not None:
        np.testing.assert_array_equal(outputs["probabilities"].as_numpy(), expected.probabilities)
