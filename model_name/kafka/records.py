"""A record of Kafka as a request, and its result as a record.

The value is JSON: a row as an object, rows as an array of objects, or a body of V1, `{"instances": [...]}`. It may be
the data of a CloudEvent, in binary mode (attributes in `ce_` headers, as its binding for Kafka has them, or in `ce-`
headers, as some bridges leave those of HTTP) or in structured mode.

The result is a body of V1, in the mode of the record; a plain record gets an event in binary mode. It keeps the
record's key and headers. Its event correlates as that of HTTP does, and its headers say of which record it is the
result: `source-topic`, `source-partition`, `source-offset`; and of which version: `model-semver`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, Protocol

import orjson

from model_name.core.schemas import Outputs
from model_name.errors import DataError
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols import strict_json
from model_name.serving.protocols.cloudevents import (
    RESPONSE_TYPE,
    check_attributes,
    parse_structured,
    response_attributes,
    response_source,
    attribute_to_str,
)
from model_name.serving.protocols.v1 import check_duplicate_columns, encode_predictions, parse_instances

Headers = list[tuple[str, bytes]]

CONTENT_TYPE_HEADER = "content-type"
JSON_CONTENT_TYPE = "application/json"
STRUCTURED_CONTENT_TYPE = "application/cloudevents+json"
BATCH_CONTENT_TYPE = "application/cloudevents-batch+json"
ATTRIBUTE_PREFIXES = ("ce_", "ce-")
DEAD_LETTER_PREFIX = "dead-letter-"
RESULT_SOURCE_HEADERS = ("source-topic", "source-partition", "source-offset")
"""The headers of a result that say of which record it is."""
SEMVER_HEADER = "model-semver"
OWN_HEADERS = frozenset({*RESULT_SOURCE_HEADERS, SEMVER_HEADER, CONTENT_TYPE_HEADER})


NUMBER_PATTERN = re.compile(rb"[0-9]{1,18}")
"""Of an offset or an attempt; whoever writes more digits, writes to do harm."""


class ConsumerRecord(Protocol):
    """What a consumer hands out."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class RecordPosition(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """For people."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """A record that is to be written."""

    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def size(self) -> int:
        """In bytes, about as a topic counts them."""
        headers = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


class KafkaRequest(InferenceRequest):
    """A record whose value asks for predictions."""

    protocol = "kafka"

    def __init__(self, record: ConsumerRecord, *, name: str) -> None:
        """Take the record.

        Args:
            record: As it was polled.
            name: Of the model.
        """
        super().__init__(f"partition:{record.partition}/offset:{record.offset}", len(record.value or b""))
        self.record = record
        self.name = name
        self.attributes: dict[str, Any] = {}
        self.prefix = ATTRIBUTE_PREFIXES[0]
        self.is_structured = False

    @property
    def source(self) -> RecordPosition:
        """Where the record lies."""
        return RecordPosition(self.record.topic, self.record.partition, self.record.offset)

    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        """As of `InferenceRequest`."""
        body = self.record.value
        if body is None:
            raise DataError("the record is a tombstone: it has no value")
        if not body:
            raise DataError("the value is not JSON: it is empty")
        limits.check_body(len(body))
        self._read_headers()
        row = None if self.attributes or self.is_structured else plane.usual.read_row(body)
        if row is not None and not strict_json.may_have_duplicate_keys(body, len(row)):
            return DecodedRequest(rows=[row])
        document = event = strict_json.loads(body)
        if self.is_structured:
            self.attributes, document = parse_structured(event)
            if document is None:
                raise DataError("the event has no data")
        if self.attributes:
            check_attributes(self.attributes)
            self.id = self.attributes["id"]
        if isinstance(document, str | bytes):  # JSON within, as some clients leave it
            body = document.encode() if isinstance(document, str) else document
            document = event = strict_json.loads(body)
        if isinstance(document, dict) and "instances" in document and "instances" not in plane.kinds:
            question = parse_instances(document, limits)
            check_duplicate_columns(body, event, "data" if event is not document else "")
            return question
        rows = document if isinstance(document, list) else [document]
        if not all(type(row) is dict for row in rows):
            raise DataError('the value is neither an object, nor an array of objects, nor {"instances": [...]}')
        if not rows:  # to be said before others' rows are beside them
            raise DataError("the record holds no row")
        limits.check_rows(len(rows))
        check_duplicate_keys(body, sum(map(len, rows)) + (len(event) if event is not document else 0))
        return DecodedRequest(rows=rows)

    def encode(self, outputs: Outputs, manifest: Manifest) -> OutputRecord:
        """As of `InferenceRequest`."""
        record, data = self.record, encode_predictions(outputs)
        headers = self._kept_headers() if record.headers else []
        headers += source_headers(self.source, RESULT_SOURCE_HEADERS)
        if not self.attributes:  # the usual record is no event: all but its name is the same for all
            headers += _constant_headers(self.name, manifest.semver)
            headers.append((f"{ATTRIBUTE_PREFIXES[0]}id", self.id.encode()))
            return OutputRecord(record.key, orjson.dumps(data), headers)
        headers.append((SEMVER_HEADER, manifest.semver.encode()))
        attributes = response_attributes(self.attributes, self.name, manifest)
        if self.is_structured:
            event = attributes | {"datacontenttype": JSON_CONTENT_TYPE, "data": data}
            return OutputRecord(record.key, orjson.dumps(event), [*headers, (CONTENT_TYPE_HEADER, STRUCTURED_CONTENT_TYPE.encode())])
        headers += [(self.prefix + name, attribute_to_str(value).encode()) for name, value in attributes.items()]
        return OutputRecord(record.key, orjson.dumps(data), [*headers, (CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode())])

    def _read_headers(self) -> None:
        """The kind of the value, and the attributes where they are headers.

        Raises:
            DataError: The value is not JSON, or a header is not UTF-8.
        """
        kind = ""
        for name, value in self.record.headers:
            if name.lower() == CONTENT_TYPE_HEADER:
                kind = _decode_header(name, value).partition(";")[0].strip().lower()
            elif name.startswith(ATTRIBUTE_PREFIXES):
                self.prefix = name[:3]
                self.attributes[name[3:]] = _decode_header(name, value)
        self.is_structured = kind == STRUCTURED_CONTENT_TYPE
        if self.is_structured:
            self.attributes = {}
        elif kind == BATCH_CONTENT_TYPE:
            raise DataError(f"{CONTENT_TYPE_HEADER}: a batch of events is not read; send each in a record of its own")
        elif kind and kind not in ("text/json", JSON_CONTENT_TYPE) and not kind.endswith("+json"):
            raise DataError(f"{CONTENT_TYPE_HEADER}: {kind[:100]} is not JSON")

    def _kept_headers(self) -> Headers:
        """The headers of the record that are neither attributes of its event nor what a result has of its own."""
        return [
            (name, value or b"")
            for name, value in self.record.headers
            if not name.startswith((*ATTRIBUTE_PREFIXES, DEAD_LETTER_PREFIX)) and name.lower() not in OWN_HEADERS
        ]


def check_duplicate_keys(body: bytes, keys: int) -> None:
    """Refuse a value in which a name comes twice.

    Args:
        body: The value.
        keys: How many its rows have, and the event around them.

    Raises:
        DataError: There is one.
    """
    if (found := strict_json.find_duplicate_keys(body, keys)) is not None and (name := _first_duplicate(found)):
        raise DataError(f"{name}: comes twice")


def _first_duplicate(found: Any) -> str:
    if isinstance(found, strict_json.DuplicateKey):
        return str(found)
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return next(filter(None, map(_first_duplicate, inner)), "")


@cache
def _constant_headers(name: str, semver: str) -> Headers:
    """The headers that all results of one version share."""
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
    """Headers of these names that say where a record lies."""
    topic, partition, offset = source
    return [(names[0], topic.encode()), (names[1], b"%d" % partition), (names[2], b"%d" % offset)]


def parse_source(headers: Sequence[tuple[str, bytes | None]], names: Sequence[str]) -> RecordPosition | None:
    """What `source_headers` wrote; None where it is not there."""
    found = dict(headers)
    topic, *numbers = (found.get(name) for name in names)
    partition, offset = map(parse_number, numbers)
    try:
        named = (topic or b"").decode()
    except UnicodeDecodeError:
        return None
    return RecordPosition(named, partition, offset) if named and partition is not None and offset is not None else None


def parse_number(value: bytes | None) -> int | None:
    """The number that a header holds; None where it holds none, or one that is none of ours."""
    return int(value) if value and NUMBER_PATTERN.fullmatch(value) else None


def _decode_header(name: str, value: bytes | None) -> str:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError as err:
        raise DataError(f"{name}: is not UTF-8") from err
