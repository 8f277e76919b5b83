"""Tensors: one per column or one matrix of all inputs, in every encoding, and the metadata."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.errors import DataError, TooLargeError
from model_name.serving.bundle import GRAPH_INPUT, Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.tensors import (
    CONTENTS_FIELDS,
    DTYPES,
    Tensor,
    encode_raw,
    label_datatype,
    model_metadata,
)
from model_name.serving.protocols.v2 import V2Request
from model_name.serving.protocols.v2_grpc import GrpcRequest
from tests.support.in_process_requests import infer_request, infer_v2
from tests.support.manifests import COLUMNS, manifest_of, table_of

Rows = Sequence[Sequence[Any]]
Sender = Callable[[DataPlane, str, Rows], list[Any]]
"""Sends one matrix of a datatype, and returns the predictions."""


@pytest.mark.parametrize(
    ("classes", "datatype"),
    [
        pytest.param((), "FP64", id="a regression"),
        pytest.param((False, True), "BOOL", id="booleans"),
        pytest.param((0, 1, 2), "INT64", id="integers"),
        pytest.param(("a", "b"), "BYTES", id="texts"),
        pytest.param((0, "a", True), "BYTES", id="mixed types"),
    ],
)
def test_labels_of_one_type_keep_it_as_datatype(classes: tuple[Any, ...], datatype: str) -> None:
    assert label_datatype(classes) == datatype


@pytest.mark.parametrize(
    ("task", "outputs"),
    [
        pytest.param("regression", [("prediction", "FP64", [-1])], id="a regression"),
        pytest.param(
            "binary", [("prediction", "BOOL", [-1]), ("probabilities", "FP64", [-1, 2])], id="a binary classification"
        ),
        pytest.param(
            "multiclass",
            [("prediction", "BYTES", [-1]), ("probabilities", "FP64", [-1, 3])],
            id="more than two classes",
        ),
    ],
)
def test_metadata_list_names_datatypes_and_shapes(task: str, outputs: list[Any]) -> None:
    metadata = model_metadata("houses", manifest_of(table_of(task)))
    assert [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in metadata["outputs"]] == outputs
    assert {tensor["name"]: tensor["datatype"] for tensor in metadata["inputs"]} == {
        "area": "FP64",
        "age": "FP64",
        "rooms": "FP64",
        "district": "BYTES",
        "heating": "BYTES",
        "street": "BYTES",
        "is_let": "BOOL",
        "is_new": "BOOL",
        "sold": "BYTES",
        "seen": "BYTES",
    }
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("houses", ["7"], "onnxruntime_onnx")


# One matrix


class Weighted:
    """Graph that adds its features, the k-th multiplied by 1000 ** k, with 7 for missing ones."""

    def run(self, names: list[str], feeds: dict[str, Any]) -> list[np.ndarray]:
        matrix = np.nan_to_num(feeds[GRAPH_INPUT].astype(np.float64), nan=7.0)
        return [(matrix @ 1000.0 ** np.arange(matrix.shape[1]))[:, None]]


def plane_over(*names: str) -> DataPlane:
    """Create a data plane of a regression with some of the columns."""
    manifest = manifest_of(table_of(columns={name: COLUMNS[name] for name in names}), example={})
    return DataPlane(Bundle(Path(), manifest, cast(ort.InferenceSession, Weighted())))


NUMBERS = plane_over("area", "age", "rooms")
FLAGS = plane_over("area", "is_new", "is_let")
TEXTS = plane_over("district", "heating", "sold")
MIXED = plane_over("area", "district", "is_new")
SINGLE = plane_over("area")
LIMITS = Limits(rows=4)


def as_json(values: Any, datatype: str, shape: Sequence[int], name: str = "input-0") -> dict[str, Any]:
    return {"inputs": [{"name": name, "shape": list(shape), "datatype": datatype, "data": values}]}


def shape_of(rows: Rows) -> list[int]:
    return [len(rows), len(rows[0])]


def flat_of(rows: Rows, missing: Any) -> list[Any]:
    return [missing if value is None else value for row in rows for value in row]


def missing_in(datatype: str) -> Any:
    """Return what encodes a missing value without null."""
    return "" if datatype == "BYTES" else np.nan


def predictions_of(plane: DataPlane, message: pb.ModelInferRequest) -> list[Any]:
    response = pb.ModelInferResponse.FromString(
        infer_request(plane, GrpcRequest(message.SerializeToString(), "1", name="flats"))
    )
    (output,) = response.outputs
    if response.raw_output_contents:
        return np.frombuffer(response.raw_output_contents[0], np.float64).tolist()
    return list(output.contents.fp64_contents)


def flat(plane: DataPlane, datatype: str, rows: Rows) -> list[Any]:
    return cast(
        list[Any], infer_v2(plane, as_json(flat_of(rows, None), datatype, shape_of(rows)))["outputs"][0]["data"]
    )


def nested(plane: DataPlane, datatype: str, rows: Rows) -> list[Any]:
    return cast(list[Any], infer_v2(plane, as_json(rows, datatype, shape_of(rows)))["outputs"][0]["data"])


def binary(plane: DataPlane, datatype: str, rows: Rows) -> list[Any]:
    raw = encode_raw(Tensor("", datatype, [], values=flat_of(rows, missing_in(datatype))))
    described = {
        "name": "x",
        "shape": shape_of(rows),
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [described]}).encode()
    request = V2Request(head + raw, "1", name="flats", json_length=len(head))
    return cast(list[Any], json.loads(infer_request(plane, request))["outputs"][0]["data"])


def typed(plane: DataPlane, datatype: str, rows: Rows) -> list[Any]:
    values = flat_of(rows, missing_in(datatype))
    contents = {CONTENTS_FIELDS[datatype]: [value.encode() if isinstance(value, str) else value for value in values]}
    message = pb.ModelInferRequest(model_name="flats")
    message.inputs.add(name="x", datatype=datatype, shape=shape_of(rows), contents=pb.InferTensorContents(**contents))
    return predictions_of(plane, message)


def raw(plane: DataPlane, datatype: str, rows: Rows) -> list[Any]:
    values = flat_of(rows, missing_in(datatype))
    contents = [encode_raw(Tensor("", datatype, [], values=values))]
    message = pb.ModelInferRequest(model_name="flats", raw_input_contents=contents)
    message.inputs.add(name="x", datatype=datatype, shape=shape_of(rows))
    return predictions_of(plane, message)


SENDERS = [
    pytest.param(flat, id="flat JSON"),
    pytest.param(nested, id="nested JSON"),
    pytest.param(binary, id="binary"),
    pytest.param(typed, id="typed contents of gRPC"),
    pytest.param(raw, id="raw contents of gRPC"),
]


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize(
    ("plane", "datatype", "rows"),
    [
        pytest.param(NUMBERS, "FP64", [[61.5, 12.0, 3.0], [140.0, None, 20.0]], id="FP64"),
        pytest.param(NUMBERS, "FP32", [[61.5, 12.0, 3.0], [140.0, None, 2.0]], id="FP32"),
        pytest.param(NUMBERS, "INT64", [[61, 12, 3], [140, 80, 2]], id="INT64"),
        pytest.param(NUMBERS, "INT32", [[61, 12, 3]], id="INT32, one row"),
        pytest.param(NUMBERS, "UINT8", [[61, 12, 3], [140, 80, 2]], id="UINT8"),
        pytest.param(FLAGS, "FP64", [[61.5, 1.0, 0.0], [140.0, 0.0, None]], id="FP64, booleans among them"),
        pytest.param(FLAGS, "INT64", [[61, 1, 0], [140, 0, 1]], id="INT64, booleans among them"),
        pytest.param(
            TEXTS,
            "BYTES",
            [["east", "gas", "2025-03-07T09:30:00"], ["", "wood", "2025-06-21"]],
            id="BYTES, the empty text a category",
        ),
        pytest.param(TEXTS, "BYTES", [["north", None, "2025-03-07T09:30:00"]], id="BYTES, one missing"),
        pytest.param(SINGLE, "FP32", [[1.5], [2.5]], id="a single column under another name"),
        pytest.param(MIXED, "FP64", [[61.5, 3.0, 1.0]], id="FP64, the code of a category among them"),
        pytest.param(MIXED, "INT64", [[61, 3, 1]], id="INT64 for numbers, a category and a boolean"),
    ],
)
def test_a_matrix_holds_the_inputs_in_their_order(plane: DataPlane, datatype: str, rows: Rows, send: Sender) -> None:
    expected = plane.predict_rows([list(row) for row in rows]).prediction.tolist()
    assert send(plane, datatype, rows) == expected
    assert len(set(expected)) == len(rows)


def test_a_matrix_of_fp16_is_binary() -> None:
    rows = [[61.5, 12.0, 3.0], [140.0, None, 2.0]]
    expected = NUMBERS.predict_rows(rows).prediction.tolist()
    assert binary(NUMBERS, "FP16", rows) == raw(NUMBERS, "FP16", rows) == expected


@pytest.mark.parametrize("name", ["area", "input-0"])
@pytest.mark.parametrize("values", [[1.5, 2.5], [[1.5], [2.5]]], ids=["flat", "nested"])
def test_the_one_column_of_a_table_may_have_its_own_name_or_another(name: str, values: Any) -> None:
    assert infer_v2(SINGLE, as_json(values, "FP64", [2, 1], name))["outputs"][0]["data"] == [1.5, 2.5]


@pytest.mark.parametrize("send", SENDERS)
@pytest.mark.parametrize(
    ("plane", "datatype", "rows", "reason"),
    [
        pytest.param(
            NUMBERS,
            "FP64",
            [[61.5, 12.0], [140.0, 1.0]],
            r"is no column and has shape \[2, 2\]; a matrix of all inputs has shape \[n, 3\]",
            id="too narrow",
        ),
        pytest.param(
            NUMBERS, "FP32", [[1.0, 2.0, 3.0, 4.0]], r"is no column and has shape \[1, 4\]; a matrix", id="too wide"
        ),
        pytest.param(
            NUMBERS, "FP64", [[1.0, 2.0, 3.0], [501.0, 2.0, 3.0]], r"^area, row 1: 501.0 is above", id="a bound"
        ),
        pytest.param(NUMBERS, "FP64", [[None, 2.0, 3.0]], r"^area: (is missing|not a number)", id="one missing"),
        pytest.param(NUMBERS, "BYTES", [["1", "2", "3"]], r"^area: not a number", id="BYTES for numbers"),
        pytest.param(NUMBERS, "BOOL", [[True, False, True]], r"^area: not a number", id="BOOL for numbers"),
        pytest.param(MIXED, "FP64", [[61.5, 3.5, 1.0]], r"^district: ", id="a fraction for a category"),
        pytest.param(MIXED, "BYTES", [["61.5", "east", "1"]], r"^area: not a number", id="BYTES for a mixed table"),
        pytest.param(
            TEXTS, "BYTES", [["west", "gas", "2025-01-01"]], r"^district: 'west' is not one", id="an unknown category"
        ),
        pytest.param(TEXTS, "BYTES", [["east", "gas", ""]], r"^sold: is missing", id="an empty datetime"),
        pytest.param(NUMBERS, "FP64", [[1.0, 2.0, 3.0]] * 5, r"the request has 5 rows, this server takes 4", id="rows"),
    ],
)
def test_a_matrix_that_does_not_fit_the_inputs_is_rejected(
    plane: DataPlane, datatype: str, rows: Rows, reason: str, send: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.in_process_requests.Limits", lambda: LIMITS)
    with pytest.raises((DataError, TooLargeError), match=reason):
        send(plane, datatype, rows)


@pytest.mark.parametrize(
    ("values", "datatype", "shape", "name", "reason"),
    [
        pytest.param([1.0, 2.0, 3.0], "FP64", [3], "x", "x: is not a column of flats", id="one dimension"),
        pytest.param([1.0] * 6, "FP64", [1, 2, 3], "x", "x: is not a column of flats", id="three dimensions"),
        pytest.param([], "FP64", [0, 3], "x", "x: the request holds no row", id="no row"),
        pytest.param([], "FP64", [-1, 3], "x", "x: is no column and has shape [-1, 3]", id="a size of -1"),
        pytest.param(
            [1.0] * 5, "FP64", [2, 3], "x", "x: has 5 values where its shape [2, 3] says 6", id="too few values"
        ),
        pytest.param(
            [1.0] * 7, "FP64", [2, 3], "x", "x: has 7 values where its shape [2, 3] says 6", id="too many values"
        ),
        pytest.param(
            [[1.0, 2.0, 3.0], [1.0, 2.0]],
            "FP64",
            [2, 3],
            "x",
            "x: its rows do not have 3 values each",
            id="a short row",
        ),
        pytest.param([[1.0, 2.0], [3.0]], "FP64", [1, 3], "x", "x: its rows do not have 3 values each", id="ragged"),
        pytest.param(
            [1.0] * 6, "FP128", [2, 3], "x", "x: FP128 is not a datatype; these are: BOOL, ", id="no datatype"
        ),
        pytest.param(
            [1.0] * 6,
            "FP64",
            [2, 3],
            "area",
            "area: has shape [2, 3], the shape of a column is [n] or [n, 1]",
            id="the name of a column",
        ),
        pytest.param(
            [[[1.0]], [2.0], [3.0]],
            "FP64",
            [1, 3],
            "x",
            "x: its rows do not have 3 values",
            id="one row per value",
        ),
    ],
)
def test_a_malformed_matrix_is_rejected(
    values: Any, datatype: str, shape: Sequence[int], name: str, reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        infer_v2(NUMBERS, as_json(values, datatype, shape, name))
    assert caught.value.message.startswith(reason)


def test_a_matrix_beside_a_column_is_rejected() -> None:
    matrix = as_json([1.0] * 3, "FP64", [1, 3])["inputs"]
    column = as_json([1.0], "FP64", [1], "area")["inputs"]
    with pytest.raises(DataError, match="input-0: is not a column of flats"):
        infer_v2(NUMBERS, {"inputs": matrix + column})


@pytest.mark.parametrize("datatype", [*DTYPES, "BYTES"])
def test_raw_bytes_that_do_not_fill_a_matrix_are_rejected(datatype: str) -> None:
    message = pb.ModelInferRequest(model_name="flats", raw_input_contents=[b"\x01\x00\x00"])
    message.inputs.add(name="x", datatype=datatype, shape=[2, 3])
    with pytest.raises(DataError, match=rf"x: the data are not {datatype} of shape \[2, 3\]"):
        predictions_of(NUMBERS, message)
