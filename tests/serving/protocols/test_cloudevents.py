"""CloudEvents 1.0 around V1: responses, invalid events, and requests as Knative sends them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.serving.batching.request_trace import RequestTrace
from model_name.serving.dataplane import DataPlane
from model_name.serving.protocols.cloudevents import EventRequest, EventResponse, encode_header, is_event
from model_name.serving.protocols.long_lists import MIN_LONG_BYTES
from tests.support.in_process_requests import infer_request
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row

DATA = {"instances": [EXAMPLE]}
ATTRIBUTES = {"specversion": "1.0", "id": "4711", "source": "/flats", "type": "flat.asked"}
STRUCTURED = {b"content-type": b"application/cloudevents+json"}
PLANES = {task: plane_of(manifest_of(table_of(task))) for task in ("regression", "binary", "multiclass")}
PLANE = PLANES["regression"]


def send_binary(attributes: dict[str, Any], data: Any = DATA, plane: DataPlane = PLANE) -> tuple[dict[str, str], Any]:
    """Send an event, and return the attributes and the data of the response."""
    headers = {b"ce-" + name.encode(): encode_header(value) for name, value in attributes.items()}
    response = send_raw(data if isinstance(data, bytes) else json.dumps(data).encode(), headers, plane)
    assert response.content_type == b"application/json"
    attributes_back = {
        name.decode().removeprefix("ce-"): unquote_to_bytes(value).decode() for name, value in response.headers
    }
    return attributes_back, json.loads(response.body)


def send_structured(event: Any, plane: DataPlane = PLANE) -> tuple[dict[str, Any], Any]:
    """Send an event, and return the attributes and the data of the response."""
    response = send_raw(event if isinstance(event, bytes) else json.dumps(event).encode(), STRUCTURED, plane)
    assert (response.content_type, response.headers) == (b"application/cloudevents+json", [])
    document = json.loads(response.body)
    assert document.pop("datacontenttype") == "application/json"
    return document, document.pop("data")


def send_raw(body: bytes, headers: dict[bytes, bytes], plane: DataPlane) -> EventResponse:
    assert is_event(headers)
    request = EventRequest(body, "own", headers=headers, name="flats")
    response: EventResponse = infer_request(plane, request)
    return response


# Responses

EXTENSIONS = {
    "subject": "row 5",
    "partitionkey": "k-1",
    "traceparent": "00-ab-cd-01",
    "kafkaheaderregion": "Köln, 50 %",
}
DROPPED = {"time": "2026-01-02T03:04:05Z", "dataschema": "/schema", "datacontenttype": "application/json"}


@pytest.mark.parametrize("mode", ["binary", "structured"])
@pytest.mark.parametrize("task", list(PLANES))
def test_a_response_correlates_with_its_event(task: str, mode: str) -> None:
    # Given
    sent = ATTRIBUTES | DROPPED | EXTENSIONS
    expected = PLANES[task].predict_rows([EXAMPLE])
    # When
    if mode == "binary":
        attributes, data = send_binary(sent, plane=PLANES[task])
    else:
        attributes, data = send_structured(sent | {"data": DATA}, PLANES[task])
    # Then
    assert attributes.pop("time") > DROPPED["time"]
    assert attributes == EXTENSIONS | {
        "specversion": "1.0",
        "id": "4711",
        "source": "io.kserve.inference.flats",
        "type": "io.kserve.inference.response",
        "requestsource": "/flats",
        "modelversion": "7",
        "modelsemver": "1.2.3",
    }
    assert data["predictions"] == expected.prediction.tolist()
    assert ("probabilities" in data) == (task != "regression")


def test_extensions_keep_their_type_in_structured_mode() -> None:
    extensions = {"retry": True, "attempt": 3, "gone": None, "note": "Grüße\n"}
    attributes, _ = send_structured(ATTRIBUTES | extensions | {"data": DATA})
    assert {name: attributes[name] for name in extensions} == extensions


TRACE_ID, OTHER_ID = "0af7651916cd43dd8448eb211c80319c", "1" * 32
SPAN = f"00-{TRACE_ID}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("sent", "is_traced", "expected", "logged"),
    [
        pytest.param(f"00-{TRACE_ID}-1111111111111111-01", True, SPAN, TRACE_ID, id="of the trace of the request"),
        pytest.param(f"00-{OTHER_ID}-1111111111111111-01", True, None, TRACE_ID, id="of another trace"),
        pytest.param("", True, SPAN, TRACE_ID, id="none"),
        pytest.param(f"00-{OTHER_ID}-1111111111111111-01", False, None, OTHER_ID, id="without tracing"),
        pytest.param("no trace", False, None, "", id="invalid"),
    ],
)
@pytest.mark.parametrize("is_structured", [True, False])
def test_the_trace_of_an_event_is_continued_or_kept(
    is_structured: bool, sent: str, is_traced: bool, expected: str | None, logged: str
) -> None:
    # given
    attributes = ATTRIBUTES | ({"traceparent": sent, "tracestate": "a=1"} if sent else {})
    headers = (
        STRUCTURED if is_structured else {b"ce-" + key.encode(): encode_header(attributes[key]) for key in attributes}
    )
    body = attributes | {"data": DATA} if is_structured else DATA
    request = EventRequest(json.dumps(body).encode(), "own", headers=headers, name="flats")
    if is_traced:
        request.trace = RequestTrace(TRACE_ID, {"traceparent": SPAN}, is_sampled=False)
        request.trace_id = TRACE_ID
    # when
    response = infer_request(PLANE, request)
    # then
    named = {name.decode(): unquote_to_bytes(value).decode() for name, value in response.headers}
    found = json.loads(response.body) if is_structured else {name.removeprefix("ce-"): named[name] for name in named}
    assert found.get("traceparent") == (expected or sent)
    assert found.get("tracestate") == (None if expected else "a=1")
    assert request.trace_id == logged


def test_the_trace_of_a_long_event_is_logged() -> None:
    headers = {b"ce-" + name.encode(): value.encode() for name, value in (ATTRIBUTES | {"traceparent": SPAN}).items()}
    body = json.dumps(DATA).encode() + b" " * MIN_LONG_BYTES
    request = EventRequest(body, "own", headers=headers, name="flats")
    infer_request(PLANE, request)
    assert (request.id, request.trace_id) == (ATTRIBUTES["id"], TRACE_ID)


def test_attributes_of_the_model_cannot_be_set_by_the_event() -> None:
    attributes, _ = send_binary(ATTRIBUTES | {"modelversion": "99", "modelsemver": "9.9.9", "requestsource": "/else"})
    assert (attributes["modelversion"], attributes["modelsemver"], attributes["requestsource"]) == (
        "7",
        "1.2.3",
        "/flats",
    )


def test_an_event_may_request_intervals() -> None:
    data = DATA | {"parameters": {"interval": 0.9}}
    for _, response in (send_binary(ATTRIBUTES, data), send_structured(ATTRIBUTES | {"data": data})):
        assert response == {"predictions": [{"prediction": 12.5, "lower": 10.5, "upper": 14.5}]}


@pytest.mark.parametrize(
    "within",
    [
        pytest.param({"data": DATA}, id="an object"),
        pytest.param({"data": json.dumps(DATA)}, id="a text"),
        pytest.param({"data_base64": b64encode(json.dumps(DATA).encode()).decode()}, id="bytes"),
    ],
)
def test_data_may_be_an_object_a_text_or_bytes(within: dict[str, Any]) -> None:
    assert send_structured(ATTRIBUTES | within)[1] == {"predictions": [12.5]}


@pytest.mark.parametrize("version", ["1.0", "0.3"])
def test_time_and_content_type_may_be_missing(version: str) -> None:
    assert send_binary(ATTRIBUTES | {"specversion": version})[0]["specversion"] == "1.0"
    assert send_structured(ATTRIBUTES | {"specversion": version, "data": DATA})[0]["specversion"] == "1.0"


@given(st.text(st.characters(codec="utf-8"), max_size=100))
def test_any_text_is_encoded_as_a_valid_header(text: str) -> None:
    header = encode_header(text)
    assert all(0x20 <= byte < 0x7F and byte != ord('"') for byte in header)
    assert unquote_to_bytes(header).decode() == text


# Invalid events


@pytest.mark.parametrize(
    "send",
    [
        pytest.param(send_binary, id="binary"),
        pytest.param(lambda attributes: send_structured(attributes | {"data": DATA}), id="structured"),
    ],
)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"id": ""}, "id: the event has no such attribute, or it is no text", id="an empty id"),
        pytest.param({"source": ""}, "source: the event has no such attribute", id="an empty source"),
        pytest.param({"type": ""}, "type: the event has no such attribute", id="an empty type"),
        pytest.param({"specversion": "2.0"}, "specversion: 2.0 is not 1.0", id="another version"),
        pytest.param({"trace_id": "x"}, "trace_id: is not a name of an attribute", id="an underscore"),
        pytest.param({"": "x"}, ": is not a name of an attribute", id="no name"),
        pytest.param({"a" * 65: "x"}, f"{'a' * 65}: is not a name of an attribute", id="a long name"),
        pytest.param({"note": "x" * 4097}, "note: has more than 4096 characters", id="a long text"),
        pytest.param({f"x{n}": "x" for n in range(64)}, "the event has more than 64 attributes", id="many attributes"),
    ],
)
def test_invalid_attributes_are_rejected(send: Callable[[Any], Any], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        send(ATTRIBUTES | changes)
    assert caught.value.message.startswith(reason)


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
def test_a_missing_attribute_is_named(name: str) -> None:
    attributes = {key: value for key, value in ATTRIBUTES.items() if key != name}
    with pytest.raises(DataError, match=f"^{name}: the event has no such attribute"):
        send_structured(attributes | {"data": DATA})
    if name != "specversion":  # without `specversion` the request is not an event but V1
        with pytest.raises(DataError, match=f"^{name}: the event has no such attribute"):
            send_binary(attributes)


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        pytest.param([], "the event is not an object", id="a list"),
        pytest.param(b"{", "the body is not JSON", id="half a body"),
        pytest.param(ATTRIBUTES, 'the body is not an object with "instances"', id="no data"),
        pytest.param(ATTRIBUTES | {"data": None}, 'the body is not an object with "instances"', id="null for data"),
        pytest.param(ATTRIBUTES | {"data": []}, 'the body is not an object with "instances"', id="a list for data"),
        pytest.param(ATTRIBUTES | {"data": "{"}, "the body is not JSON", id="a text that is no JSON"),
        pytest.param(ATTRIBUTES | {"data_base64": "%"}, "data_base64: is not Base64", id="no Base64"),
        pytest.param(ATTRIBUTES | {"data_base64": "ä"}, "data_base64: is not Base64", id="Base64 beyond ASCII"),
        pytest.param(ATTRIBUTES | {"data_base64": 5}, "data_base64: is not Base64", id="a number for Base64"),
        pytest.param(ATTRIBUTES | {"data_base64": "/w=="}, "the body is not JSON", id="bytes that are no JSON"),
        pytest.param(
            ATTRIBUTES | {"data": DATA, "data_base64": "e30="},
            "data_base64: the event has data beside it",
            id="data and data_base64",
        ),
        pytest.param(ATTRIBUTES | {"id": 5, "data": DATA}, "id: the event has no such attribute", id="a number for id"),
        pytest.param(
            ATTRIBUTES | {"note": {}, "data": DATA}, "note: is neither a text, an integer nor a boolean", id="an object"
        ),
        pytest.param(ATTRIBUTES | {"note": 0.5, "data": DATA}, "note: is neither a text, an integer", id="a fraction"),
        pytest.param(
            ATTRIBUTES | {"data": {"instances": [EXAMPLE | {"area": "wide"}]}}, "area: not a number", id="a bad value"
        ),
        pytest.param(
            json.dumps(ATTRIBUTES | {"data": DATA}).replace('"area"', '"area": 1, "area"').encode(),
            "area: comes twice",
            id="a column that comes twice",
        ),
        pytest.param(
            ATTRIBUTES | {"data": json.dumps(DATA).replace('"area"', '"area": 1, "area"')},
            "area: comes twice",
            id="a column that comes twice in a text",
        ),
    ],
)
def test_an_invalid_structured_event_is_rejected(event: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        send_structured(event)
    assert caught.value.message.startswith(reason)


def test_batches_of_events_are_rejected() -> None:
    with pytest.raises(DataError, match="batches of events are not taken; send one event a request"):
        send_raw(b"[]", {b"content-type": b"application/cloudevents-batch+json"}, PLANE)


def test_a_header_that_is_not_utf8_is_rejected() -> None:
    headers = {b"ce-" + name.encode(): value.encode() for name, value in ATTRIBUTES.items()}
    with pytest.raises(DataError, match="ce-note: is not UTF-8"):
        send_raw(json.dumps(DATA).encode(), headers | {b"ce-note": b"%ff"}, PLANE)


# Knative


def knative(offset: int) -> list[tuple[str, str]]:
    """Build the headers with which the dispatcher of a KafkaSource delivers a record that has no content type."""
    return [
        ("Ce-Id", f"partition:3/offset:{offset}"),
        ("Ce-Source", "/apis/v1/namespaces/flats/kafkasources/asked#flats.asked"),
        ("Ce-Specversion", "1.0"),
        ("Ce-Subject", f"partition:3#{offset}"),
        ("Ce-Time", "2026-11-21T13:41:26.123Z"),
        ("Ce-Type", "dev.knative.kafka.event"),
        ("Ce-Key", "flat-17"),
        ("Ce-Partitionkey", "flat-17"),
        ("Ce-Partition", "3"),
        ("Ce-Offset", str(offset)),
        ("Ce-Knativekafkapartition", "3"),
        ("Ce-Knativekafkaoffset", str(offset)),
        ("Ce-Kafkaheadercorrelationid", "a b/ü".encode().decode("latin-1")),
        ("Prefer", "reply"),
        ("User-Agent", "Knative"),
    ]


@pytest.mark.parametrize("content_type", [[], [("content-type", "application/json")]], ids=["no content-type", "JSON"])
def test_a_kafka_record_gets_an_event_for_a_sink(
    servers: dict[str, Server], task: str, rows: list[Row], content_type: list[tuple[str, str]]
) -> None:
    # Given
    server, path = servers[task], f"/v1/models/{task}:predict"
    body = json.dumps({"instances": rows}).encode()
    headers = [(name.encode(), value.encode("latin-1")) for name, value in [*knative(42), *content_type]]
    # When
    first, again = (server.client.post(path, content=body, headers=headers) for _ in range(2))
    # Then
    assert (first.status_code, again.status_code) == (200, 200)
    replies = [
        {name: value for name, value in answer.headers.items() if name.startswith("ce-")} for answer in (first, again)
    ]
    for reply in replies:
        reply.pop("ce-time")
    assert replies[0] == replies[1]  # a record that is delivered twice gets the same event twice
    assert first.content == again.content
    asked = {name.lower(): value for name, value in knative(42) if name.startswith("Ce-")}
    kept = {name: asked[name] for name in asked if name not in ("ce-source", "ce-type", "ce-time")}
    kept["ce-kafkaheadercorrelationid"] = "a b/%C3%BC"
    assert replies[0].items() >= kept.items()
    assert replies[0]["ce-requestsource"] == asked["ce-source"]
    assert replies[0]["ce-type"] == "io.kserve.inference.response"
    assert len(first.json()["predictions"]) == len(rows)


def test_a_record_that_is_not_a_row_is_rejected_without_retry(servers: dict[str, Server]) -> None:
    headers = [(name, value) for name, value in knative(43) if name.isascii() and value.isascii()]
    response = servers["regression"].client.post("/v1/models/regression:predict", content=b"not a row", headers=headers)
    assert response.status_code == 400  # Knative does not retry it, and sends the record to the dead letters
    assert response.json()["error"].startswith("the body is not JSON")
