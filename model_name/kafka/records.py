"""Decode a Kafka record into a request and encode its result as a record.

The value is JSON: a row as an object, rows as an array of objects, or a V1 body, `{"instances": [...]}`. It may be the
data of a CloudEvent, in binary mode (attributes in `ce_` headers, as in the Kafka protocol binding, or in `ce-`
headers, as some HTTP bridges leave them) or in structured mode.

The result is a V1 body, in the content mode of the record; the result of a plain record is an event in binary mode. It
keeps the key and the headers of the record; that of a traced record has its span as `traceparent`. Its event refers to
that of the record, as over HTTP. Its headers `source-topic`, `source-partition` and `source-offset` identify the
record, and `model-semver` the model version.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import orjson
from typing_extensions import override

from model_name.core.schemas import Outputs
from model_name.errors import DataError
from model_name.serving.batching.request_trace import TRACEPARENT, TRACESTATE, parse_trace_id
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols import strict_json
from model_name.serving.protocols.cloudevents import (
    RESPONSE_TYPE,
    attribute_to_str,
    check_attributes,
    event_trace_id,
    parse_structured,
    response_attributes,
    response_source,
)
from model_name.serving.protocols.fast_json import try_decode_row
from model_name.serving.protocols.v1 import check_duplicate_columns, encode_predictions, parse_instances

Headers = list[tuple[str, bytes]]

CONTENT_TYPE_HEADER = "content-type"
JSON_CONTENT_TYPE = "application/json"
STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
ATTRIBUTE_PREFIXES = ("ce_", "ce-")
DEAD_LETTER_PREFIX = "dead-letter-"
RESULT_SOURCE_HEADERS = ("source-topic", "source-partition", "source-offset")
"""Headers of a result that identify its record."""

SEMVER_HEADER = "model-semver"
OWN_HEADERS = frozenset({*RESULT_SOURCE_HEADERS, SEMVER_HEADER, CONTENT_TYPE_HEADER})
NUMBER_PATTERN = re.compile(rb"[0-9]{1,18}")
"""Numbers that fit into 64 bits. Longer ones are not parsed, so that no client can slow the worker down with them."""


class ConsumerRecord(Protocol):
    """Consumer record of kafka-python, with the attributes that this package uses."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class RecordPosition(NamedTuple):
    """Topic, partition and offset of a record."""

    topic: str
    partition: int
    offset: int

    @override
    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """Key, value and headers of a record to write."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def size(self) -> int:
        """Approximate size in the log, in bytes."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


class KafkaRequest(InferenceRequest):
    """Prediction request in the value of a record.

    Attributes:
        record: Record as it was polled.
        name: Name of the model.
        attributes: Attributes of the CloudEvent; empty for a plain record.
        prefix: Prefix of the attribute headers.
        is_structured: Whether the value is a CloudEvent in structured mode.
    """

    protocol = "kafka"

    def __init__(self, record: ConsumerRecord, *, name: str) -> None:
        """Create the request of a record.

        Args:
            record: Record as it was polled.
            name: Name of the model.
        """
        super().__init__(f"partition:{record.partition}/offset:{record.offset}", len(record.value or b""))
        self.record = record
        self.name = name
        self.attributes: dict[str, Any] = {}
        self.prefix = ATTRIBUTE_PREFIXES[0]
        self.is_structured = False

    @property
    def source(self) -> RecordPosition:
        """Position of the record."""
        return RecordPosition(self.record.topic, self.record.partition, self.record.offset)

    @override
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        body = self.record.value
        if body is None:
            raise DataError("the record is a tombstone: it has no value")
        if not body:
            raise DataError("the value is not JSON: it is empty")
        limits.check_body(len(body))
        self._parse_headers()
        is_event = self.is_structured or bool(self.attributes)
        if not is_event and (decoded := try_decode_row(body, plane, limits)) is not None:
            return decoded
        document = event = strict_json.loads(body)
        if self.is_structured:
            self.attributes, document = parse_structured(event)
            if document is None:
                raise DataError("the event has no data")
        if self.attributes:
            check_attributes(self.attributes)
            self.id = self.attributes["id"]
            self.trace_id = self.trace_id or event_trace_id(self.attributes)
        if isinstance(document, str | bytes):  # JSON text within JSON, as some clients send it
            body = document.encode() if isinstance(document, str) else document
            document = event = strict_json.loads(body)
        if isinstance(document, dict) and "instances" in document and "instances" not in plane.kinds:
            request = parse_instances(document, limits)
            check_duplicate_columns(body, event, "data" if event is not document else "")
            return request
        rows = document if isinstance(document, list) else [document]
        if not all(type(row) is dict for row in rows):
            raise DataError('the value is neither an object, nor an array of objects, nor {"instances": [...]}')
        if not rows:  # after batching the error would no longer be of this record alone
            raise DataError("the record holds no row")
        limits.check_rows(len(rows))
        check_duplicate_keys(body, sum(map(len, rows)) + (len(event) if event is not document else 0))
        return DecodedRequest(rows=rows)

    @override
    def encode(self, outputs: Outputs, manifest: Manifest) -> OutputRecord:
        record, data = self.record, encode_predictions(outputs)
        headers = self._forwarded_headers() if record.headers else []
        headers += source_headers(self.source, RESULT_SOURCE_HEADERS)
        if not self.attributes:  # a plain record, the common case: only the id differs between results
            headers += _constant_headers(self.name, manifest.semver)
            headers.append((f"{ATTRIBUTE_PREFIXES[0]}id", self.id.encode()))
            return OutputRecord(record.key, orjson.dumps(data), headers)
        headers.append((SEMVER_HEADER, manifest.semver.encode()))
        attributes = response_attributes(self.attributes, self.name, manifest, self.trace)
        if self.is_structured:
            event = attributes | {"datacontenttype": JSON_CONTENT_TYPE, "data": data}
            return OutputRecord(
                record.key, orjson.dumps(event), [*headers, (CONTENT_TYPE_HEADER, STRUCTURED_CONTENT_TYPE.encode())]
            )
        headers += [(self.prefix + name, attribute_to_str(value).encode()) for name, value in attributes.items()]
        return OutputRecord(
            record.key, orjson.dumps(data), [*headers, (CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode())]
        )

    def _parse_headers(self) -> None:
        """Parse the content type, the attributes in headers and the id of the trace.

        Raises:
            DataError: The content type is not JSON, or a header is not UTF-8.
        """
        content_type = ""
        for name, value in self.record.headers:
            if name.lower() == CONTENT_TYPE_HEADER:
                content_type = _decode_header(name, value).partition(";")[0].strip().lower()
            elif name.startswith(ATTRIBUTE_PREFIXES):
                self.prefix = name[:3]
                self.attributes[name[3:]] = _decode_header(name, value)
            elif name == TRACEPARENT:
                self.trace_id = parse_trace_id((value or b"").decode("latin-1"))
        self.is_structured = content_type == STRUCTURED_CONTENT_TYPE
        if self.is_structured:
            self.attributes = {}
        elif content_type == BATCH_CONTENT_TYPE:
            raise DataError(f"{CONTENT_TYPE_HEADER}: a batch of events is not read; send each in a record of its own")
        elif (
            content_type and content_type not in ("text/json", JSON_CONTENT_TYPE) and not content_type.endswith("+json")
        ):
            raise DataError(f"{CONTENT_TYPE_HEADER}: {content_type[:100]} is not JSON")

    def _forwarded_headers(self) -> Headers:
        """Select the headers of the record that its result keeps."""
        headers = [
            (name, value or b"")
            for name, value in self.record.headers
            if not name.startswith((*ATTRIBUTE_PREFIXES, DEAD_LETTER_PREFIX)) and name.lower() not in OWN_HEADERS
        ]
        if self.trace is None:
            return headers
        traced = [(name, value.encode()) for name, value in self.trace.headers.items()]
        return [header for header in headers if header[0] not in (TRACEPARENT, TRACESTATE)] + traced


def check_duplicate_keys(body: bytes, keys: int) -> None:
    """Check that no key of a JSON object comes twice.

    Args:
        body: Value of a record.
        keys: Number of keys of its parsed rows, and of the event around them.

    Raises:
        DataError: A key comes twice in one object.
    """
    document = strict_json.find_duplicate_keys(body, keys)
    if document is not None and (name := _first_duplicate(document)):
        raise DataError(f"{name}: comes twice")


def _first_duplicate(document: Any) -> str:
    """Return the first key that is marked as a duplicate; empty if there is none."""
    pending = [document]
    while pending:  # no recursion: a document may be nested as deep as Python's calls
        part = pending.pop()
        if isinstance(part, strict_json.DuplicateKey):
            return str(part)
        pending += [*part.values()][::-1] if isinstance(part, dict) else part[::-1] if isinstance(part, list) else ()
    return ""


@cache
def _constant_headers(name: str, semver: str) -> Headers:
    """Build the headers that all results of a version share."""
    attributes = {
        "specversion": "1.0",
        "source": response_source(name),
        "type": RESPONSE_TYPE,
    }
    return [
        (SEMVER_HEADER, semver.encode()),
        (CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode()),
        *((ATTRIBUTE_PREFIXES[0] + key, value.encode()) for key, value in attributes.items()),
    ]


def source_headers(source: RecordPosition, names: Sequence[str]) -> Headers:
    """Build headers with the position of a record, under the given names."""
    topic, partition, offset = source
    return [(names[0], topic.encode()), (names[1], b"%d" % partition), (names[2], b"%d" % offset)]


def parse_source(headers: Sequence[tuple[str, bytes | None]], names: Sequence[str]) -> RecordPosition | None:
    """Parse the position that `source_headers` wrote; None if it is missing or malformed."""
    values = dict(headers)
    raw_topic, *numbers = (values.get(name) for name in names)
    partition, offset = map(parse_number, numbers)
    try:
        topic = (raw_topic or b"").decode()
    except UnicodeDecodeError:
        return None
    return RecordPosition(topic, partition, offset) if topic and partition is not None and offset is not None else None


def parse_number(value: bytes | None) -> int | None:
    """Parse the number in a header; None if there is none, or it has more than 18 digits."""
    return int(value) if value and NUMBER_PATTERN.fullmatch(value) else None


def _decode_header(name: str, value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError as err:
        raise DataError(f"{name}: is not UTF-8") from err
