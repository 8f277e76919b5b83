"""Requests for rows, and predictions in replies."""

import json
import struct

import pytest
from kserve.protocol.grpc import grpc_predict_v2_pb2 as service_pb2

from benchmarks.servers import protocols
from benchmarks.servers.subject import Subject

SUBJECT = Subject(
    name="flats",
    bundle="",
    pyfunc="",
    rows=[{"area": 61.5, "is_let": False, "district": "east"}, {"area": 8.0, "is_let": True, "district": "north"}],
    datatypes={"area": "FP64", "is_let": "BOOL", "district": "BYTES"},
    expected=[100.0, 1.0],
    spread=50.0,
)


def test_v2_sends_one_tensor_a_column():
    inputs = json.loads(protocols.v2(SUBJECT.rows, SUBJECT.datatypes))["inputs"]
    assert inputs == [
        {"name": "area", "shape": [2], "datatype": "FP64", "data": [61.5, 8.0]},
        {"name": "is_let", "shape": [2], "datatype": "BOOL", "data": [False, True]},
        {"name": "district", "shape": [2], "datatype": "BYTES", "data": ["east", "north"]},
    ]


def test_grpc_is_framed_as_it_goes_over_the_wire():
    framed = protocols.grpc(SUBJECT.rows, SUBJECT)
    flag, length = struct.unpack(">BI", framed[: protocols.PREFIX])
    assert (flag, length) == (0, len(framed) - protocols.PREFIX)
    request = service_pb2.ModelInferRequest.FromString(framed[protocols.PREFIX :])
    area, is_let, district = request.inputs
    assert request.model_name == "flats"
    assert list(area.contents.fp64_contents) == [61.5, 8.0]
    assert list(is_let.contents.bool_contents) == [False, True]
    assert list(district.contents.bytes_contents) == [b"east", b"north"]
    assert list(area.shape) == [2]


def typed():
    reply = service_pb2.ModelInferResponse()
    reply.outputs.add(name="prediction", datatype="FP64", shape=[2]).contents.fp64_contents.extend([1.5, 2.5])
    return reply.SerializeToString()


def raw():
    reply = service_pb2.ModelInferResponse(raw_output_contents=[struct.pack("<2d", 1.5, 2.5)])
    reply.outputs.add(name="prediction", datatype="FP64", shape=[2])
    return reply.SerializeToString()


V2 = {"outputs": [{"name": "lower", "data": [0]}, {"name": "prediction", "data": [1.5, 2.5]}]}


@pytest.mark.parametrize(
    ("read", "reply"),
    [
        pytest.param(protocols.read_v1, b'{"predictions": [1.5, 2.5]}', id="V1"),
        pytest.param(protocols.read_v1, b'{"predictions": [{"prediction": 1.5}, {"prediction": 2.5}]}', id="MLflow"),
        pytest.param(protocols.read_v2, json.dumps(V2).encode(), id="V2, among other outputs"),
        pytest.param(protocols.read_grpc, typed(), id="gRPC, typed"),
        pytest.param(protocols.read_grpc, raw(), id="gRPC, raw"),
    ],
)
def test_predictions_are_read(read, reply):
    assert read(reply) == [1.5, 2.5]


@pytest.mark.parametrize(
    ("answers", "difference"),
    [
        pytest.param([100.0, 1.0], 0.0, id="the same"),
        pytest.param([101.0, 1.0], 0.01, id="of the prediction"),
        pytest.param([100.0, 2.0], 0.02, id="of the spread where the prediction is small"),
        pytest.param([99.0], 0.01, id="fewer rows"),
    ],
)
def test_a_difference_is_relative(answers, difference):
    assert SUBJECT.difference(answers) == pytest.approx(difference)
