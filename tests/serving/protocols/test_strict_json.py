"""JSON of requests: as strict as JSON, without NaN and Infinity, and without duplicate keys."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.serving.protocols import strict_json

TEXTS = st.text(alphabet=st.sampled_from('a",:[]{}\\ \n\u00e9\U0001f600d'), max_size=8) | st.sampled_from(
    ["data", '":', " :", "}, {", "NaN", "\\", '\\"']
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4), max_leaves=12
)


def serialize(document: Any, seed: int) -> bytes:
    """Serialize a document with one of the ways to place white space and to escape texts."""
    chance = random.Random(seed)
    comma = "," + " " * chance.randrange(3)
    colon = "\n\t "[: chance.randrange(4)] * chance.randrange(2) + ":" + "\n\t "[: chance.randrange(3)]
    return json.dumps(document, separators=(comma, colon), ensure_ascii=chance.random() < 0.5).encode()


def outcome(parse: Callable[[bytes], Any], body: bytes) -> Any:
    """Return the document that a parser returns, or "rejected"."""
    try:
        return parse(body)
    except (DataError, orjson.JSONDecodeError):
        return "rejected"


@settings(max_examples=500, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32), st.data())
def test_documents_are_accepted_and_rejected_as_orjson_does(document: Any, seed: int, data: st.DataObject) -> None:
    # Given a document of which some bytes may be cut out, changed or repeated
    body = bytearray(serialize(document, seed))
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 12)))
        replacements = [b"", b",", b'"', b"[", b"]", b"{", b"}", b"\\", b"\xff", bytes(body[start:end]) * 2]
        body[start:end] = data.draw(st.sampled_from(replacements))
    # Then the outcome is the same, except that NaN and Infinity are accepted for now
    expected = outcome(orjson.loads, bytes(body))
    if expected != "rejected" or not (b"NaN" in body or b"Infinity" in body):
        assert outcome(strict_json.loads, bytes(body)) == expected


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param('{"instances": [{"a": %s, "b": "NaN, -Infinity"}]}', {"a": [], "b": "NaN, -Infinity"}, id="V1"),
        pytest.param('{"instances": [[1, "\\\\"], %s]}', [1, "\\"], id="instead of a row"),
        pytest.param('{"instances": [{"NaN\\"": [%s]}]}', {'NaN"': [[]]}, id="in a list"),
    ],
)
def test_nan_and_infinity_become_an_empty_list(constant: str, body: str, expected: Any) -> None:
    assert strict_json.loads((body % constant).encode())["instances"][0] == expected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": NaN, "b": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"a": NaN, "b": "\xed\xa0\x80"}', id="half a surrogate pair in UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"a": NaN}', id="a byte order mark"),
        pytest.param(b'{"a": NaN, "b": +Infinity}', id="a plus sign"),
        pytest.param(b'{"a": NaNa}', id="a longer word"),
        pytest.param(b'{"a": NaN', id="half a document"),
        pytest.param(b'{"a": "NaN}', id="half a text"),
        pytest.param(b'{"a": --Infinity}', id="two signs"),
        pytest.param(b"[" * 100_000 + b"NaN", id="too deep"),
    ],
)
def test_a_document_with_nan_must_be_json_otherwise(body: bytes) -> None:
    with pytest.raises(DataError, match="the body is not JSON"):
        strict_json.loads(body)


# Duplicate keys


class Pairs(list[tuple[str, Any]]):
    """Members of an object, of which keys may come twice."""

    def dump(self, colon: str) -> str:
        """Serialize the object."""
        members = (
            json.dumps(key) + colon + (value.dump(colon) if isinstance(value, Pairs) else json.dumps(value))
            for key, value in self
        )
        return "{" + ",".join(members) + "}"

    def count_keys(self) -> int:
        """Count the keys that a parser returns: each key once, with its last value."""
        return len(dict(self)) + sum(value.count_keys() for value in dict(self).values() if isinstance(value, Pairs))

    def has_duplicates(self) -> bool:
        """Report whether a key comes twice in this object or in one below."""
        below = any(value.has_duplicates() for _, value in self if isinstance(value, Pairs))
        return below or len(dict(self)) < len(self)


OBJECTS = st.recursive(
    st.lists(st.tuples(TEXTS, SCALARS), max_size=4).map(Pairs),
    lambda inner: st.lists(st.tuples(TEXTS, SCALARS | inner), max_size=4).map(Pairs),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(OBJECTS, st.sampled_from([":", ": ", " :", "\n:", "\t : "]), st.sampled_from([0, strict_json.MIN_NUMPY_BYTES]))
def test_may_have_duplicate_keys_never_misses_one(document: Pairs, colon: str, padding: int) -> None:
    # Given an object that is counted by `bytes.count`, or by numpy
    body = document.dump(colon).encode() + b" " * padding
    is_suspect = strict_json.may_have_duplicate_keys(body, document.count_keys())
    # Then no duplicate key is missed
    assert is_suspect or not document.has_duplicates()


@pytest.mark.parametrize("padding", [0, strict_json.MIN_NUMPY_BYTES])
@pytest.mark.parametrize("body", [b"{}", b'{"a": 1, "b": {"a": "08:30"}, "c": [{"a": ""}]}', b'{"a":"x"}'])
def test_regular_documents_have_no_duplicate_keys(body: bytes, padding: int) -> None:
    assert not strict_json.may_have_duplicate_keys(body + b" " * padding, body.count(b'":'))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b'{"a": 1, "a": 2}', "a", id="in the document"),
        pytest.param(b'{"a" : 1, "a" : 2}', "a", id="with white space before the colon"),
        pytest.param(b'{"a": 1, "a" : 2}', "a", id="with white space before one colon"),
        pytest.param(b'{"a": "\\":", "a": 2}', "a", id="beside a text with the end of a key"),
        pytest.param(b'{"b\\u00e9": 1, "b\xc3\xa9": 2}', "b\u00e9", id="in two spellings"),
    ],
)
def test_a_duplicate_key_replaces_its_object(body: bytes, expected: str) -> None:
    document = strict_json.find_duplicate_keys(body, keys=len(strict_json.loads(body)))
    assert isinstance(document, strict_json.DuplicateKey)
    assert document == expected


@pytest.mark.parametrize("body", [b"{}", b'{"a": 1, "b": {"a": 2}}', b'{"a": "a\\":", "b": 1}'])
def test_the_same_key_in_different_objects_is_no_duplicate(body: bytes) -> None:
    document = strict_json.find_duplicate_keys(body, keys=len(strict_json.loads(body)))
    assert document is None or document == strict_json.loads(body)


@pytest.mark.parametrize(
    "length",
    [
        10,
        strict_json.MIN_NUMPY_BYTES - 1,
        strict_json.MIN_NUMPY_BYTES,
        strict_json.COUNT_BLOCK_BYTES,
        strict_json.COUNT_BLOCK_BYTES + 1,
        2 * strict_json.COUNT_BLOCK_BYTES + 3,
    ],
)
@pytest.mark.parametrize("place", [0, 3, -2])
def test_keys_are_counted_at_every_position(length: int, place: int) -> None:
    # Given a body with the end of one key, and another one across the border of a block
    body = bytearray(b"." * length)
    ends = {place % length, min(strict_json.COUNT_BLOCK_BYTES - 1, length // 2)}
    for end in ends:
        body[end : end + 2] = b'":'
    # Then both are counted
    assert not strict_json.may_have_duplicate_keys(bytes(body), len(ends))
    assert strict_json.may_have_duplicate_keys(bytes(body), len(ends) - 1)
    # And white space before a colon is noticed at the same positions
    body[max(ends) : max(ends) + 2] = b" :"
    assert strict_json.may_have_duplicate_keys(bytes(body), len(ends) - 1)


@pytest.mark.parametrize("rest", [b"", b"]", b"\\", b'\\"', b'", 1'])
def test_a_text_without_an_end_is_rejected_in_linear_time(rest: bytes) -> None:
    with pytest.raises(DataError, match="not JSON"):
        strict_json.loads(b'{"inputs": [{"name": "x", "data": ["' + b"a" * 300_000 + rest)
