"""The JSON of requests: as strict as JSON, and the same whether it is parsed at once or in pieces."""

from __future__ import annotations

import json as standard
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.serving.protocols import strict_json

TEXTS = st.text(alphabet=st.sampled_from('a",:[]{}\\ \n\u00e9\U0001f600d'), max_size=8) | st.sampled_from(
    ["data", '"data":[', '"instances":[', "}, {", "NaN", "\\", '\\"']
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
ROWS = st.dictionaries(TEXTS, SCALARS, max_size=4) | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=4)
MANY = st.lists(st.integers(0, 10**6) | st.floats(0, 1) | TEXTS | st.booleans() | st.none(), max_size=60)
TENSORS = st.fixed_dictionaries(
    {
        "name": TEXTS,
        "data": MANY | st.lists(MANY, max_size=3) | SCALARS | st.fixed_dictionaries({"cut": st.integers(-1, 3)}),
    },
    optional={"shape": st.lists(st.integers(0, 9)), "parameters": st.dictionaries(TEXTS, SCALARS, max_size=2)},
)
DOCUMENTS = st.one_of(
    st.fixed_dictionaries(
        {"instances": st.lists(ROWS, max_size=40) | SCALARS},
        optional={"parameters": st.dictionaries(TEXTS, SCALARS, max_size=2), "data": MANY},
    ),
    st.fixed_dictionaries({"inputs": st.lists(TENSORS, max_size=4) | SCALARS}, optional={"data": MANY, "id": TEXTS}),
    st.lists(ROWS | SCALARS, max_size=20),
)


@pytest.fixture(autouse=True, scope="module")
def _short() -> Any:
    """A document is long, and is cut in pieces, after few bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strict_json, "LONG", 16)
        patch.setattr(strict_json, "PIECE", 24)
        yield


def written(document: Any, seed: int) -> bytes:
    """A document in one of the ways in which JSON writes it."""
    chance = random.Random(seed)
    comma, colon = ("," + " " * chance.randrange(3)), (":" + "\n\t "[: chance.randrange(3)])
    return standard.dumps(document, separators=(comma, colon), ensure_ascii=chance.random() < 0.5).encode()


def outcome(parse: Any, body: bytes) -> Any:
    """What a parser makes of bytes: the document, or that there is none."""
    try:
        return parse(body)
    except (DataError, orjson.JSONDecodeError):
        return "refused"


@settings(max_examples=500, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32))
def test_a_document_in_pieces_is_the_same_document(document: Any, seed: int) -> None:
    body = written(document, seed)
    assert strict_json.loads(body) == orjson.loads(body)


@settings(max_examples=1000, deadline=None)
@given(DOCUMENTS, st.integers(0, 2**32), st.data())
def test_a_broken_document_is_refused_in_pieces_as_it_is_at_once(document: Any, seed: int, data: Any) -> None:
    # Given a document of which some bytes are cut out, changed or repeated
    body = bytearray(written(document, seed))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(len(body), start + 12)))
        body[start:end] = data.draw(
            st.sampled_from(
                [b"", b",", b'"', b"[", b"]", b"{", b"}", b"\\", b"\xff", b'"data":[1', bytes(body[start:end]) * 2]
            )
        )
    if b"NaN" in body or b"Infinity" in body:
        return
    # When both read it, then they agree
    assert outcome(strict_json.loads, bytes(body)) == outcome(orjson.loads, bytes(body))


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param('{"instances": [{"a": %s, "b": "NaN, -Infinity"}]}', {"a": [], "b": "NaN, -Infinity"}, id="V1"),
        pytest.param('{"instances": [[1, "\\\\"], %s]}', [1, "\\"], id="for a row"),
        pytest.param('{"instances": [{"NaN\\"": [%s]}]}', {'NaN"': [[]]}, id="in a list"),
    ],
)
def test_a_constant_that_json_has_not_is_no_value_where_it_stands(constant: str, body: str, expected: Any) -> None:
    assert strict_json.loads((body % constant).encode())["instances"][0] == expected


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"a": NaN, "b": "\\ud800"}', id="half a surrogate pair"),
        pytest.param(b'{"a": NaN, "b": "\xed\xa0\x80"}', id="half a surrogate pair in UTF-8"),
        pytest.param(b'\xef\xbb\xbf{"a": NaN}', id="a byte order mark"),
        pytest.param(b'{"a": NaN, "b": +Infinity}', id="a plus"),
        pytest.param(b'{"a": NaNa}', id="a word"),
        pytest.param(b'{"a": NaN', id="half a document"),
        pytest.param(b'{"a": "NaN}', id="half a text"),
        pytest.param(b'{"a": --Infinity}', id="two signs"),
        pytest.param(b"[" * 100_000 + b"NaN", id="too deep"),
    ],
)
def test_a_document_with_constants_is_json_in_all_else(body: bytes) -> None:
    with pytest.raises(DataError, match="the body is not JSON"):
        strict_json.loads(body)


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
def test_names_are_counted_wherever_they_end(length: int, place: int) -> None:
    # Given a body with the end of one name, and another one across a border where there is one
    body = bytearray(b"." * length)
    ends = {place % length, min(strict_json.COUNT_BLOCK_BYTES - 1, length // 2)}
    for end in ends:
        body[end : end + 2] = b'":'
    # Then both are counted
    assert not strict_json.may_have_duplicate_keys(bytes(body), len(ends))
    assert strict_json.may_have_duplicate_keys(bytes(body), len(ends) - 1)


@pytest.mark.parametrize("rest", [b"", b"]", b"\\", b'\\"', b'", 1'])
def test_a_text_without_an_end_is_refused_at_once(rest: bytes) -> None:
    # A pattern that looked back would try each of the 2^300,000 ways to part the text.
    with pytest.raises(DataError, match="not JSON"):
        strict_json.loads(b'{"inputs": [{"name": "x", "data": ["' + b"a" * 300_000 + rest)
