"""Strict JSON of requests: no NaN or Infinity as a value, and no key twice in an object.

A parser holds the interpreter for the whole document, in whichever thread it runs; `long_lists` parses long ones in
parts.
"""

import json
from typing import Any

import numpy as np
import orjson

from model_name.errors import DataError

KEY_END = b'":'
QUOTE, COLON = KEY_END
SPACE = ord(" ")  # the largest byte of white space
MIN_NUMPY_BYTES = 4096  # size of a body from which numpy counts keys faster than `bytes.count`
COUNT_BLOCK_BYTES = 2**18  # counted at once by numpy
MAX_QUOTED_CHARACTERS = 100  # of a value in a message
SURROGATE_ESCAPES = (b"\\ud", b"\\uD")


def loads(body: bytes) -> Any:
    """Parse a document. NaN and Infinity become an empty list, so that the schema rejects them and names the column.

    Raises:
        DataError: The body is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        if b"NaN" in body or b"Infinity" in body:
            return _loads_with_constants(body, err)
        raise DataError(f"the body is not JSON: {err}") from err


def quote(value: Any) -> str:
    """Shorten a value for a message. Lists and objects are left out: they may be long, or too deep for `str`."""
    match value:
        case list():
            return "a list"
        case dict():
            return "an object"
    return str(value)[:MAX_QUOTED_CHARACTERS]


class DuplicateKey(str):
    """Placeholder for an object in which a key comes twice; its text is that key."""

    __slots__ = ()


def find_duplicate_keys(body: bytes, keys: int) -> Any:
    """Parse a document again if it may have duplicate keys, for which JSON does not define which value counts.

    Args:
        body: A body that `loads` has parsed.
        keys: Number of keys in the parsed document, or in the part of it that is known.

    Returns:
        The document with a `DuplicateKey` in place of each object that has one, or None if no object has one.
    """
    if not may_have_duplicate_keys(body, keys):
        return None
    try:
        return json.loads(body, object_pairs_hook=_to_unique)
    except (ValueError, RecursionError):  # a document with NaN, or nested deeper than any valid request
        return None


def may_have_duplicate_keys(body: bytes, keys: int) -> bool:
    """Report whether a document may have more keys than a parser returned, without parsing it again.

    False is exact. Each key has a colon: if there are as many colons as keys, no key came twice. Otherwise texts may
    hold colons, so that `":` is counted, in which each key ends unless white space precedes its colon. True may also
    mean such white space, or a text that holds `":`.

    Args:
        body: A body that `loads` has parsed.
        keys: Number of keys in the parsed document, or in the part of it that is known.
    """
    if len(body) >= MIN_NUMPY_BYTES:
        return _may_have_duplicate_keys_by_numpy(body, keys)
    if body.count(b":") == keys:
        return False
    if body.count(KEY_END) != keys or b" :" in body:
        return True
    is_compact = b"\n" not in body and b"\r" not in body and b"\t" not in body
    return not is_compact and (b"\n:" in body or b"\r:" in body or b"\t:" in body)


def _may_have_duplicate_keys_by_numpy(body: bytes, keys: int) -> bool:
    """Count as `may_have_duplicate_keys` does, in blocks, between which other threads get the interpreter."""
    blocks = [
        np.frombuffer(body, np.uint8, min(COUNT_BLOCK_BYTES + 1, len(body) - start), start)
        for start in range(0, len(body), COUNT_BLOCK_BYTES)
    ]
    if sum([int(np.count_nonzero(block[:COUNT_BLOCK_BYTES] == COLON)) for block in blocks]) == keys:
        return False
    ends = 0
    for block in blocks:
        is_colon, previous = block[1:] == COLON, block[:-1]
        if (is_colon & (previous <= SPACE)).any():
            return True
        ends += int(np.count_nonzero(is_colon & (previous == QUOTE)))
    return ends != keys


def _to_unique(pairs: list[tuple[str, Any]]) -> Any:
    unique = dict(pairs)
    if len(unique) == len(pairs):
        return unique
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    return DuplicateKey(name)


def _loads_with_constants(body: bytes, err: orjson.JSONDecodeError) -> Any:
    """Parse a document that is JSON except for NaN and Infinity, by the parser of the standard library."""
    try:
        document = json.loads(body.decode(), parse_constant=lambda _: [])
        if any(escape in body for escape in SURROGATE_ESCAPES):  # orjson rejects half a surrogate pair
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise DataError(f"the body is not JSON: {err}") from err
    return document
