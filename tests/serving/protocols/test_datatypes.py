"""A datatype that contradicts its data is refused in every encoding, with column, row and value."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.errors import DataError
from model_name.serving.batching.requests import InferenceRequest, infer_batch
from model_name.serving.limits import Limits
from model_name.serving.protocols.fast_json import try_decode_v2
from model_name.serving.protocols.tensors import CONTENTS_FIELDS
from model_name.serving.protocols.v2 import V2Request
from model_name.serving.protocols.v2_grpc import GrpcRequest
from tests.support.in_process_requests import infer_request, infer_v2
from tests.support.manifests import manifest_of, plane_of, table_of

COLUMNS: dict[str, dict[str, Any]] = {
    "area": {"kind": "numeric", "nullable": True},
    "street": {"kind": "category", "nullable": True},
    "is_let": {"kind": "boolean", "nullable": True},
    "salary": {"kind": "numeric", "nullable": True, "sensitive": True},
}
ROW = {"area": 1, "street": "Elm", "is_let": True, "salary": 1}
PLANE = plane_of(manifest_of(table_of(columns=COLUMNS), ROW))
NUMBERS = plane_of(manifest_of(table_of(columns=dict.fromkeys(("area", "age"), COLUMNS["area"])), ROW))
Send = Callable[[str, str, Sequence[Any]], Any]
"""Sends values of a column in a datatype, and valid values of the other columns."""


def documents(column: str, datatype: str, values: Sequence[Any], shape: list[int], data: list[Any]) -> dict[str, Any]:
    tensors = [{"name": column, "datatype": datatype, "shape": shape, "data": data}]
    for name, value in ROW.items():
        if name != column:
            kind = {int: "INT8", str: "BYTES", bool: "BOOL"}[type(value)]
            tensors.append({"name": name, "datatype": kind, "shape": [len(values)], "data": [value] * len(values)})
    return {"inputs": tensors}


def send_json(column: str, datatype: str, values: Sequence[Any]) -> Any:
    return infer_v2(PLANE, documents(column, datatype, values, [len(values)], [*values]))


def send_nested(column: str, datatype: str, values: Sequence[Any]) -> Any:
    return infer_v2(PLANE, documents(column, datatype, values, [len(values), 1], [[value] for value in values]))


def send_with_parameters(column: str, datatype: str, values: Sequence[Any]) -> Any:
    document = documents(column, datatype, values, [len(values)], [*values])
    return infer_v2(PLANE, document | {"parameters": {}})


def send_message(column: str, datatype: str, values: Sequence[Any]) -> Any:
    message = pb.ModelInferRequest(model_name="flats")
    for tensor in documents(column, datatype, values, [len(values)], [*values])["inputs"]:
        name, kind, data = tensor["name"], tensor["datatype"], tensor["data"]
        item = message.inputs.add(name=name, datatype=kind, shape=[len(values)])
        texts = [value.encode() if isinstance(value, str) else value for value in data]
        getattr(item.contents, CONTENTS_FIELDS[kind]).extend(texts)
    return infer_request(PLANE, GrpcRequest(message.SerializeToString(), "1", name="flats"))


JSON_SENDERS: dict[str, Send] = {
    "json": send_json,
    "json of shape [n, 1]": send_nested,
    "json with parameters": send_with_parameters,
}
SENDERS: dict[str, Send] = JSON_SENDERS | {"grpc": send_message}


@pytest.mark.parametrize("rows", [1, 2, 40])
@pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)
@pytest.mark.parametrize(
    ("datatype", "value"),
    [("INT8", 300), ("INT8", -129), ("INT16", 40_000), ("UINT8", 256), ("UINT16", 70_000), ("INT16", -32_769)],
)
def test_an_integer_beyond_its_datatype_is_refused(send: Send, datatype: str, value: int, rows: int) -> None:
    with pytest.raises(DataError) as caught:
        send("area", datatype, [1] * (rows - 1) + [value])
    where = "area" if rows == 1 else f"area, row {rows - 1}"
    assert caught.value.message == f"{where}: {value} is not {datatype}"


@pytest.mark.parametrize("send", JSON_SENDERS.values(), ids=JSON_SENDERS)
@pytest.mark.parametrize(
    ("column", "datatype", "value", "quoted"),
    [
        pytest.param("area", "INT64", 1.5, "1.5", id="a fraction"),
        pytest.param("area", "INT64", 2**63, str(2**63), id="above INT64"),
        pytest.param("area", "INT64", 1e300, "1e+300", id="a large float"),
        pytest.param("area", "UINT8", -1, "-1", id="below UINT8"),
        pytest.param("area", "UINT64", -1, "-1", id="below UINT64"),
        pytest.param("area", "INT32", 2**31, str(2**31), id="above INT32"),
        pytest.param("area", "FP16", 65_520, "65520", id="above FP16"),
        pytest.param("area", "FP16", -1e9, "-1000000000.0", id="below FP16"),
        pytest.param("area", "FP32", 1e39, "1e+39", id="above FP32"),
        pytest.param("is_let", "INT8", 0.5, "0.5", id="a fraction for a boolean"),
        pytest.param("street", "INT64", "Elm", "'Elm'", id="a text"),
        pytest.param("street", "INT64", True, "True", id="a boolean"),
        pytest.param("street", "UINT8", 300, "300", id="a category"),
        pytest.param("street", "BOOL", 2, "2", id="a number for BOOL"),
        pytest.param("street", "BOOL", "Elm", "'Elm'", id="a text for BOOL"),
        pytest.param("salary", "INT8", 300, "the value", id="a sensitive value"),
    ],
)
def test_a_value_in_json_that_contradicts_its_datatype_is_refused(
    send: Send, column: str, datatype: str, value: Any, quoted: str
) -> None:
    for values, where in (
        ([value], column),
        ([None, value, None], f"{column}, row 1"),
        ([value] * 20, f"{column}, row 0"),
    ):
        with pytest.raises(DataError) as caught:
            send(column, datatype, values)
        assert caught.value.message == f"{where}: {quoted} is not {datatype}"


@pytest.mark.parametrize("send", JSON_SENDERS.values(), ids=JSON_SENDERS)
@pytest.mark.parametrize("value", [2, "yes"])
def test_boolean_columns_name_what_is_no_boolean(send: Send, value: Any) -> None:
    with pytest.raises(DataError, match=r"^is_let, row 1: not a boolean$"):
        send("is_let", "BOOL", [True, value])


@pytest.mark.parametrize("send", JSON_SENDERS.values(), ids=JSON_SENDERS)
@pytest.mark.parametrize(
    ("column", "datatype", "values"),
    [
        pytest.param("area", "INT8", [127, -128, None], id="INT8"),
        pytest.param("area", "UINT64", [2**64 - 1, 0], id="UINT64"),
        pytest.param("area", "INT64", [-(2**63), 2**63 - 1], id="INT64"),
        pytest.param("area", "INT64", [1.0, 2], id="a float that is an integer"),
        pytest.param("area", "FP16", [65_504, -65_504.0, None, 0.1], id="FP16"),
        pytest.param("area", "FP32", [3.4028234663852886e38, 1], id="FP32"),
        pytest.param("area", "FP64", [1e300 * 0, 1], id="FP64"),
        pytest.param("is_let", "BOOL", [True, None, 0, 1], id="BOOL"),
        pytest.param("street", "BOOL", [True, None], id="BOOL for a category"),
        pytest.param("street", "INT64", [1, None], id="INT64 for a category"),
    ],
)
def test_values_of_their_datatype_are_accepted(send: Send, column: str, datatype: str, values: list[Any]) -> None:
    assert len(send(column, datatype, values)["outputs"][0]["data"]) == len(values)


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [("UINT8", -1, "age, row 1: -1 is not UINT8"), ("INT64", 1.5, "age, row 1: 1.5 is not INT64")],
)
@pytest.mark.parametrize("is_nested", [False, True])
def test_a_value_of_a_matrix_is_named_by_column_and_row(
    datatype: str,
    value: Any,
    message: str,
    is_nested: bool,
) -> None:
    data: list[Any] = [[1, 2], [3, value]] if is_nested else [1, 2, 3, value]
    with pytest.raises(DataError) as caught:
        infer_v2(NUMBERS, {"inputs": [{"name": "x", "datatype": datatype, "shape": [2, 2], "data": data}]})
    assert caught.value.message == message


def test_numbers_of_a_message_may_be_infinite_or_missing() -> None:
    with pytest.raises(DataError, match="inf is not finite"):
        send_message("area", "FP32", [float("nan"), float("inf")])
    send_message("area", "FP32", [float("nan"), 1.0])


def test_raw_bytes_of_bool_are_zero_or_one() -> None:
    text = json.dumps(
        {
            "inputs": [
                tensor
                if tensor["name"] != "is_let"
                else {"name": "is_let", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}}
                for tensor in documents("area", "INT8", [1, 1], [2], [1, 1])["inputs"]
            ]
        }
    ).encode()
    infer_request(PLANE, V2Request(text + b"\0\1", "1", name="flats", json_length=len(text)))
    with pytest.raises(DataError, match=r"^is_let: a byte of the data is neither 0 nor 1, as BOOL is$"):
        infer_request(PLANE, V2Request(text + b"\1\2", "1", name="flats", json_length=len(text)))


def test_the_fast_decoder_leaves_contradictions_to_the_full_one() -> None:
    valid = json.dumps(documents("area", "INT8", [1] * 20, [20], [1] * 20)).encode()
    invalid = json.dumps(documents("area", "INT8", [1] * 20, [20], [300] * 20)).encode()
    assert try_decode_v2(valid, PLANE, Limits()) is not None
    assert try_decode_v2(invalid, PLANE, Limits()) is None


def test_in_a_batch_only_the_request_that_contradicts_fails() -> None:
    def request(value: Any) -> InferenceRequest:
        document = documents("area", "INT8", [1, value], [2], [1, value])
        return V2Request(json.dumps(document).encode(), "1", name="flats")

    responses = infer_batch(PLANE, [request(value) for value in (1, 300, 2)], Limits()).responses
    assert [isinstance(response, DataError) for response in responses] == [False, True, False]
    assert responses[1].message == "area, row 1: 300 is not INT8"
