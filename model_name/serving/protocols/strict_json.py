"""JSON of requests: strict, and long documents piece by piece, so that whoever else needs the interpreter gets it.

A parser holds the interpreter from the first byte to the last, which is a tenth of a second for 30 MB. The arrays that
make a document long are therefore cut out, parsed in pieces and put back.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import orjson

from model_name.errors import DataError

LONG = 256 * 1024  # bytes; shorter documents are parsed at once
PIECE = 64 * 1024  # bytes of a long one that are parsed at once, some tenths of a millisecond

KEY_END = b'":'
QUOTE, COLON = KEY_END
MIN_NUMPY_BYTES = 4096  # bytes, from where on numpy counts them in less time
COUNT_BLOCK_BYTES = 2**18  # bytes in which they are counted at once
TRIES = 8  # places where a piece may end; a document that was made to have none is parsed at once

ROWS = re.compile(rb'\s*\{\s*(?:"parameters"\s*:\s*(?:null|\{[^{}\[\]]*\})\s*,\s*)?"instances"\s*:\s*\[')
AFTER_ROW = re.compile(rb"(?<=[}\]])\s*,\s*(?=[{\[])")
DATA = re.compile(rb'"data"\s*:\s*\[')
FLAT = re.compile(rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+\]', re.DOTALL)  # possessive: it never looks back
CONSTANT = re.compile(rb'("(?:[^"\\]++|\\.)*+")|NaN|-?Infinity', re.DOTALL)
AFTER_SCALAR = re.compile(rb'(?:(?<=[0-9le])|(?<=[^\\]"))\s*,')


def loads(body: bytes) -> Any:
    """The value of a document.

    Raises:
        DataError: It is not JSON.
    """
    if len(body) > LONG:
        found = _parse_rows(body) or _parse_data(body)
        if found is not None:
            return found
    return _loads(body)


class DuplicateKey(str):
    """Stands for an object in which a name comes twice: that name."""

    __slots__ = ()


def find_duplicate_keys(body: bytes, keys: int) -> Any:
    """A document that has been parsed, with `DuplicateKey` for each object in which a name comes twice; None if there is none.

    JSON leaves open which of the values counts. To look costs little, because the ends of names are counted first.

    Args:
        body: The document.
        keys: How many it has at least, where each name counts once.
    """
    if not may_have_duplicate_keys(body, keys):
        return None
    try:
        return json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError):  # it is one of those that have been refused, or is nested as none that is not
        return None


def may_have_duplicate_keys(body: bytes, keys: int) -> bool:
    """Whether more names seem to end in a document than it has keys: where one comes twice, or is in a text."""
    if len(body) < MIN_NUMPY_BYTES:
        return body.count(KEY_END) > keys
    ends = 0
    for start in range(0, len(body), COUNT_BLOCK_BYTES):
        some = np.frombuffer(body, np.uint8, min(COUNT_BLOCK_BYTES + 1, len(body) - start), start)
        ends += int(np.count_nonzero((some[:-1] == QUOTE) & (some[1:] == COLON)))
    return ends > keys


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    names = [name for name, _ in pairs]
    return DuplicateKey(next(name for name in names if names.count(name) > 1))


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as err:
        if b"NaN" in body or b"Infinity" in body:
            return _with_constants(body, err)
        raise DataError(f"the body is not JSON: {err}") from err


def _with_constants(body: bytes, err: orjson.JSONDecodeError) -> Any:
    """A document that is JSON but for NaN and Infinity: for each an empty list, which is refused where it stands."""
    try:
        return orjson.loads(CONSTANT.sub(lambda found: found[1] or b"[]", body))
    except orjson.JSONDecodeError:
        raise DataError(f"the body is not JSON: {err}") from err


def _parse_rows(body: bytes) -> Any:
    """A long document of V1, if this is one: `instances` in pieces that end between two rows."""
    head = ROWS.match(body)
    if head is None:
        return None
    rows, start = _pieces(body, head.end(), len(body), AFTER_ROW)
    rest = _loads(b"%b%b" % (body[: head.end()], body[start:]))
    if not isinstance(rest["instances"], list):  # the key comes twice
        return None
    rows += rest["instances"]
    return rest | {"instances": rows}


def _parse_data(body: bytes) -> Any:
    """A long document of V2, if this is one: the `data` of each tensor by itself, and in pieces."""
    skeleton: list[bytes] = []
    cut: list[list[Any]] = []
    start = 0
    for begin, end in _long_data(body):
        values, rest = _pieces(body, begin, end, AFTER_SCALAR)
        cut.append(values + _loads(b"[%b]" % body[rest:end]))
        skeleton += [body[start : begin - 1], b'{"cut": %d}' % (len(cut) - 1)]
        start = end + 1
    if not cut:
        return None
    document = _loads(b"".join([*skeleton, body[start:]]))
    inputs = document.get("inputs") if isinstance(document, dict) else None
    put_back = 0
    for tensor in inputs if isinstance(inputs, list) else ():
        match tensor:
            case {"data": {"cut": int() as position}} if 0 <= position < len(cut):
                tensor["data"] = cut[position]
                put_back += 1
    return document if put_back == len(cut) else None  # something else is called `data`, too


def _long_data(body: bytes) -> Iterator[tuple[int, int]]:
    """From where to where the long arrays of scalars go that are called `data`.

    In valid JSON a quote that no backslash precedes opens or closes a text, and no text that is closed is followed by
    `data"`: what matches is the key of an object. In another document what is left is not JSON either.
    """
    start = 0
    while (start := body.find(b'"data"', start)) >= 0:
        key = DATA.match(body, start)
        found = FLAT.match(body, key.end()) if key and body[start - 1 : start] != b"\\" else None
        if key and found and found.end() - key.end() > PIECE:
            yield key.end(), found.end() - 1
        start = found.end() if found else start + 1


def _pieces(body: bytes, start: int, end: int, gap: re.Pattern[bytes]) -> tuple[list[Any], int]:
    """The values of an array as far as they come in pieces, and where the rest begins.

    What parses from one boundary on as a list of values ends at a boundary: a comma in a text or in a nested value
    leaves something open.
    """
    values: list[Any] = []
    while end - start > PIECE:
        for found in islice(gap.finditer(body, start + PIECE, end), TRIES):
            try:
                values += orjson.loads(b"[%b]" % body[start : found.start()])
            except orjson.JSONDecodeError:
                continue
            start = found.end()
            break
        else:
            return values, start
    return values, start
