"""What is wrong with a record, and what it was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.kafka.dead_letters import MOST_CHARACTERS, DeadLetter, dead_letter, original, read
from model_name.kafka.records import Source
from tests.support.kafka_records import Made

ERROR = DataError("area: 900 is above 500", hint="mend it")


def test_a_letter_says_what_is_wrong_with_which_record_and_keeps_what_it_was() -> None:
    record = Made(
        b'{"area": 900}', [("trace", b"t"), ("source-topic", b"before"), ("empty", None)], b"k", "rows", 3, 77
    )
    letter = dead_letter(record, ERROR, 2)
    assert (letter.key, letter.value) == (record.key, record.value)
    assert read(letter.headers) == DeadLetter(Source("rows", 3, 77), "area: 900 is above 500", "DataError", 2, None)
    assert original(letter.headers) == [("trace", b"t"), ("source-topic", b"before"), ("empty", b"")]


def test_a_record_that_comes_back_is_counted_on_and_its_old_reason_is_gone() -> None:
    first = dead_letter(Made(), ERROR, 1)
    again = dead_letter(Made(headers=first.headers, offset=9), KeyError("x"), 2)
    assert read(again.headers) == DeadLetter(Source("in", 1, 9), "KeyError: 'x'", "KeyError", 3, None)
    assert len(again.headers) == len({name for name, _ in again.headers})


def test_a_value_that_is_not_kept_is_measured() -> None:
    letter = dead_letter(Made(b"x" * 5000, key=b"k"), ERROR, 1, keeps_value=False)
    assert (letter.value, read(letter.headers).dropped) == (None, 5000)


@pytest.mark.parametrize("keeps_value", [True, False])
@pytest.mark.parametrize(("key", "value"), [(None, b""), (b"k", None)])
def test_a_tombstone_can_be_written(key: bytes | None, value: bytes | None, keeps_value: bool) -> None:
    letter = dead_letter(Made(None, key=key), ERROR, 1, keeps_value=keeps_value)
    assert (letter.key, letter.value, read(letter.headers).dropped) == (key, value, None)


def test_a_long_reason_is_cut_and_half_a_character_does_no_harm() -> None:
    letter = dead_letter(Made(), ValueError("\ud800" + "x" * 5000), 1)
    assert len(read(letter.headers).reason) == MOST_CHARACTERS


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="no header"),
        pytest.param([("dead-letter-attempts", b"many")], id="a word"),
        pytest.param([("dead-letter-attempts", b"-1")], id="below zero"),
        pytest.param([("dead-letter-attempts", b"9" * 5000)], id="more digits than Python reads"),
        pytest.param([("dead-letter-attempts", "\u0663".encode())], id="digits of another script"),
        pytest.param([("dead-letter-attempts", None)], id="nothing"),
    ],
)
def test_a_record_that_never_was_a_letter_begins_to_be_counted(headers: Any) -> None:
    assert read(headers) == DeadLetter(None, "", "", 0, None)
    assert read(dead_letter(Made(headers=headers), ERROR, 1).headers).attempts == 1


names = st.sampled_from(["reason", "kind", "attempts", "dropped-bytes", "source-topic", "source-offset"])


@given(
    value=st.none() | st.binary(max_size=20),
    key=st.none() | st.binary(max_size=5),
    headers=st.lists(
        st.tuples(names.map("dead-letter-".__add__) | st.text(max_size=5), st.none() | st.binary(max_size=20))
    ),
)
def test_any_record_can_become_a_letter_that_can_be_written_and_read(
    value: bytes | None, key: bytes | None, headers: Any
) -> None:
    letter = dead_letter(Made(value, headers, key), ERROR, 1)
    assert letter.key is not None or letter.value is not None
    assert all(isinstance(name, str) and isinstance(text, bytes) for name, text in letter.headers)
    found = read(letter.headers)
    assert (found.source, found.kind) == (Source("in", 1, 5), "DataError")
    assert found.attempts == read(headers).attempts + 1
    assert original(letter.headers) == original(headers)
