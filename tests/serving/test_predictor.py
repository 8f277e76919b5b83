"""What a server answers by V1, V2 and gRPC: the data plane's answers, and a reason to each bad request."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, InferResponse
from kserve.inference_client import RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput

from model_name.core.schemas import Outputs
from model_name.errors import ConfigError
from model_name.serving.__main__ import main
from model_name.serving.batching import Batcher
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.options import check_free
from model_name.serving.server import Address
from model_name.serving.v1 import V1Request

if TYPE_CHECKING:
    from conftest import Row, Server, StartServer

FORBIDDEN = ("torch", "mlflow", "ray", "sklearn", "lightning", "kfp")
VERSION = "7"  # of the bundles
METADATA = {"area": "FP64", "age": "FP64", "district": "BYTES", "heating": "BYTES", "is_let": "BOOL", "sold": "BYTES"}
# What tells a missing value in gRPC: NaN where numbers go, the empty text where no category is.
DATATYPES = METADATA | {"is_let": "FP64"}
LABELS = {"regression": "FP64", "binary": "BOOL", "multiclass": "BYTES"}
NOT_A_CATEGORY = "'west' is not one of its categories"


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
    if datatype == "BYTES":
        return np.array(["" if value is None else value for value in values], dtype=object)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def request_of(server: Server, columns: dict[str, np.ndarray], *, binary: bool, **more: Any) -> InferRequest:
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
    return asyncio.run(coroutine)


async def infer_by_grpc(server: Server, request: InferRequest) -> InferResponse:
    async with InferenceGRPCClient(server.grpc_url) as client:
        return await client.infer(request)


async def infer_by_rest(server: Server, request: InferRequest) -> InferResponse:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        return await client.infer(server.url, request, model_name=server.name)


def call_grpc(server: Server, method: str, request: Any) -> Any:
    with grpc.insecure_channel(server.grpc_url) as channel:
        return getattr(GRPCInferenceServiceStub(channel), method)(request, timeout=60)


def post_v1(server: Server, body: Any, **more: Any) -> httpx.Response:
    return server.client.post(f"/v1/models/{server.name}:predict", json=body, **more)


def post_v2(server: Server, body: Any, **more: Any) -> httpx.Response:
    return server.client.post(f"/v2/models/{server.name}/infer", json=body, **more)


def assert_same(response: InferResponse, expected: Outputs, task: str) -> None:
    outputs = {output.name: output for output in response.outputs}
    assert (response.id, response.model_name, response.model_version or VERSION) == ("42", task, VERSION)
    assert outputs["prediction"].datatype == LABELS[task]
    predictions = outputs["prediction"].as_numpy().tolist()
    assert [v.decode() if isinstance(v, bytes) else v for v in predictions] == expected.prediction.tolist()
    assert list(outputs) == (["prediction"] if expected.probabilities is None else ["prediction", "probabilities"])
    if expected.probabilities is not None:
        np.testing.assert_array_equal(outputs["probabilities"].as_numpy(), expected.probabilities)


# Prediction intervals


def test_v1_answers_an_interval_of_the_level_that_is_asked_for(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row]
) -> None:
    # given
    plain = planes["regression"].predict_rows(rows).prediction
    half = np.where(plain <= 300, 15.0, 30.0)
    # when
    body = post_v1(servers["regression"], {"instances": rows, "parameters": {"interval": 0.9}}).json()
    # then
    assert body == {
        "predictions": [
            {"prediction": x, "lower": low, "upper": high}
            for x, low, high in zip(plain, plain - half, plain + half, strict=True)
        ]
    }


@pytest.mark.parametrize(
    ("task", "parameters", "reason"),
    [
        pytest.param(
            "regression",
            {"interval": 0.5},
            "there is no prediction interval of level 0.5; the levels are 0.8, 0.9",
            id="a level that there is not",
        ),
        pytest.param("regression", {"interval": "wide"}, "interval: 'wide' is not a number", id="no number"),
        pytest.param("regression", {"interval": "nan"}, "there is no prediction interval of level nan", id="NaN"),
        pytest.param("regression", {"interval": [0.9]}, "is not a number", id="a list"),
        pytest.param("regression", [0.9], '"parameters" is not an object', id="parameters that are none"),
        pytest.param("binary", {"interval": 0.9}, "this is a classification", id="a classification"),
        pytest.param("multiclass", {"interval": 0.9}, "this is a classification", id="more than two classes"),
    ],
)
def test_v1_refuses_an_interval_that_there_is_not(
    servers: dict[str, Server], rows: list[Row], task: str, parameters: Any, reason: str
) -> None:
    response = post_v1(servers[task], {"instances": rows, "parameters": parameters})
    assert response.status_code == httpx.codes.BAD_REQUEST
    assert reason in response.json()["error"]


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="no parameter"),
        pytest.param({"interval": None}, id="a null"),
        pytest.param({"colour": "red"}, id="another parameter"),
    ],
)
def test_v1_answers_as_ever_without_a_level(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], parameters: Any
) -> None:
    body = post_v1(servers["regression"], {"instances": rows, "parameters": parameters}).json()
    assert body == {"predictions": planes["regression"].predict_rows(rows).prediction.tolist()}


@pytest.mark.parametrize("level", [pytest.param(0.8, id="a number"), pytest.param("0.8", id="a text")])
def test_v2_answers_the_ends_of_the_interval(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], level: Any
) -> None:
    expected = planes["regression"].predict_rows(rows, interval=0.8).columns
    body = post_v2(servers["regression"], {"inputs": tensors(rows), "parameters": {"interval": level}}).json()
    assert {output["name"]: output["data"] for output in body["outputs"]} == {
        name: values.tolist() for name, values in expected.items()
    }
    assert list(expected) == ["prediction", "lower", "upper"]


def test_v2_refuses_a_level_that_there_is_not_and_ends_without_a_level(
    servers: dict[str, Server], rows: list[Row]
) -> None:
    server = servers["regression"]
    unknown = post_v2(server, {"inputs": tensors(rows), "parameters": {"interval": 0.5}})
    unasked = post_v2(server, {"inputs": tensors(rows), "outputs": [{"name": "lower"}]})
    assert (unknown.status_code, unasked.status_code) == (400, 400)
    assert "the levels are 0.8, 0.9" in unknown.json()["error"]
    assert "lower: is not an output; these are: prediction" in unasked.json()["error"]


@pytest.mark.parametrize("binary", [pytest.param(True, id="binary"), pytest.param(False, id="typed")])
def test_grpc_answers_the_ends_of_the_interval(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], binary: bool
) -> None:
    expected = planes["regression"].predict_rows(rows, interval=0.9).columns
    request = request_of(servers["regression"], arrays(rows), binary=binary, parameters={"interval": "0.9"})
    response = run(infer_by_grpc(servers["regression"], request))
    assert {output.name: output.as_numpy().tolist() for output in response.outputs} == {
        name: values.tolist() for name, values in expected.items()
    }


def test_grpc_refuses_a_level_that_there_is_not(servers: dict[str, Server], rows: list[Row]) -> None:
    request = request_of(servers["regression"], arrays(rows), binary=True, parameters={"interval": "0.5"})
    with pytest.raises(grpc.RpcError) as caught:
        run(infer_by_grpc(servers["regression"], request))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "the levels are 0.8, 0.9" in caught.value.details()


# V1


@pytest.mark.parametrize(
    "as_rows", [pytest.param(dict, id="objects"), pytest.param(lambda row: [*row.values()], id="arrays")]
)
def test_v1_answers_as_the_data_plane_does(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, as_rows: Any, rows: list[Row]
) -> None:
    expected = planes[task].predict_rows(rows)
    body = post_v1(servers[task], {"instances": [as_rows(row) for row in rows]}).json()
    assert body.pop("predictions") == expected.prediction.tolist()
    if expected.probabilities is not None:
        labels = {"binary": ["false", "true"], "multiclass": ["low", "fair", "high"]}[task]
        assert [list(row) for row in body["probabilities"]] == [labels] * len(rows)
        assert [list(row.values()) for row in body.pop("probabilities")] == expected.probabilities.tolist()
    assert body == {}


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", ""])
def test_v1_reads_json_whatever_its_content_type(
    servers: dict[str, Server], content_type: str, rows: list[Row]
) -> None:
    response = post_v1(servers["regression"], {"instances": rows}, headers={"content-type": content_type})
    assert (response.status_code, len(response.json()["predictions"])) == (200, len(rows))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(5, 'the body is not an object with "instances"', id="a number"),
        pytest.param([], 'the body is not an object with "instances"', id="a list"),
        pytest.param({"inputs": []}, 'the body is not an object with "instances"', id="no instances"),
        pytest.param({"instances": {"area": 1}}, 'Expected "instances" to be a list', id="an object for instances"),
        pytest.param({"instances": None}, 'Expected "instances" to be a list', id="null for instances"),
        pytest.param({"instances": []}, "the request holds no row", id="no row"),
        pytest.param({"instances": [5]}, "the row is neither an object nor an array", id="a number for a row"),
        pytest.param({"instances": [[1, 2]]}, "the row has 2 values, the model has 6 inputs", id="a short array"),
        pytest.param({"instances": [{}]}, "area: column is missing (and age, ", id="an empty object"),
        pytest.param(
            {"instances": [{"area": 1}, {}]}, "area: column is missing in row 1", id="an empty object after another"
        ),
    ],
)
def test_v1_refuses_a_body_that_is_no_table(servers: dict[str, Server], body: Any, reason: str) -> None:
    response = post_v1(servers["regression"], body)
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


BAD_VALUES = [
    pytest.param("area", "wide", "area: not a number", id="a text for a number"),
    pytest.param("area", "61.5", "area: not a number", id="a quoted number"),
    pytest.param("area", True, "area: not a number", id="a boolean for a number"),
    pytest.param("area", [61.5], "area: not a number", id="a list for a number"),
    pytest.param("area", None, "area: is missing", id="null where nothing may be missing"),
    pytest.param("area", float("nan"), "area: not a number", id="NaN, which JSON has not"),
    pytest.param("age", float("-inf"), "age: not a number", id="Infinity, which JSON has not"),
    pytest.param("area", 501, "area: 501.0 is above 500.0", id="above the bound"),
    pytest.param("area", -1, "area: -1.0 is below 0.0", id="below the bound"),
    pytest.param("age", 1e300, "age: 1e+300 is too large for float32", id="beyond float32"),
    pytest.param("district", "west", f"district: {NOT_A_CATEGORY}", id="an unseen category that is refused"),
    pytest.param("district", ["east"], "district: not a text", id="a list for a category"),
    pytest.param("heating", float("nan"), "heating: not a text", id="NaN for a category"),
    pytest.param("is_let", "yes", "is_let: not a boolean", id="a text for a boolean"),
    pytest.param("is_let", 2, "is_let: not a boolean", id="2 for a boolean"),
    pytest.param("sold", "soon", "sold: not a date and time (ISO 8601)", id="a text for a datetime"),
    pytest.param("sold", 20250307, "sold: not a date and time (ISO 8601)", id="a number for a datetime"),
]


@pytest.mark.parametrize(("name", "value", "reason"), BAD_VALUES)
def test_v1_refuses_a_bad_value_with_its_column(
    servers: dict[str, Server], name: str, value: Any, reason: str, rows: list[Row]
) -> None:
    body = json.dumps({"instances": [rows[0] | {name: value}]})  # httpx would refuse NaN before the server can
    response = servers["regression"].client.post("/v1/models/regression:predict", content=body)
    assert (response.status_code, response.json()) == (400, {"error": reason})


@pytest.mark.parametrize(("name", "value", "reason"), BAD_VALUES)
def test_v2_refuses_a_bad_value_with_its_column(
    servers: dict[str, Server], name: str, value: Any, reason: str, rows: list[Row]
) -> None:
    body = json.dumps({"inputs": tensors([rows[0] | {name: value}])})
    response = servers["regression"].client.post("/v2/models/regression/infer", content=body)
    assert (response.status_code, response.json()) == (400, {"error": reason})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        pytest.param({"price": 1.0}, "price: is the target; a request must not carry it", id="the target"),
        pytest.param({"rent": 1.0}, "rent: is not a column of flats", id="an unknown column"),
        pytest.param({"heating": ...}, "heating: column is missing", id="a missing column"),
    ],
)
def test_v1_refuses_a_row_of_other_columns(servers: dict[str, Server], rows: list[Row], row: Row, reason: str) -> None:
    merged = {name: value for name, value in (rows[0] | row).items() if value is not ...}
    response = post_v1(servers["regression"], {"instances": [merged]})
    assert (response.status_code, response.json()) == (400, {"error": reason})


def test_a_bad_row_among_good_ones_is_named_and_all_are_refused(servers: dict[str, Server], rows: list[Row]) -> None:
    response = post_v1(servers["regression"], {"instances": [*rows, rows[0] | {"area": 501, "age": "old"}]})
    assert (response.status_code, response.json()) == (400, {"error": "age, row 3: not a number"})


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-www-form-urlencoded", "text/csv", "image/png"]
)
@pytest.mark.parametrize("body", [b"{", b"", b"area=61.5", b"\xff\xfe", b'{"instances": [{"area": nan}]}', b"[" * 5000])
def test_v1_refuses_what_is_not_json(servers: dict[str, Server], content_type: str, body: bytes) -> None:
    url = f"/v1/models/{servers['regression'].name}:predict"
    response = servers["regression"].client.post(url, content=body, headers={"content-type": content_type})
    assert response.status_code == 400
    assert response.json()["error"].startswith("the body is not JSON")


# V2 by REST


def test_v2_answers_as_the_data_plane_does(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    body = post_v2(servers[task], {"id": "42", "inputs": tensors(rows)}).json()
    assert body["model_version"] == VERSION
    assert_same(InferResponse.from_rest(body), planes[task].predict_rows(rows), task)


def test_v2_names_the_classes_of_the_probabilities(servers: dict[str, Server], rows: list[Row]) -> None:
    _, probabilities = post_v2(servers["multiclass"], {"inputs": tensors(rows)}).json()["outputs"]
    assert probabilities["shape"] == [3, 3]
    assert json.loads(probabilities["parameters"]["classes"]) == ["low", "fair", "high"]


def test_v2_makes_an_id_where_there_is_none(servers: dict[str, Server], rows: list[Row]) -> None:
    first, second = (post_v2(servers["regression"], {"inputs": tensors(rows)}).json()["id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param({"shape": [3, 1]}, id="shape n x 1"),
        pytest.param({"shape": [3, 1], "data": [[61.5], [140.0], [8.0]]}, id="nested data"),
        pytest.param({"datatype": "FP32"}, id="FP32"),
        pytest.param({"datatype": "fp64"}, id="in small letters"),
    ],
)
def test_v2_accepts_another_form_of_the_same(
    servers: dict[str, Server], tensor: dict[str, Any], rows: list[Row]
) -> None:
    expected, got = (
        post_v2(servers["regression"], {"id": "1", "inputs": tensors(rows, **c)}) for c in ({}, {"area": tensor})
    )
    assert (got.status_code, got.json()) == (200, expected.json())


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        pytest.param("area", {"datatype": "INT64", "data": [62, 62, 62]}, id="a number as INT64"),
        pytest.param("area", {"datatype": "UINT8", "data": [62, 62, 62]}, id="a number as UINT8"),
        pytest.param("is_let", {"datatype": "INT8", "data": [1, 0, None]}, id="a boolean as INT8"),
        pytest.param("heating", {"datatype": "INT32", "data": [1, 2, 3]}, id="a category as INT32"),
    ],
)
def test_v2_accepts_other_datatypes(
    servers: dict[str, Server], planes: dict[str, DataPlane], name: str, tensor: dict[str, Any], rows: list[Row]
) -> None:
    same = [row | {name: value} for row, value in zip(rows, tensor["data"], strict=True)]
    got = post_v2(servers["regression"], {"inputs": tensors(rows, **{name: tensor})}).json()
    assert got["outputs"][0]["data"] == planes["regression"].predict_rows(same).prediction.tolist()


ALL = ("area", "age", "district", "heating", "is_let", "sold")
BAD_TENSORS = [
    pytest.param({"area": None}, "area: column is missing", id="a missing tensor"),
    pytest.param(
        dict.fromkeys(ALL), "area: column is missing (and age, district, heating, is_let, sold)", id="no tensor"
    ),
    pytest.param(
        {"again": {"name": "area", "shape": [3], "datatype": "FP64", "data": [1.0] * 3}},
        "area: comes twice",
        id="a tensor that comes twice",
    ),
    pytest.param(
        {"rent": {"shape": [3], "datatype": "FP64", "data": [1.0] * 3}},
        "rent: is not a column of flats",
        id="one too many",
    ),
    pytest.param(
        {"price": {"shape": [3], "datatype": "FP64", "data": [1.0] * 3}},
        "price: is the target; a request must not carry it",
        id="the target",
    ),
    pytest.param(
        {"area": {"shape": [1, 3]}}, "area: has shape [1, 3], the shape of a column is [n] or [n, 1]", id="1 x n"
    ),
    pytest.param({"area": {"shape": [3, 1, 1]}}, "area: has shape [3, 1, 1], the shape of", id="three dimensions"),
    pytest.param({"area": {"shape": []}}, "area: has shape [], the shape of", id="no dimension"),
    pytest.param({"area": {"shape": [-3]}}, "area: has shape [-3], the shape of", id="a negative size"),
    pytest.param({"area": {"shape": [4]}}, "area: has 3 values where its shape [4] says 4", id="too few values"),
    pytest.param({"area": {"shape": [2]}}, "area: has 3 values where its shape [2] says 2", id="too many values"),
    pytest.param({"area": {"data": []}}, "area: the data are not FP64 of shape [3]", id="no values"),
    pytest.param({"area": {"shape": [0], "data": []}}, "area: the request holds no row", id="no row"),
    pytest.param(
        {"area": {"shape": [2], "data": [61.5, 8.0]}},
        "columns differ in length: {'area': 2, 'age': 3",
        id="tensors of different lengths",
    ),
    pytest.param(
        {"area": {"datatype": "BYTES", "data": ["1", "2", "3"]}},
        "area: BYTES is not a datatype of a numeric column; these are: FP64, ",
        id="BYTES for a number",
    ),
    pytest.param(
        {"area": {"datatype": "BOOL", "data": [True, True, False]}},
        "area: BOOL is not a datatype of a numeric column",
        id="BOOL for a number",
    ),
    pytest.param(
        {"district": {"datatype": "FP64", "data": [1.0, 2.0, 3.0]}},
        "district: FP64 is not a datatype of a category column",
        id="FP64 for a category",
    ),
    pytest.param(
        {"sold": {"datatype": "INT64", "data": [1, 2, 3]}},
        "sold: INT64 is not a datatype of a datetime column; these are: BYTES",
        id="INT64 for a datetime",
    ),
    pytest.param({"area": {"data": [61.5, float("nan"), 8.0]}}, "area, row 1: ", id="NaN where nothing may be missing"),
    pytest.param({"area": {"data": [1.0, float("inf"), 8.0]}}, "area, row 1: ", id="infinity"),
    pytest.param(
        {"sold": {"data": ["2025-03-07", "2025-03-08", ""]}},
        "sold, row 2: is missing",
        id="the empty text where nothing may be missing",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), BAD_TENSORS)
def test_v2_refuses_bad_tensors(
    servers: dict[str, Server], rows: list[Row], changes: dict[str, Tensor | None], reason: str
) -> None:
    body = json.dumps({"inputs": tensors(rows, **changes)})  # httpx would refuse NaN before the server can
    url = f"/v2/models/{servers['regression'].name}/infer"
    response = servers["regression"].client.post(url, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


@pytest.mark.parametrize(("changes", "reason"), BAD_TENSORS)
def test_grpc_refuses_bad_tensors(
    servers: dict[str, Server], rows: list[Row], changes: dict[str, Tensor | None], reason: str
) -> None:
    full = [{name: rows[0][name] if value is None else value for name, value in row.items()} for row in rows]
    inputs = [InferInput(**tensor) for tensor in tensors(full, **changes)]
    with pytest.raises(grpc.RpcError) as caught:
        run(infer_by_grpc(servers["regression"], InferRequest("regression", inputs)))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details().startswith(reason)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"{", "the body is not JSON: unexpected end of data", id="half a body"),
        pytest.param(b"[]", "the body: is not an object", id="a list"),
        pytest.param(b"{}", "the body.inputs: is missing", id="no inputs"),
        pytest.param(b'{"inputs": [5]}', "the body.inputs.0: is not an object", id="a number for a tensor"),
        pytest.param(
            b'{"inputs": [{"shape": [1]}]}', "the body.inputs.0.name: is missing", id="a tensor without a name"
        ),
        pytest.param(
            b'{"inputs": [{"name": "area", "shape": [1], "datatype": "FP64"}]}',
            "area: data: is missing",
            id="no data",
        ),
        pytest.param(
            b'{"inputs": [{"name": "area", "shape": ["n"], "datatype": "FP64", "data": [1]}]}',
            "area: shape: is not a list of integers",
            id="a text in a shape",
        ),
        pytest.param(
            b'{"inputs": [{"name": "area", "shape": [1], "datatype": "FP128", "data": [1]}]}',
            "area: FP128 is not a datatype of a numeric column",
            id="an unknown datatype",
        ),
    ],
)
def test_v2_refuses_a_malformed_body(servers: dict[str, Server], body: bytes, reason: str) -> None:
    url = f"/v2/models/{servers['regression'].name}/infer"
    response = servers["regression"].client.post(url, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


def binary_area(size: Any) -> dict[str, Any]:
    return {"name": "area", "shape": [1], "datatype": "FP64", "parameters": {"binary_data_size": size}}


@pytest.mark.parametrize(
    ("head", "tail", "length"),
    [
        pytest.param({"inputs": [binary_area(8)]}, b"1234", None, id="too few bytes"),
        pytest.param(
            {"inputs": [binary_area(8) | {"datatype": "BYTES"}]}, b"\xff\xff\xff\xff1234", None, id="a length that lies"
        ),
        pytest.param(
            {"inputs": [binary_area(5) | {"datatype": "BYTES"}]}, b"\x01\x00\x00\x00\xff", None, id="no UTF-8"
        ),
        pytest.param({"inputs": [binary_area("8")]}, b"12345678", None, id="a text for a size"),
        pytest.param({"inputs": [{"name": "area"}]}, b"", None, id="a tensor without a shape"),
        pytest.param({"inputs": [5]}, b"", None, id="a number for a tensor"),
        pytest.param({"inputs": [], "parameters": [5]}, b"", None, id="a list for the parameters"),
        pytest.param({}, b"", None, id="no inputs"),
        pytest.param([], b"", None, id="a list"),
        pytest.param({"inputs": []}, b"", "many", id="a length that is no number"),
        pytest.param({"inputs": []}, b"", "3", id="a length that cuts the JSON"),
        pytest.param(
            {"inputs": [{"name": ["area"], "shape": [1], "datatype": "FP64", "data": [1]}]},
            b"",
            None,
            id="a list for a name",
        ),
        pytest.param(
            {"inputs": [{"name": "area", "shape": "1", "datatype": "FP64", "data": [1]}]},
            b"",
            None,
            id="a text for a shape",
        ),
        pytest.param(
            {"inputs": [{"name": "area", "shape": [1], "datatype": "FP64", "data": "1"}]},
            b"",
            None,
            id="a text for data",
        ),
    ],
)
def test_v2_refuses_a_malformed_binary_body(
    servers: dict[str, Server], head: Any, tail: bytes, length: str | None
) -> None:
    text = json.dumps(head).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": length or str(len(text))}
    url = f"/v2/models/{servers['regression'].name}/infer"
    response = servers["regression"].client.post(url, content=text + tail, headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]


@pytest.mark.parametrize("binary_outputs", [False, True])
def test_v2_answers_binary_tensors(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, binary_outputs: bool, rows: list[Row]
) -> None:
    request = request_of(servers[task], arrays(rows), binary=True, parameters={"binary_data_output": binary_outputs})
    assert_same(run(infer_by_rest(servers[task], request)), planes[task].predict_rows(rows), task)


def test_v2_sends_the_outputs_that_are_asked_for(servers: dict[str, Server], rows: list[Row]) -> None:
    body = {"inputs": tensors(rows), "outputs": [{"name": "probabilities"}]}
    outputs = post_v2(servers["binary"], body).json()["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities"]
    refused = post_v2(servers["binary"], body | {"outputs": [{"name": "margin"}]})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "margin: is not an output; these are: prediction, probabilities"},
    )


def test_metadata_tell_the_schema_of_the_bundle(servers: dict[str, Server], task: str) -> None:
    inputs = [(name, datatype, [-1]) for name, datatype in METADATA.items()]
    classes = {"regression": 0, "binary": 2, "multiclass": 3}[task]
    outputs = [("prediction", LABELS[task], [-1])] + [("probabilities", "FP64", [-1, classes])] * (classes > 0)
    by_rest = servers[task].client.get(f"/v2/models/{task}").json()
    by_grpc = call_grpc(servers[task], "ModelMetadata", pb.ModelMetadataRequest(name=task))
    for side, expected in (("inputs", inputs), ("outputs", outputs)):
        assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in by_rest[side]] == expected
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in getattr(by_grpc, side)] == expected


# gRPC


@pytest.mark.parametrize("binary", [pytest.param(False, id="typed contents"), pytest.param(True, id="raw contents")])
def test_grpc_answers_as_the_data_plane_does(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, binary: bool, rows: list[Row]
) -> None:
    response = run(infer_by_grpc(servers[task], request_of(servers[task], arrays(rows), binary=binary)))
    assert response.model_version == VERSION
    assert_same(response, planes[task].predict_rows(rows), task)


@pytest.mark.parametrize("binary", [pytest.param(False, id="typed"), pytest.param(True, id="raw")])
def test_grpc_answers_in_the_encoding_of_the_request(servers: dict[str, Server], binary: bool, rows: list[Row]) -> None:
    request = request_of(servers["multiclass"], arrays(rows), binary=binary).to_grpc()
    response = call_grpc(servers["multiclass"], "ModelInfer", request)
    assert bool(response.raw_output_contents) is binary
    assert [output.HasField("contents") for output in response.outputs] == [not binary] * 2


def test_grpc_sends_the_outputs_that_are_asked_for(servers: dict[str, Server], rows: list[Row]) -> None:
    request = request_of(
        servers["binary"], arrays(rows), binary=True, request_outputs=[RequestedOutput("probabilities")]
    )
    assert [output.name for output in run(infer_by_grpc(servers["binary"], request)).outputs] == ["probabilities"]


def test_grpc_refuses_another_version_than_the_one_it_has(servers: dict[str, Server], rows: list[Row]) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        run(
            infer_by_grpc(
                servers["binary"], request_of(servers["binary"], arrays(rows), binary=True, model_version="6")
            )
        )
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == f"version 6 was asked for, binary is at {VERSION}"


def test_grpc_refuses_raw_bytes_that_do_not_fit(servers: dict[str, Server], rows: list[Row]) -> None:
    request = request_of(servers["regression"], arrays(rows), binary=True).to_grpc()
    request.raw_input_contents[0] = b"1234"
    with pytest.raises(grpc.RpcError) as caught:
        call_grpc(servers["regression"], "ModelInfer", request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "area: the data are not FP64 of shape [3]"


# What KServe leaves open


def test_explain_is_another_servers_and_echoes_no_header(servers: dict[str, Server], rows: list[Row]) -> None:
    url = f"/v1/models/{servers['regression'].name}:explain"
    response = servers["regression"].client.post(url, json={"instances": rows}, headers={"x-secret": "do not tell"})
    assert (response.status_code, response.json()) == (
        501,
        {"error": "regression predicts; its explainer is another server"},
    )
    assert "do not tell" not in str(response.headers)


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_models_are_not_loaded_or_unloaded_by_strangers(servers: dict[str, Server], verb: str) -> None:
    server = servers["regression"]
    assert server.client.post(f"/v2/repository/models/{server.name}/{verb}").status_code == 501
    request = getattr(pb, f"RepositoryModel{verb.capitalize()}Request")(model_name=server.name)
    with pytest.raises(grpc.RpcError) as caught:
        call_grpc(server, f"RepositoryModel{verb.capitalize()}", request)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert server.is_ready()


def test_an_unknown_model_is_not_found(servers: dict[str, Server], rows: list[Row]) -> None:
    assert servers["regression"].client.post("/v1/models/nobody:predict", json={"instances": rows}).status_code == 404


# The process


def test_health_answers_while_a_long_request_is_computed(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    many = [list(row.values()) for row in rows] * 40_000
    answers = []
    thread = threading.Thread(target=lambda: answers.append(post_v1(server, {"instances": many})))
    thread.start()
    waits = []
    while thread.is_alive():
        started = time.monotonic()
        assert server.client.get("/v2/health/live").status_code == 200
        waits.append(time.monotonic() - started)
        time.sleep(0.02)
    assert answers[0].status_code == 200
    assert len(answers[0].json()["predictions"]) == len(many)
    assert len(waits) > 5


def test_the_event_loop_is_free_during_a_forward_pass(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    class Blocked(DataPlane):
        may_answer = threading.Event()

        def run(self, matrix: Any, *, interval: float | None = None) -> Outputs:
            assert self.may_answer.wait(30)
            return super().run(matrix, interval=interval)

    async def scenario() -> bytes:
        batcher = Batcher(Blocked(planes["regression"].bundle), Limits())
        answer = asyncio.create_task(batcher.answer(V1Request(json.dumps({"instances": rows}).encode(), "1")))
        await asyncio.sleep(0.05)
        assert not answer.done()
        Blocked.may_answer.set()
        return (await answer).reply

    assert len(json.loads(run(scenario()))["predictions"]) == len(rows)


def test_the_process_imports_nothing_of_training(bundles: dict[str, Bundle], serving_env: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import model_name.serving.__main__\n"
        "from model_name.serving.bundle import Bundle\n"
        "from model_name.serving.dataplane import DataPlane\n"
        "DataPlane(Bundle.load(Path(sys.argv[1]))).warm_up()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", program, str(bundles["regression"].directory)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=serving_env)
    imported = result.stdout.split()
    assert "onnxruntime" in imported
    assert set(FORBIDDEN).isdisjoint(imported)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what a process has mapped")
def test_a_server_that_has_answered_has_loaded_no_library_of_training(
    servers: dict[str, Server], rows: list[Row]
) -> None:
    assert post_v1(servers["regression"], {"instances": rows}).status_code == 200
    loaded = Path(f"/proc/{servers['regression'].process.pid}/maps").read_text(encoding="utf-8")
    assert "/onnxruntime/" in loaded
    assert [name for name in FORBIDDEN if f"/{name}/" in loaded] == []


def test_a_server_serves_under_the_name_it_is_given_and_ends_well(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    server = start_server(
        bundles["binary"].directory, "other", "--model_name", "other", "--enable_grpc", "false"
    ).wait()
    assert post_v1(server, {"instances": rows}).status_code == 200
    assert post_v1(server, {"instances": [{"area": 1}]}).status_code == 400
    assert server.stop() == 0
    log = server.output()
    assert "Traceback" not in log
    assert "WARNING model_name.serving refused: v1 predict: 400: age: column is missing" in log
    assert "Warning:" not in log


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        pytest.param(["--bundle", "{tmp}"], 4, "error: {tmp}: is not a bundle, bundle.json is missing", id="no bundle"),
        pytest.param(["--workers", "2"], 2, "error: --workers: a server is one process\n", id="two workers"),
        pytest.param(["--bundel", "x"], 2, "unrecognized arguments: --bundel", id="an unknown argument"),
        pytest.param(["--help"], 0, "--bundle BUNDLE", id="help"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    args: list[str], code: int, words: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = main([arg.format(tmp=tmp_path) for arg in args])
    except SystemExit as exit_:
        returned = int(exit_.code or 0)
    assert returned == code
    assert words.format(tmp=tmp_path) in "".join(capfd.readouterr())


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--http_port {port}: "):
            check_free(Address("", port, None))
    check_free(Address("", port, None))


def test_a_process_without_a_bundle_exits_with_its_code(tmp_path: Path, serving_env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "model_name.serving", "--bundle", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=serving_env)
    assert result.returncode == 4
    assert result.stderr.splitlines() == [
        f"error: {tmp_path}: is not a bundle, bundle.json is missing",
        "  next: name the folder that holds it",
    ]
