"""Fast paths agree with their full counterparts, and the table that lists them is correct."""

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import model_name.serving
from model_name.errors import ModelNameError
from model_name.kafka.records import KafkaRequest
from model_name.serving import protocols
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.limits import Limits
from model_name.serving.protocols import fast_json, fast_protobuf
from model_name.serving.protocols.open_inference_messages import pb
from model_name.serving.protocols.tensors import CONTENTS_FIELDS, DATATYPES
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request
from model_name.serving.protocols.v2_grpc import GrpcRequest
from tests.support.fuzz_requests import ANYTHING, dump_json, mutate_document
from tests.support.kafka_records import FakeRecord
from tests.support.manifests import manifest_of, plane_of, table_of

COLUMNS: dict[str, dict[str, Any]] = {
    "size": {"kind": "numeric", "nullable": True},
    "floor": {"kind": "numeric"},
    "is new": {"kind": "boolean", "nullable": True},
    "colour": {"kind": "category", "nullable": True},
    "sold": {"kind": "datetime", "nullable": True},
}
PLANE = plane_of(manifest_of(table_of(columns=COLUMNS), {}))
LIMITS = Limits(rows=40, text_length=12)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numeric": st.none() | st.integers(-(2**63), 2**64) | st.floats(allow_nan=False),
    "boolean": st.none() | st.booleans(),
    "category": st.sampled_from([*["red", "blue", "é", None] * 5, '":', " :", "\ud800", ""]),
    "datetime": st.none() | st.sampled_from(["2025-03-07T09:30:00", "2025-06-21"]),
}
ROW = st.fixed_dictionaries({name: VALUES[column["kind"]] for name, column in COLUMNS.items()})
ROWS = st.lists(ROW, min_size=1, max_size=4) | st.lists(ROW, min_size=14, max_size=18)
MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


class Decoder(NamedTuple):
    """A fast decoder and how to reach its counterpart.

    Attributes:
        path: Name under which the codec imports the fast decoder.
        try_decode: Fast decoder of a body.
        request: Creates the request of a body.
    """

    path: str
    try_decode: Callable[[bytes], DecodedRequest | None]
    request: Callable[[bytes], InferenceRequest]


DECODERS = {
    "v1": Decoder(
        "model_name.serving.protocols.v1.try_decode_v1",
        lambda body: fast_json.try_decode_v1(body, PLANE, LIMITS),
        lambda body: V1Request(body, ""),
    ),
    "v2": Decoder(
        "model_name.serving.protocols.v2.try_decode_v2",
        lambda body: fast_json.try_decode_v2(body, PLANE, LIMITS),
        lambda body: V2Request(body, "", name="flats"),
    ),
    "kafka": Decoder(
        "model_name.kafka.records.try_decode_row",
        lambda body: fast_json.try_decode_row(body, PLANE, LIMITS),
        lambda body: KafkaRequest(FakeRecord(body), name="flats"),
    ),
    "grpc": Decoder(
        "model_name.serving.protocols.v2_grpc.try_decode_grpc",
        lambda body: fast_protobuf.try_decode_grpc(body, PLANE, LIMITS, "flats"),
        lambda body: GrpcRequest(body, "", name="flats"),
    ),
}


@st.composite
def rows_with_faults(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Generate rows whose keys come in one order or in several, and of which one may be invalid."""
    names = draw(st.permutations([*COLUMNS]))
    rows = [{name: row[name] for name in names} for row in draw(ROWS)]
    if draw(st.integers(0, 3)) == 3:
        row = draw(st.sampled_from(rows))
        row[draw(st.sampled_from([*COLUMNS, "other"]))] = draw(ANYTHING)
    if draw(st.integers(0, 5)) == 5:
        del rows[-1][draw(st.sampled_from(names))]
    return rows


def column_tensor(draw: st.DrawFn, name: str, values: list[Any]) -> dict[str, Any]:
    datatype = draw(st.sampled_from([DATATYPES[PLANE.kinds[name]][0]] * 3 + ["FP32", "INT64", "BYTES"]))
    return {"name": name, "shape": [len(values)], "datatype": datatype, "data": values}


@st.composite
def json_bodies(draw: st.DrawFn, protocol: str) -> bytes:
    """Generate bodies of V1, V2 and Kafka: most of them regular, others with faults of content or of syntax."""
    rows = draw(rows_with_faults())
    document: Any
    if protocol == "kafka":
        document = rows[0]
    elif protocol == "v1":
        document = {"instances": rows}
    else:
        names = [name for name in rows[0] if name in COLUMNS]
        document = {"inputs": [column_tensor(draw, name, [row.get(name) for row in rows]) for name in names]}
        if draw(st.booleans()):
            document["id"] = draw(st.text(max_size=16))
    if draw(st.integers(0, 3)) == 3:
        document = draw(mutate_document(document))
    body = dump_json(document)
    if draw(st.integers(0, 3)) == 3:  # white space, duplicate keys, or a changed byte
        old, new = draw(
            st.sampled_from(
                [(b'":', b'" :'), (b'"size":', b'"size": 1, "size":'), (b'"size":', b'"size" : 1, "size":')]
            )
        )
        body = body.replace(old, new, draw(st.integers(1, 3)))
    if body and draw(st.integers(0, 5)) == 5:
        place = draw(st.integers(0, len(body) - 1))
        body = body[:place] + draw(st.sampled_from([b"", b'"', b",", b"\xff", b"1", b" "])) + body[place + 1 :]
    return body


@st.composite
def grpc_messages(draw: st.DrawFn) -> bytes:
    """Generate messages of one row, or of two, most of them regular."""
    message = pb.ModelInferRequest(model_name=draw(st.sampled_from(["flats", "flats", "flats", "others"])))
    message.id = draw(st.sampled_from(["", "an id", "ä" * 70]))
    message.model_version = draw(st.sampled_from(["", "", "", "7"]))
    count = draw(st.sampled_from([1, 1, 1, 2]))
    for name in draw(st.permutations([*COLUMNS])):
        datatype = draw(st.sampled_from([one for one in DATATYPES[PLANE.kinds[name]] if one in CONTENTS_FIELDS]))
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[count])
        value: dict[str, Any] = {"BYTES": b"2025-06-21", "BOOL": True, "FP32": 1.5, "FP64": float("nan")}
        number = draw(st.integers(0, 2**31 - 1) | st.integers(0, 300))
        getattr(tensor.contents, CONTENTS_FIELDS[datatype]).extend([value.get(datatype, number)] * count)
    body = message.SerializeToString()
    if draw(st.integers(0, 4)) == 4:
        place = draw(st.integers(0, len(body) - 1))
        body = body[:place] + bytes([draw(st.integers(0, 255))]) + body[place + 1 :]
    return body


def comparable(value: Any) -> Any:
    """Convert an integer to the float that the full decoder may have kept as an integer, and NaN to None."""
    if type(value) is int or type(value) is float:
        return None if value != value else float(value)  # NaN
    return value


def to_lists(decoded: DecodedRequest) -> dict[str, list[Any]]:
    """Convert the content of a request to comparable values by column."""
    return {
        name: [comparable(value) for value in (values.tolist() if isinstance(values, np.ndarray) else values)]
        for name, values in decoded.to_columns(PLANE.inputs).items()
    }


@pytest.mark.parametrize("protocol", DECODERS)
@MANY
@given(data=st.data())
def test_fast_decoder_agrees_with_the_full_decoder(protocol: str, data: st.DataObject) -> None:
    decoder = DECODERS[protocol]
    body = data.draw(grpc_messages() if protocol == "grpc" else json_bodies(protocol))
    # Given a body that the fast decoder accepts
    decoded = decoder.try_decode(body)
    event("accepted" if decoded else "left to the full decoder")
    if decoded is None:
        return
    # When the codec decodes it without the fast decoder
    fast, full = decoder.request(body), decoder.request(body)
    fast_result = fast.decode(PLANE, LIMITS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder.path, lambda *_: None)
        full_result = full.decode(PLANE, LIMITS)
    # Then content and id are the same
    assert to_lists(decoded) == to_lists(fast_result) == to_lists(full_result)
    assert fast.id == full.id
    assert (decoded.interval, full_result.interval) == (None, None)


@pytest.mark.parametrize("protocol", DECODERS)
@given(body=st.binary(max_size=60))
def test_a_fast_decoder_never_raises(protocol: str, body: bytes) -> None:
    assert DECODERS[protocol].try_decode(body) is None


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        pytest.param("v1", {"instances": [dict.fromkeys(COLUMNS)] * 41}, id="V1, too many rows"),
        pytest.param("v2", {"id": "a long id, 21 letters", "inputs": []}, id="V2, a long id"),
    ],
)
def test_limits_are_reported_by_the_full_decoder(protocol: str, body: Any) -> None:
    content = dump_json(body)
    assert DECODERS[protocol].try_decode(content) is None
    with pytest.raises(ModelNameError, match="this server takes"):
        DECODERS[protocol].request(content).decode(PLANE, LIMITS)


# The table of fast paths


def table_rows() -> list[list[str]]:
    """Parse the table in the docstring of the package: fast path, counterpart, file of the property test."""
    lines = [line for line in (protocols.__doc__ or "").splitlines() if line.startswith("| `")]
    return [re.findall(r"`([^`]+)`", line) for line in lines]


def resolve(name: str) -> Any:
    """Find what a dotted name below `model_name.serving` refers to."""
    module, attributes = name.split("."), []
    while True:
        try:
            resolved: Any = import_module(".".join([model_name.serving.__name__, *module]))
            break
        except ModuleNotFoundError:
            attributes.insert(0, module.pop())
    for attribute in attributes:
        resolved = getattr(resolved, attribute)
    return resolved


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: row[0])
def test_every_row_of_the_table_of_fast_paths_is_correct(row: list[str]) -> None:
    fast, full, test = row
    assert callable(resolve(fast))
    module = fast.rsplit(".", 1)[0]
    assert callable(resolve(full if "." in full else f"{module}.{full}"))
    text = (Path(__file__).parents[1] / test).read_text(encoding="utf-8")
    assert fast.rsplit(".", 1)[1] in text


def test_the_table_of_fast_paths_is_complete() -> None:
    root = Path(model_name.serving.__file__).parent
    listed = {row[0].rsplit(".", 1)[1] for row in table_rows()}
    defined = {
        name
        for file in root.rglob("*.py")
        for name in re.findall(
            r"^(?:def (?=try_(?:decode|transpose|select))|    def (?=try_encode))(\w+)\(",
            file.read_text(encoding="utf-8"),
            re.M,
        )
    }
    assert defined <= listed
