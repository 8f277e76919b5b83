"""Request encoders and response decoders."""

import json
import struct

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as service_pb2

from benchmarks.servers import protocols
from benchmarks.servers.served_model import ServedModel

MODEL = ServedModel(
    name="flats",
    bundle="",
    pyfunc="",
    rows=[{"area": 61.5, "is_let": False, "district": "east"}, {"area": 8.0, "is_let": True, "district": "north"}],
    datatypes={"area": "FP64", "is_let": "BOOL", "district": "BYTES"},
    expected=[100.0, 1.0],
    spread=50.0,
)


def test_v2_request_has_one_tensor_per_column():
    inputs = json.loads(protocols.encode_v2(MODEL.rows, MODEL.datatypes))["inputs"]
    assert inputs == [
        {"name": "area", "shape": [2], "datatype": "FP64", "data": [61.5, 8.0]},
        {"name": "is_let", "shape": [2], "datatype": "BOOL", "data": [False, True]},
        {"name": "district", "shape": [2], "datatype": "BYTES", "data": ["east", "north"]},
    ]


def test_grpc_request_is_framed():
    framed = protocols.encode_grpc(MODEL.rows, MODEL)
    flag, length = struct.unpack(">BI", framed[: protocols.GRPC_PREFIX_BYTES])
    assert (flag, length) == (0, len(framed) - protocols.GRPC_PREFIX_BYTES)
    request = service_pb2.ModelInferRequest.FromString(framed[protocols.GRPC_PREFIX_BYTES :])
    area, is_let, district = request.inputs
    assert request.model_name == "flats"
    assert list(area.contents.fp64_contents) == [61.5, 8.0]
    assert list(is_let.contents.bool_contents) == [False, True]
    assert list(district.contents.bytes_contents) == [b"east", b"north"]
    assert list(area.shape) == [2]


def typed_response():
    response = service_pb2.ModelInferResponse()
    response.outputs.add(name="prediction", datatype="FP64", shape=[2]).contents.fp64_contents.extend([1.5, 2.5])
    return response.SerializeToString()


def raw_response():
    response = service_pb2.ModelInferResponse(raw_output_contents=[struct.pack("<2d", 1.5, 2.5)])
    response.outputs.add(name="prediction", datatype="FP64", shape=[2])
    return response.SerializeToString()


V2 = {"outputs": [{"name": "lower", "data": [0]}, {"name": "prediction", "data": [1.5, 2.5]}]}


@pytest.mark.parametrize(
    ("decode", "response"),
    [
        pytest.param(protocols.decode_v1, b'{"predictions": [1.5, 2.5]}', id="V1"),
        pytest.param(protocols.decode_v1, b'{"predictions": [{"prediction": 1.5}, {"prediction": 2.5}]}', id="MLflow"),
        pytest.param(protocols.decode_v2, json.dumps(V2).encode(), id="V2, among other outputs"),
        pytest.param(protocols.decode_grpc, typed_response(), id="gRPC, typed"),
        pytest.param(protocols.decode_grpc, raw_response(), id="gRPC, raw"),
    ],
)
def test_predictions_are_decoded(decode, response):
    assert decode(response) == [1.5, 2.5]


@pytest.mark.parametrize(
    ("predictions", "difference"),
    [
        pytest.param([100.0, 1.0], 0.0, id="equal"),
        pytest.param([101.0, 1.0], 0.01, id="relative to the prediction"),
        pytest.param([100.0, 2.0], 0.02, id="relative to the spread for a small prediction"),
        pytest.param([99.0], 0.01, id="fewer rows"),
    ],
)
def test_difference_is_relative(predictions, difference):
    assert MODEL.difference(predictions) == pytest.approx(difference)
