"""CloudEvents 1.0 around V1, in binary and in structured mode.

The response is an event in the mode of the request, and correlates with it: it has the same `id` (from another
`source`, so that they are two events, and a repeated request gets a repeated response), the source of the request as
`requestsource`, its `subject` and all its extensions.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

import orjson
from typing_extensions import override

from model_name.core.schemas import Outputs
from model_name.errors import DataError
from model_name.serving.batching.request_trace import TRACEPARENT, TRACESTATE, RequestTrace, parse_trace_id
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols import strict_json
from model_name.serving.protocols.v1 import (
    check_duplicate_columns,
    encode_predictions,
    match_long_instances,
    parse_instances,
    parse_long_instances,
)

STRUCTURED = b"application/cloudevents+json"
BATCH = b"application/cloudevents-batch"
JSON = b"application/json"
HEADER_PREFIX = b"ce-"
REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")
RESERVED_ATTRIBUTES = (
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
    "data_base64",
)
ATTRIBUTE_NAME = re.compile(r"[a-z0-9]{1,64}")
MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_CHARACTERS = 4096  # of an attribute that is sent back
RESPONSE_TYPE = "io.kserve.inference.response"
ESCAPED_CHARACTERS = re.compile(r"[^!#$&-~ ]|%")  # percent-encoded in headers by the HTTP binding


class EventResponse(NamedTuple):
    """HTTP response that carries an event.

    Attributes:
        body: Data, or the whole event in structured mode.
        content_type: Content type of the body.
        headers: Attributes in binary mode.
    """

    body: bytes
    content_type: bytes
    headers: list[tuple[bytes, bytes]]


def is_event(headers: Mapping[bytes, bytes]) -> bool:
    """Report whether a request is an event.

    Args:
        headers: Headers of the request, with lower-case names.
    """
    content_type = headers.get(b"content-type", b"").lower()
    return b"ce-specversion" in headers or content_type.startswith((STRUCTURED, BATCH))


class EventRequest(InferenceRequest):
    """Event whose data is a body of V1: `{"instances": [ROW, ...]}`."""

    protocol = "cloudevents"

    def __init__(self, body: bytes, id: str, *, headers: Mapping[bytes, bytes], name: str) -> None:  # noqa: A002
        """Store an event, which its batch decodes.

        Args:
            body: Data of the event, or the whole event in structured mode.
            id: Id of the request until the id of the event is decoded.
            headers: Headers of the request, with lower-case names.
            name: Name of the model.
        """
        super().__init__(id, len(body))
        self.body = body
        self.name = name
        self.headers = headers
        self.is_structured = headers.get(b"content-type", b"").lower().startswith((STRUCTURED, BATCH))
        self.attributes: dict[str, Any] = {}

    @override
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        if self.headers.get(b"content-type", b"").lower().startswith(BATCH):
            raise DataError("batches of events are not taken; send one event a request")
        if not self.is_structured and (head := match_long_instances(self.body)) is not None:
            self._parse_headers()
            self._identify()
            return parse_long_instances(self.body, head, plane, limits)
        event = strict_json.loads(self.body)
        body, document, inside = self.body, event, ""
        if self.is_structured:
            (self.attributes, document), inside = parse_structured(event), "data"
        else:
            self._parse_headers()
        if isinstance(document, str | bytes):  # JSON in JSON: the Python SDK encodes data of type str so
            body, inside = document.encode() if isinstance(document, str) else document, ""
            document = strict_json.loads(body)
        self._identify()
        decoded = parse_instances(document, limits)
        check_duplicate_columns(body, event if inside else document, inside)
        return decoded

    @override
    def encode(self, outputs: Outputs, manifest: Manifest) -> EventResponse:
        attributes = response_attributes(self.attributes, self.name, manifest, self.trace)
        data = encode_predictions(outputs)
        if self.is_structured:
            event = attributes | {"datacontenttype": JSON.decode(), "data": data}
            return EventResponse(orjson.dumps(event), STRUCTURED, [])
        headers = [(HEADER_PREFIX + name.encode(), encode_header(value)) for name, value in attributes.items()]
        return EventResponse(orjson.dumps(data), JSON, headers)

    def _identify(self) -> None:
        """Check the attributes, and take over the id of the event and of its trace.

        Raises:
            DataError: An attribute is missing or invalid.
        """
        check_attributes(self.attributes)
        self.id = self.attributes["id"]
        self.trace_id = self.trace_id or event_trace_id(self.attributes)

    def _parse_headers(self) -> None:
        """Parse the attributes of an event in binary mode, which are headers."""
        for name, value in self.headers.items():
            if name.startswith(HEADER_PREFIX):
                self.attributes[name.removeprefix(HEADER_PREFIX).decode("latin-1")] = _decode_header(name, value)


def response_attributes(
    attributes: Mapping[str, Any], name: str, manifest: Manifest, trace: RequestTrace | None = None
) -> dict[str, Any]:
    """Build the attributes of a response.

    Its extension for distributed tracing names the span of the request, unless the event belongs to another trace: an
    event in structured mode is decoded after the span has started.

    Args:
        attributes: Attributes of the request, with at least `id` and `source`.
        name: Name of the model.
        manifest: Manifest of the model that predicted.
        trace: Trace of the request; None if it is not traced.
    """
    kept = {name: value for name, value in attributes.items() if name not in RESERVED_ATTRIBUTES}
    if trace is not None and event_trace_id(attributes) in ("", trace.trace_id):
        kept.pop(TRACESTATE, None)
        kept |= trace.headers
    return kept | {
        "specversion": "1.0",
        "id": attributes["id"],
        "source": response_source(name),
        "type": RESPONSE_TYPE,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestsource": attributes["source"],
        "modelversion": manifest.version,
        "modelsemver": manifest.semver,
    }


def event_trace_id(attributes: Mapping[str, Any]) -> str:
    """Return the id of the trace in the extension for distributed tracing; empty if there is none."""
    return parse_trace_id(str(attributes.get(TRACEPARENT, "")))


def response_source(name: str) -> str:
    """Build the `source` of the responses of a model."""
    return f"io.kserve.inference.{quote(name, safe='')}"


def parse_structured(event: Any) -> tuple[dict[str, Any], Any]:
    """Split an event in structured mode into attributes and data.

    Raises:
        DataError: The event is not an object, or its `data_base64` is invalid.
    """
    if not isinstance(event, dict):
        raise DataError("the event is not an object")
    attributes = {name: value for name, value in event.items() if name not in ("data", "data_base64")}
    return attributes, _decode_base64(event) if "data_base64" in event else event.get("data")


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Check the attributes of an event of version 1.0.

    Raises:
        DataError: An attribute is missing, invalid or too long, or there are too many.
    """
    for name in REQUIRED_ATTRIBUTES:
        if not isinstance(attributes.get(name), str) or not attributes[name]:
            raise DataError(f"{name}: the event has no such attribute, or it is no text")
    if attributes["specversion"] not in ("1.0", "0.3"):
        raise DataError(f"specversion: {attributes['specversion'][:20]} is not 1.0")
    if len(attributes) > MAX_ATTRIBUTES:
        raise DataError(f"the event has more than {MAX_ATTRIBUTES} attributes")
    for name, value in attributes.items():
        if not ATTRIBUTE_NAME.fullmatch(name):
            raise DataError(f"{name[:100]}: is not a name of an attribute: small letters and digits")
        if not isinstance(value, str | int | bool | None):
            raise DataError(f"{name}: is neither a text, an integer nor a boolean")
        if isinstance(value, str) and len(value) > MAX_ATTRIBUTE_CHARACTERS:
            raise DataError(f"{name}: has more than {MAX_ATTRIBUTE_CHARACTERS} characters")


def _decode_base64(event: Mapping[str, Any]) -> bytes:
    """Decode data that a client sent as bytes, as some clients do with JSON."""
    if "data" in event:
        raise DataError("data_base64: the event has data beside it")
    try:
        return b64decode(event["data_base64"], validate=True)
    except (TypeError, ValueError) as err:  # binascii.Error is a ValueError
        raise DataError("data_base64: is not Base64") from err


def _decode_header(name: bytes, value: bytes) -> str:
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as err:
        raise DataError(f"{name.decode('latin-1')}: is not UTF-8") from err


def encode_header(value: Any) -> bytes:
    """Encode the value of an attribute as an HTTP header."""
    return ESCAPED_CHARACTERS.sub(lambda match: quote(match[0], safe=""), attribute_to_str(value)).encode("ascii")


def attribute_to_str(value: Any) -> str:
    """Convert the value of an attribute to a text."""
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)
