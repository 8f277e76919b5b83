"""Decoding of records into requests, and encoding of results as records."""

import json
from base64 import b64encode
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.kafka.records import (
    RESULT_SOURCE_HEADERS,
    KafkaRequest,
    OutputRecord,
    RecordPosition,
    parse_source,
    source_headers,
)
from model_name.serving.limits import Limits
from tests.support.in_process_requests import infer_request
from tests.support.kafka_records import FakeRecord, event_headers
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

PLANES = {task: plane_of(manifest_of(table_of(task))) for task in ("regression", "binary", "multiclass")}
PLANE = PLANES["regression"]
LIMITS = Limits(body_bytes=20_000, rows=3)
ATTRIBUTES = {"specversion": "1.0", "id": "e-1", "source": "/here", "type": "flat"}


def predict(record: Any, plane: Any = PLANE) -> OutputRecord:
    found: OutputRecord = infer_request(plane, KafkaRequest(record, name="flats"), LIMITS)
    return found


def count_predictions(record: Any) -> int:
    """Count the predictions in the result."""
    found = json.loads(predict(record).value or b"")
    return len(found.get("data", found)["predictions"])


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def structured(data: Any, **more: Any) -> bytes:
    return as_json(ATTRIBUTES | {"data": data} | more)


def structured_base64(data: Any) -> bytes:
    return as_json(ATTRIBUTES | {"data_base64": b64encode(as_json(data)).decode()})


def position_headers(topic: Any = b"in", partition: Any = b"1", offset: Any = b"5") -> Any:
    return [("source-topic", topic), ("source-partition", partition), ("source-offset", offset)]


STRUCTURED = [("content-type", b"application/cloudevents+json; charset=utf-8")]


# Accepted records


@pytest.mark.parametrize(
    ("value", "headers", "count"),
    [
        pytest.param(as_json(EXAMPLE), [], 1, id="a row"),
        pytest.param(as_json([EXAMPLE] * 3), [], 3, id="rows"),
        pytest.param(as_json({"instances": [EXAMPLE] * 2}), [], 2, id="a body of V1"),
        pytest.param(as_json({"instances": [[*EXAMPLE.values()]]}), [], 1, id="a body of V1 with arrays"),
        pytest.param(as_json(json.dumps(EXAMPLE)), [], 1, id="JSON within JSON"),
        pytest.param(as_json(EXAMPLE), [("content-type", b"application/json")], 1, id="content type JSON"),
        pytest.param(as_json(EXAMPLE), [("Content-Type", b"text/json;charset=utf-8")], 1, id="content type text/json"),
        pytest.param(as_json(EXAMPLE), [("content-type", b"application/flat+json")], 1, id="content type with +json"),
        pytest.param(as_json(EXAMPLE), [("content-type", None)], 1, id="content type null"),
        pytest.param(as_json(EXAMPLE), [("trace", b"\xff"), ("trace", None)], 1, id="other headers"),
        pytest.param(as_json(EXAMPLE), event_headers(), 1, id="an event in binary mode"),
        pytest.param(
            as_json(EXAMPLE),
            [("ce-" + n, v.encode()) for n, v in ATTRIBUTES.items()],
            1,
            id="from an HTTP bridge",
        ),
        pytest.param(structured(EXAMPLE), STRUCTURED, 1, id="an event in structured mode"),
        pytest.param(structured([EXAMPLE] * 2), STRUCTURED, 2, id="an event with rows"),
        pytest.param(structured({"instances": [EXAMPLE]}), STRUCTURED, 1, id="an event with a body of V1"),
        pytest.param(structured(json.dumps(EXAMPLE)), STRUCTURED, 1, id="an event with JSON text"),
        pytest.param(structured_base64(EXAMPLE), STRUCTURED, 1, id="an event with Base64"),
        pytest.param(
            structured(EXAMPLE),
            [*STRUCTURED, ("ce_id", b"")],
            1,
            id="structured, with a binary header",
        ),
    ],
)
def test_a_valid_record_is_predicted(value: bytes, headers: Any, count: int) -> None:
    assert count_predictions(FakeRecord(value, headers)) == count


# Rejected records


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        pytest.param(None, [], "tombstone", id="a tombstone"),
        pytest.param(b"", [], "not JSON", id="an empty value"),
        pytest.param(b"area=5", [], "not JSON", id="text"),
        pytest.param(b'{"area": 5', [], "not JSON", id="an incomplete row"),
        pytest.param(b'{"street": "\xff"}', [], "not JSON", id="invalid UTF-8"),
        pytest.param(b"5", [], "neither an object", id="a number"),
        pytest.param(b"null", [], "neither an object", id="null"),
        pytest.param(b"[[1, 2]]", [], "neither an object", id="an array of arrays"),
        pytest.param(b"[]", [], "no row", id="no rows"),
        pytest.param(b'{"instances": []}', [], "no row", id="no instances"),
        pytest.param(b'{"instances": 5}', [], "to be a list", id="invalid instances"),
        pytest.param(as_json(EXAMPLE | {"area": "wide"}), [], "area", id="text for a number"),
        pytest.param(as_json(EXAMPLE | {"nothing": 1}), [], "nothing", id="an unknown column"),
        pytest.param(as_json([EXAMPLE] * 4), [], "4 rows", id="too many rows"),
        pytest.param(as_json(EXAMPLE | {"street": "x" * 20_000}), [], "takes 20000", id="too large"),
        pytest.param(b'{"area":1,"area":2}', [], "area: comes twice", id="a key twice"),
        pytest.param(b'[{"area":1},{"area":1,"area":2}]', [], "area: comes twice", id="a key twice in a row"),
        pytest.param(b'{"instances":[{"area":1,"area":2}]}', [], "area: comes twice", id="a key twice in V1"),
        pytest.param(b'{"data":1,"area":1,"area":2}', [], "area: comes twice", id="a key twice, beside `data`"),
        pytest.param(structured({"a": 1})[:-2] + b',"a":2}}', STRUCTURED, "a: comes twice", id="twice in an event"),
        pytest.param(structured({"a": 1})[:-1] + b',"id":"2"}', STRUCTURED, "id: comes twice", id="an attribute twice"),
        pytest.param(as_json(EXAMPLE), [("content-type", b"application/avro")], "avro is not JSON", id="Avro"),
        pytest.param(as_json(EXAMPLE), [("content-type", b"\xff")], "content-type: is not UTF-8", id="a binary type"),
        pytest.param(as_json(EXAMPLE), [("ce_id", b"1")], "specversion", id="an event without a version"),
        pytest.param(as_json(EXAMPLE), event_headers(id=""), "id: the event has no such", id="an event without an id"),
        pytest.param(
            as_json(EXAMPLE), event_headers(specversion="7"), "specversion: 7", id="an event with another version"
        ),
        pytest.param(as_json(EXAMPLE), event_headers(Subject="x"), "Subject", id="an invalid attribute name"),
        pytest.param(
            as_json(EXAMPLE), [*event_headers(), ("ce_x", b"\xff")], "ce_x: is not UTF-8", id="a binary attribute"
        ),
        pytest.param(as_json([1]), STRUCTURED, "not an object", id="a structured event that is an array"),
        pytest.param(as_json(ATTRIBUTES), STRUCTURED, "has no data", id="an event without data"),
        pytest.param(structured(EXAMPLE, data_base64="e30="), STRUCTURED, "data beside it", id="two data fields"),
        pytest.param(as_json(ATTRIBUTES | {"data_base64": "?"}), STRUCTURED, "not Base64", id="invalid Base64"),
    ],
)
def test_an_invalid_record_is_rejected_with_the_reason(value: bytes | None, headers: Any, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        predict(FakeRecord(value, headers))


# Results


def test_the_result_of_a_plain_record_is_an_event_with_its_position() -> None:
    record = FakeRecord(as_json(EXAMPLE), [("trace", b"t1"), ("empty", None)], b"k", "rows", 3, 77)
    result = predict(record)
    headers = dict(result.headers)
    assert (result.key, json.loads(result.value or b"")) == (b"k", {"predictions": [12.5]})
    assert parse_source(result.headers, RESULT_SOURCE_HEADERS) == RecordPosition("rows", 3, 77)
    assert headers == {
        "trace": b"t1",
        "empty": b"",
        "source-topic": b"rows",
        "source-partition": b"3",
        "source-offset": b"77",
        "model-semver": b"1.2.3",
        "ce_specversion": b"1.0",
        "ce_id": b"partition:3/offset:77",
        "ce_source": b"io.kserve.inference.flats",
        "ce_type": b"io.kserve.inference.response",
        "content-type": b"application/json",
    }


def test_the_trace_of_a_record_is_passed_on_and_logged() -> None:
    traceparent = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    record = FakeRecord(as_json(EXAMPLE), [("traceparent", traceparent), ("tracestate", b"a=1")])
    request = KafkaRequest(record, name="flats")
    result = infer_request(PLANE, request, LIMITS)
    assert dict(result.headers).items() >= {"traceparent": traceparent, "tracestate": b"a=1"}.items()
    assert request.trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("is_structured", [True, False])
def test_the_trace_of_an_event_is_logged(is_structured: bool) -> None:
    # given
    attributes = ATTRIBUTES | {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    if is_structured:
        content_type = [("content-type", b"application/cloudevents+json")]
        record = FakeRecord(as_json(attributes | {"data": EXAMPLE}), content_type)
    else:
        record = FakeRecord(as_json(EXAMPLE), [(f"ce_{name}", value.encode()) for name, value in attributes.items()])
    # when
    request = KafkaRequest(record, name="flats")
    infer_request(PLANE, request, LIMITS)
    # then
    assert request.trace_id == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("task", list(PLANES))
def test_a_result_has_the_fields_of_v1(task: str) -> None:
    found = json.loads(predict(FakeRecord(as_json(EXAMPLE)), PLANES[task]).value or b"")
    assert found.keys() == ({"predictions"} if task == "regression" else {"predictions", "probabilities"})


@pytest.mark.parametrize("prefix", ["ce_", "ce-"])
def test_the_result_of_a_binary_event_keeps_mode_and_extensions(prefix: str) -> None:
    request = ATTRIBUTES | {"subject": "row 5", "traceparent": "00-ab"}
    result = predict(FakeRecord(as_json(EXAMPLE), [(prefix + name, text.encode()) for name, text in request.items()]))
    found = {name[3:]: value.decode() for name, value in result.headers if name.startswith(prefix)}
    assert {"id": "e-1", "requestsource": "/here", "subject": "row 5", "traceparent": "00-ab"}.items() <= found.items()
    assert not [name for name, _ in result.headers if name.startswith({"ce_": "ce-", "ce-": "ce_"}[prefix])]


def test_the_result_of_a_structured_event_is_structured() -> None:
    result = predict(
        FakeRecord(structured(EXAMPLE, subject="row 5", isnew=True), [*STRUCTURED, ("ce_old", b"1"), ("trace", b"t")])
    )
    found = json.loads(result.value or b"")
    assert found["data"] == {"predictions": [12.5]}
    expected = {"id": "e-1", "subject": "row 5", "isnew": True, "datacontenttype": "application/json"}
    assert expected.items() <= found.items()
    names = [name for name, _ in result.headers]
    assert dict(result.headers)["content-type"] == b"application/cloudevents+json"
    assert [name for name in names if name.startswith("ce")] == []
    assert "trace" in names


def test_headers_of_an_earlier_result_and_of_a_dead_letter_are_replaced() -> None:
    earlier = [
        *source_headers(RecordPosition("before", 1, 2), RESULT_SOURCE_HEADERS),
        ("model-semver", b"0.1.0"),
        ("dead-letter-attempts", b"2"),
    ]
    headers = predict(FakeRecord(as_json(EXAMPLE), [*earlier, ("Content-Type", b"application/json")])).headers
    assert parse_source(headers, RESULT_SOURCE_HEADERS) == RecordPosition("in", 1, 5)
    names = [name.lower() for name, _ in headers]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("dead-letter-")]


# Positions


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no headers"),
        pytest.param([("source-topic", b"in"), ("source-partition", b"1")], id="no offset"),
        pytest.param(position_headers(offset=b"five"), id="text for a number"),
        pytest.param(position_headers(offset=None), id="no number"),
        pytest.param(position_headers(partition=b"-1"), id="a partition below zero"),
        pytest.param(position_headers(offset=b"-5"), id="an offset below zero"),
        pytest.param(position_headers(offset=b"9" * 5000), id="thousands of digits"),
        pytest.param(position_headers(offset=b"9" * 20), id="beyond 64 bits"),
        pytest.param(position_headers(topic=b"\xff"), id="a topic that is not UTF-8"),
    ],
)
def test_a_malformed_position_is_none(headers: Any) -> None:
    assert parse_source(headers, RESULT_SOURCE_HEADERS) is None


@given(topic=st.text(min_size=1), partition=st.integers(0, 2**31 - 1), offset=st.integers(0, 10**18 - 1))
def test_a_position_is_parsed_back(topic: str, partition: int, offset: int) -> None:
    try:
        headers = source_headers(RecordPosition(topic, partition, offset), RESULT_SOURCE_HEADERS)
    except UnicodeEncodeError:  # a lone surrogate cannot be in the name of a topic
        return
    assert parse_source(headers, RESULT_SOURCE_HEADERS) == RecordPosition(topic, partition, offset)


# Any record

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
rows = st.dictionaries(st.sampled_from([*EXAMPLE, "data", "instances", "x"]), scalars, max_size=12)
documents = rows | st.lists(rows, max_size=3) | values | st.builds(lambda inner: {"instances": inner}, st.lists(rows))
bodies = (
    st.none()
    | st.binary(max_size=200)
    | documents.map(as_json)
    | documents.map(structured)
    | documents.map(lambda inner: as_json(json.dumps(inner)))
)
names = st.sampled_from(["content-type", "Content-Type", "ce_id", "ce-id", "ce_specversion", "ce_type", "a"])
texts = st.none() | st.binary(max_size=20) | st.sampled_from([b"1.0", b"application/json", STRUCTURED[0][1]])
any_headers = st.lists(st.tuples(names | st.text(max_size=5), texts), max_size=6)


@given(
    value=bodies,
    headers=any_headers | any_headers.map(lambda more: [*event_headers(), *more]) | st.just(STRUCTURED),
)
def test_any_record_has_a_result_or_a_reason(value: bytes | None, headers: Any) -> None:
    with suppress(DataError):
        result = predict(FakeRecord(value, headers, b"k"))
        assert isinstance(json.loads(result.value or b""), dict)
        assert all(isinstance(name, str) and isinstance(text, bytes) for name, text in result.headers)
