"""Fast decoder of gRPC messages: its results equal the parsed messages."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import DecodedRequest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.fast_protobuf import try_decode_grpc
from model_name.serving.protocols.tensors import CONTENTS_FIELDS, DATATYPES, tensors_to_columns
from model_name.serving.protocols.v2_grpc import GrpcRequest, message_to_tensors, parse_message
from tests.support.manifests import manifest_of, plane_of, table_of

COLUMNS: dict[str, dict[str, Any]] = {
    "area": {"kind": "numeric", "nullable": True},
    "is_new": {"kind": "boolean", "nullable": True},
    "street": {"kind": "category", "nullable": True},
    "sold": {"kind": "datetime"},
}
EXAMPLE = {"area": 61.5, "is_new": True, "street": "Elm", "sold": "2025-03-07T09:30:15"}
PLANE: DataPlane = plane_of(manifest_of(table_of(columns=COLUMNS), EXAMPLE))
INTEGERS = {"INT8": 7, "INT16": 15, "INT32": 31, "INT64": 63}
BYTES = st.text(st.characters(exclude_categories=["Cs"]), max_size=140).map(str.encode)


def value_of(datatype: str) -> st.SearchStrategy[Any]:
    """Generate values of a datatype."""
    if datatype == "BYTES":
        return BYTES | st.sampled_from([b"\x1a\x01\x01*", b"*\x05\n\x01a\x12", b"Elm", b"\xff"])
    if datatype in ("FP32", "FP64"):
        return st.floats(width=32 if datatype == "FP32" else 64)
    if datatype == "BOOL":
        return st.booleans()
    if datatype.startswith("U"):
        return st.integers(0, 2 ** (64 if datatype == "UINT64" else 32) - 1) | st.integers(0, 300)
    bits = 63 if datatype == "INT64" else 31
    return st.integers(-(2**bits), 2**bits - 1) | st.integers(-3, 300)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Generate messages of one row or a few, nearly all of them valid."""
    message = pb.ModelInferRequest(model_name=draw(st.sampled_from(["flats", "flats", "flats", "others"])))
    message.id = draw(st.sampled_from(["", "", "an id", "ä" * 70]))
    message.model_version = draw(st.sampled_from(["", "", "", "7"]))
    rows = draw(st.sampled_from([1, 1, 1, 2]))
    for name in draw(st.permutations([*COLUMNS])):
        kind = PLANE.kinds[name]
        datatype = draw(st.sampled_from([one for one in DATATYPES[kind] if one in CONTENTS_FIELDS]))
        values = draw(st.lists(value_of(datatype), min_size=rows, max_size=rows))
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[rows])
        getattr(tensor.contents, CONTENTS_FIELDS[datatype]).extend(values)
    if draw(st.integers(0, 9)) == 0:
        message.outputs.add(name="prediction")
    raw = message.SerializeToString()
    if draw(st.integers(0, 4)) == 0:  # one byte is changed
        place = draw(st.integers(0, len(raw) - 1))
        raw = raw[:place] + bytes([draw(st.integers(0, 255))]) + raw[place + 1 :]
    return raw


@settings(max_examples=300)
@given(messages())
def test_a_decoded_row_equals_the_parsed_message(raw: bytes) -> None:
    decoded = try_decode_grpc(raw, PLANE, Limits(), "flats")
    if decoded is None:
        return
    (row,) = decoded.rows
    message = parse_message(pb.ModelInferRequest, raw)
    table = tensors_to_columns(message_to_tensors(message), PLANE, Limits())
    expected = [table[name] for name in PLANE.inputs]
    assert (message.model_name, message.model_version, message.id) == ("flats", "", decoded.id)
    assert not message.outputs
    assert not message.parameters
    assert [[type(value) for value in values] for values in expected] == [[type(value)] for value in row]
    for value, (other,) in zip(row, expected, strict=True):
        assert value == other or (math.isnan(value) and math.isnan(other))


def regular_message(**changes: Any) -> pb.ModelInferRequest:
    """Create a message that the fast decoder accepts."""
    message = pb.ModelInferRequest(model_name="flats", id=changes.pop("id", ""))
    for name, datatype, value in (
        ("street", "BYTES", b"Elm"),
        ("area", "FP64", 61.5),
        ("sold", "BYTES", b"2025-03-07T09:30:15"),
        ("is_new", "BOOL", True),
    ):
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[1])
        getattr(tensor.contents, CONTENTS_FIELDS[datatype]).append(value)
    return message


def test_a_regular_message_is_decoded() -> None:
    decoded = try_decode_grpc(regular_message(id="an id").SerializeToString(), PLANE, Limits(), "flats")
    assert decoded == DecodedRequest(rows=[[61.5, True, "Elm", "2025-03-07T09:30:15"]], id="an id")


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT32", "UINT64", "FP32", "INT8"])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16384, 2**28 - 1])
def test_integers_of_each_datatype_are_decoded(datatype: str, value: int) -> None:
    message = regular_message()
    tensor = message.inputs[1]
    tensor.ClearField("contents")
    tensor.datatype = datatype
    getattr(tensor.contents, CONTENTS_FIELDS[datatype]).append(value)
    decoded = try_decode_grpc(message.SerializeToString(), PLANE, Limits(), "flats")
    if datatype == "INT8" and value > 127:
        assert decoded is None
        return
    assert decoded is not None
    assert decoded.rows[0][0] == (float(np.float32(value)) if datatype == "FP32" else value)


def test_the_request_is_the_same_with_and_without_the_fast_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = regular_message(id="mine").SerializeToString()
    fast = GrpcRequest(raw, "ours", name="flats")
    assert fast.decode(PLANE, Limits()).rows == [[61.5, True, "Elm", "2025-03-07T09:30:15"]]
    monkeypatch.setattr("model_name.serving.protocols.v2_grpc.try_decode_grpc", lambda *_: None)
    full = GrpcRequest(raw, "ours", name="flats")
    assert full.decode(PLANE, Limits()).table == {name: [value] for name, value in EXAMPLE.items()}
    assert fast.id == full.id == "mine"


def test_a_long_id_is_rejected() -> None:
    raw = regular_message(id="mine" * 20).SerializeToString()
    with pytest.raises(ModelNameError, match="id: the text has 80 characters"):
        GrpcRequest(raw, "ours", name="flats").decode(PLANE, Limits(text_length=50))
