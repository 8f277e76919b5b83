"""Dead letters: their reason and the original record."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.kafka.dead_letters import (
    MAX_REASON_CHARACTERS,
    DeadLetter,
    parse_headers,
    strip_headers,
    to_dead_letter,
)
from model_name.kafka.records import RecordPosition
from tests.support.kafka_records import FakeRecord

ERROR = DataError("area: 900 is above 500", hint="mend it")


def test_a_dead_letter_has_reason_and_position_and_keeps_the_record() -> None:
    record = FakeRecord(
        b'{"area": 900}', [("trace", b"t"), ("source-topic", b"before"), ("empty", None)], b"k", "rows", 3, 77
    )
    dead_letter = to_dead_letter(record, ERROR, 2)
    assert (dead_letter.key, dead_letter.value) == (record.key, record.value)
    assert parse_headers(dead_letter.headers) == DeadLetter(
        RecordPosition("rows", 3, 77), "area: 900 is above 500", "DataError", 2, None
    )
    assert strip_headers(dead_letter.headers) == [("trace", b"t"), ("source-topic", b"before"), ("empty", b"")]


def test_attempts_of_a_replayed_record_are_added_up_and_its_reason_is_replaced() -> None:
    first = to_dead_letter(FakeRecord(), ERROR, 1)
    again = to_dead_letter(FakeRecord(headers=first.headers, offset=9), KeyError("x"), 2)
    assert parse_headers(again.headers) == DeadLetter(RecordPosition("in", 1, 9), "KeyError: 'x'", "KeyError", 3, None)
    assert len(again.headers) == len({name for name, _ in again.headers})


def test_the_size_of_a_dropped_value_is_recorded() -> None:
    dead_letter = to_dead_letter(FakeRecord(b"x" * 5000, key=b"k"), ERROR, 1, keeps_value=False)
    assert (dead_letter.value, parse_headers(dead_letter.headers).dropped_bytes) == (None, 5000)


@pytest.mark.parametrize("keeps_value", [True, False])
@pytest.mark.parametrize(("key", "value"), [(None, b""), (b"k", None)])
def test_the_dead_letter_of_a_tombstone_can_be_written(
    key: bytes | None, value: bytes | None, keeps_value: bool
) -> None:
    dead_letter = to_dead_letter(FakeRecord(None, key=key), ERROR, 1, keeps_value=keeps_value)
    assert (dead_letter.key, dead_letter.value, parse_headers(dead_letter.headers).dropped_bytes) == (key, value, None)


def test_a_long_reason_is_truncated_and_surrogates_are_replaced() -> None:
    dead_letter = to_dead_letter(FakeRecord(), ValueError("\ud800" + "x" * 5000), 1)
    assert len(parse_headers(dead_letter.headers).reason) == MAX_REASON_CHARACTERS


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no header"),
        pytest.param([("dead-letter-attempts", b"many")], id="text"),
        pytest.param([("dead-letter-attempts", b"-1")], id="below zero"),
        pytest.param([("dead-letter-attempts", b"9" * 5000)], id="more digits than Python reads"),
        pytest.param([("dead-letter-attempts", "\u0663".encode())], id="digits of another script"),
        pytest.param([("dead-letter-attempts", None)], id="null"),
    ],
)
def test_a_record_without_attempts_has_zero(headers: Any) -> None:
    assert parse_headers(headers) == DeadLetter(None, "", "", 0, None)
    assert parse_headers(to_dead_letter(FakeRecord(headers=headers), ERROR, 1).headers).attempts == 1


names = st.sampled_from(["reason", "kind", "attempts", "dropped-bytes", "source-topic", "source-offset"])


@given(
    value=st.none() | st.binary(max_size=20),
    key=st.none() | st.binary(max_size=5),
    headers=st.lists(
        st.tuples(names.map("dead-letter-".__add__) | st.text(max_size=5), st.none() | st.binary(max_size=20))
    ),
)
def test_any_record_has_a_dead_letter_that_can_be_written_and_parsed(
    value: bytes | None, key: bytes | None, headers: Any
) -> None:
    dead_letter = to_dead_letter(FakeRecord(value, headers, key), ERROR, 1)
    assert dead_letter.key is not None or dead_letter.value is not None
    assert all(isinstance(name, str) and isinstance(text, bytes) for name, text in dead_letter.headers)
    found = parse_headers(dead_letter.headers)
    assert (found.source, found.kind) == (RecordPosition("in", 1, 5), "DataError")
    assert found.attempts == parse_headers(headers).attempts + 1
    assert strip_headers(dead_letter.headers) == strip_headers(headers)
