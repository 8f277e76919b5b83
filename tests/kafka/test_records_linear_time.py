"""No record is slow for its size: processor time is linear in its value, its headers and those of a dead letter."""

import json
from typing import Any

import pytest

from model_name.kafka.dead_letters import parse_headers, to_dead_letter
from model_name.kafka.records import KafkaRequest
from tests.support.adversarial_bodies import JSON_VALUES, record_shapes
from tests.support.counts import count
from tests.support.kafka_records import FakeRecord, event_headers
from tests.support.linear_time import assert_linear
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

PLANE = plane_of(manifest_of(table_of()))
SIZES = count(reduced=(2**13, 2**18), full=tuple(2**power for power in range(14, 23)))
SHAPES = record_shapes(EXAMPLE | {"age": 12.0, "is_let": False, "seen": "2025-03-07T09:30:15"})
ROW = json.dumps(EXAMPLE).encode()


def numbered_headers(size: int) -> Any:
    return [*event_headers(), *((f"ce_k{number}", b"v") for number in range(size // 10))]


HEADERS = {
    "attributes": numbered_headers,
    "one attribute many times": lambda size: [*event_headers(), *([("ce_k", b"v")] * (size // 5))],
    "a long attribute": lambda size: [*event_headers(), ("ce_k", b"v" * size)],
    "a long name of an attribute": lambda size: [*event_headers(), ("ce_" + "k" * size, b"v")],
    "content types": lambda size: [("content-type", b"application/json")] * (size // 28),
    "a long content type": lambda size: [("content-type", b" ;" * (size // 2))],
    "other headers": lambda size: [(f"h{number}", b"") for number in range(size // 8)],
    "dead letters": lambda size: [("dead-letter-attempts", b"1")] * (size // 21),
    "a long number of attempts": lambda size: [("dead-letter-attempts", b"9" * size)],
    "a long offset": lambda size: [("dead-letter-source-offset", b"9" * size)],
}


def request_of(record: FakeRecord) -> KafkaRequest:
    """Create the request of a record, whose dead letter and headers are built and parsed as well."""
    parse_headers(to_dead_letter(record, ValueError("x" * len(record.value or b"")), 1).headers)
    return KafkaRequest(record, name="flats")


@pytest.mark.parametrize("name", SHAPES)
def test_the_time_of_a_record_is_linear_in_its_value(name: str) -> None:
    assert_linear(name, lambda size: FakeRecord(SHAPES[name](size)), request_of, PLANE, SIZES)


@pytest.mark.parametrize("name", HEADERS)
def test_the_time_of_a_record_is_linear_in_its_headers(name: str) -> None:
    assert_linear(name, lambda size: FakeRecord(ROW, HEADERS[name](size)), request_of, PLANE, SIZES)


def test_all_json_values_are_tried() -> None:
    assert len(SHAPES) > len(JSON_VALUES)
