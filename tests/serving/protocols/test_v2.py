"""V2 over REST: responses, metadata, prediction intervals, and the error of each invalid request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from kserve import InferResponse
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.serving.dataplane import DataPlane
from tests.support.clients import (
    LABEL_DATATYPES,
    METADATA_DATATYPES,
    VERSION,
    Tensor,
    assert_same_outputs,
    call_grpc,
    infer_by_rest,
    kserve_request,
    post_v2,
    run_async,
    to_arrays,
    to_json_tensors,
)
from tests.support.error_cases import BAD_TENSORS, BAD_VALUES

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row


def test_v2_responds_with_the_outputs_of_the_data_plane(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    body = post_v2(servers[task], {"id": "42", "inputs": to_json_tensors(rows)}).json()
    assert body["model_version"] == VERSION
    assert_same_outputs(InferResponse.from_rest(body), planes[task].predict_rows(rows), task)


def test_v2_names_the_classes_of_the_probabilities(servers: dict[str, Server], rows: list[Row]) -> None:
    _, probabilities = post_v2(servers["multiclass"], {"inputs": to_json_tensors(rows)}).json()["outputs"]
    assert probabilities["shape"] == [3, 3]
    assert json.loads(probabilities["parameters"]["classes"]) == ["low", "fair", "high"]


def test_v2_generates_an_id_if_the_request_has_none(servers: dict[str, Server], rows: list[Row]) -> None:
    first, second = (post_v2(servers["regression"], {"inputs": to_json_tensors(rows)}).json()["id"] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(
    "tensor",
    [
        pytest.param({"shape": [3, 1]}, id="shape n x 1"),
        pytest.param({"shape": [3, 1], "data": [[61.5], [140.0], [8.0]]}, id="nested data"),
        pytest.param({"datatype": "FP32"}, id="FP32"),
        pytest.param({"datatype": "fp64"}, id="in lower case"),
    ],
)
def test_v2_accepts_equivalent_tensors(servers: dict[str, Server], tensor: dict[str, Any], rows: list[Row]) -> None:
    expected, got = (
        post_v2(servers["regression"], {"id": "1", "inputs": to_json_tensors(rows, **c)})
        for c in ({}, {"area": tensor})
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
    got = post_v2(servers["regression"], {"inputs": to_json_tensors(rows, **{name: tensor})}).json()
    assert got["outputs"][0]["data"] == planes["regression"].predict_rows(same).prediction.tolist()


@pytest.mark.parametrize(("name", "value", "reason"), BAD_VALUES)
def test_v2_rejects_an_invalid_value_by_its_column(
    servers: dict[str, Server], name: str, value: Any, reason: str, rows: list[Row]
) -> None:
    body = json.dumps({"inputs": to_json_tensors([rows[0] | {name: value}])})
    response = servers["regression"].client.post("/v2/models/regression/infer", content=body)
    assert (response.status_code, response.json()) == (400, {"error": reason})


@pytest.mark.parametrize(("changes", "reason"), BAD_TENSORS)
def test_v2_rejects_invalid_tensors(
    servers: dict[str, Server], rows: list[Row], changes: dict[str, Tensor | None], reason: str
) -> None:
    body = json.dumps({"inputs": to_json_tensors(rows, **changes)})  # httpx would refuse NaN before the server can
    url = f"/v2/models/{servers['regression'].name}/infer"
    response = servers["regression"].client.post(url, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"].startswith(reason)


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
def test_v2_rejects_a_malformed_body(servers: dict[str, Server], body: bytes, reason: str) -> None:
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
            {"inputs": [binary_area(8) | {"datatype": "BYTES"}]},
            b"\xff\xff\xff\xff1234",
            None,
            id="a wrong length of a text",
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
def test_v2_rejects_a_malformed_binary_body(
    servers: dict[str, Server], head: Any, tail: bytes, length: str | None
) -> None:
    text = json.dumps(head).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": length or str(len(text))}
    url = f"/v2/models/{servers['regression'].name}/infer"
    response = servers["regression"].client.post(url, content=text + tail, headers=headers)
    assert response.status_code == 400, response.text
    assert response.json()["error"]


@pytest.mark.parametrize("binary_outputs", [False, True])
def test_v2_decodes_and_encodes_binary_tensors(
    servers: dict[str, Server], planes: dict[str, DataPlane], task: str, binary_outputs: bool, rows: list[Row]
) -> None:
    request = kserve_request(
        servers[task], to_arrays(rows), binary=True, parameters={"binary_data_output": binary_outputs}
    )
    assert_same_outputs(run_async(infer_by_rest(servers[task], request)), planes[task].predict_rows(rows), task)


def test_v2_responds_with_the_requested_outputs(servers: dict[str, Server], rows: list[Row]) -> None:
    body = {"inputs": to_json_tensors(rows), "outputs": [{"name": "probabilities"}]}
    outputs = post_v2(servers["binary"], body).json()["outputs"]
    assert [output["name"] for output in outputs] == ["probabilities"]
    refused = post_v2(servers["binary"], body | {"outputs": [{"name": "margin"}]})
    assert (refused.status_code, refused.json()) == (
        400,
        {"error": "margin: is not an output; these are: prediction, probabilities"},
    )


def test_metadata_describe_the_schema_of_the_bundle(servers: dict[str, Server], task: str) -> None:
    inputs = [(name, datatype, [-1]) for name, datatype in METADATA_DATATYPES.items()]
    classes = {"regression": 0, "binary": 2, "multiclass": 3}[task]
    outputs = [("prediction", LABEL_DATATYPES[task], [-1])] + [("probabilities", "FP64", [-1, classes])] * (classes > 0)
    by_rest = servers[task].client.get(f"/v2/models/{task}").json()
    by_grpc = call_grpc(servers[task], "ModelMetadata", pb.ModelMetadataRequest(name=task))
    for side, expected in (("inputs", inputs), ("outputs", outputs)):
        assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in by_rest[side]] == expected
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in getattr(by_grpc, side)] == expected


# Prediction intervals


@pytest.mark.parametrize("level", [pytest.param(0.8, id="a number"), pytest.param("0.8", id="a text")])
def test_v2_responds_with_the_bounds_of_the_interval(
    servers: dict[str, Server], planes: dict[str, DataPlane], rows: list[Row], level: Any
) -> None:
    expected = planes["regression"].predict_rows(rows, interval=0.8).columns
    body = post_v2(servers["regression"], {"inputs": to_json_tensors(rows), "parameters": {"interval": level}}).json()
    assert {output["name"]: output["data"] for output in body["outputs"]} == {
        name: values.tolist() for name, values in expected.items()
    }
    assert list(expected) == ["prediction", "lower", "upper"]


def test_v2_rejects_an_unknown_level_and_bounds_without_a_level(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    unknown = post_v2(server, {"inputs": to_json_tensors(rows), "parameters": {"interval": 0.5}})
    unasked = post_v2(server, {"inputs": to_json_tensors(rows), "outputs": [{"name": "lower"}]})
    assert (unknown.status_code, unasked.status_code) == (400, 400)
    assert "the levels are 0.8, 0.9" in unknown.json()["error"]
    assert "lower: is not an output; these are: prediction" in unasked.json()["error"]
