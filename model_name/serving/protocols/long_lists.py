"""Long lists in JSON, parsed in parts, between which other threads get the interpreter.

A parser holds the interpreter for a whole document: a tenth of a second for 40 MB, during which no probe is answered.
So a long body is cut behind braces and brackets that may be the end of an item, and a parser reads each part as a list.
No cut is trusted: one inside a text or inside an item makes a part that is not JSON, and the next place is tried. If
all parts are lists, the body is JSON, and its list has the items of the parts.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from model_name.errors import DataError
from model_name.serving.protocols import strict_json

MIN_LONG_BYTES = 2**20  # size of a body from which it is parsed in parts
PART_BYTES = 2**19
CUT_DISTANCES = (PART_BYTES, PART_BYTES + 2**14, 2 * PART_BYTES, 4 * PART_BYTES, 7 * PART_BYTES)
MAX_PART_BYTES = 8 * PART_BYTES  # no valid row is longer
MAX_UNTYPED_BYTES = 2 * PART_BYTES  # of JSON that a parser may turn into any objects at once
find_cut_behind_item = re.compile(rb"[}\]]\s*,").search
find_cut_behind_object = re.compile(rb"}\s*,").search
FindCut = Callable[[bytes, int, int], re.Match[bytes] | None]
T = TypeVar("T")


class NotJsonError(DataError):
    """Part of a body that is not JSON, perhaps because it was cut in the wrong place."""


class LongList(NamedTuple):
    """Result of `parse_long_list`.

    Attributes:
        end: Document with the items of the last part alone, and everything that follows the list; it is to be parsed.
        items: Number of items in the parts before.
    """

    end: bytes
    items: int


def list_head(key: str) -> Callable[[bytes], re.Match[bytes] | None]:
    """Create a function that matches the start of an object with a list under a key; only an `id` may precede it."""
    return re.compile(rb'\s*\{(?:\s*"id"\s*:\s*"[^"\\]{0,4096}"\s*,)?\s*"%b"\s*:\s*\[' % key.encode()).match


def parse_part(part: bytes, decoder: msgspec.json.Decoder[T]) -> T | list[Any]:
    """Parse a part of a list by type; one with NaN or Infinity, or a short one of another type, without types.

    Raises:
        NotJsonError: The part is not JSON.
        DataError: The part is long, and of another type.
    """
    try:
        return decoder.decode(part)
    except msgspec.ValidationError as err:
        if len(part) > MAX_UNTYPED_BYTES:
            raise DataError(f"the body is malformed: {err}") from err
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        if b"NaN" not in part and b"Infinity" not in part:
            raise NotJsonError(str(err)) from err
    return parse_untyped(part)


def parse_untyped(part: bytes) -> list[Any]:
    """Parse a part of a list into any objects.

    Raises:
        NotJsonError: The part is not JSON.
    """
    try:
        return strict_json.loads(part)  # type: ignore[no-any-return]  # a list, as the first and the last byte show
    except DataError as err:
        raise NotJsonError(err.message) from err


def parse_long_list(
    body: bytes,
    head: re.Match[bytes],
    parse: Callable[[bytes, int], int],
    *,
    max_items: int,
    max_part_bytes: int,
    find_cut: FindCut = find_cut_behind_item,
) -> LongList:
    """Parse a long list in parts, but for the last one.

    Args:
        body: Body of a request.
        head: Match of `list_head` in it.
        parse: Function that parses a part, given as a JSON list and the number of items before it, and returns the
            number of its items. It raises NotJsonError for what is not JSON.
        max_items: Maximum number of items, after which no further part is parsed.
        max_part_bytes: Maximum size of a part.
        find_cut: Function that finds a place that may be behind an item, between two positions.

    Raises:
        DataError: The body is not JSON, or an item is longer than `max_part_bytes`.
    """
    view = memoryview(body)
    start, items = head.end(), 0
    while len(body) - start > 2 * PART_BYTES and items <= max_items:
        error = NotJsonError(f"item {items} or one of the next has no end")
        for end, next_start in _cuts(body, start, max_part_bytes, find_cut):
            try:
                items += parse(b"".join((b"[", view[start:end], b"]")), items)
            except NotJsonError as err:
                error = err
                continue
            start = next_start
            break
        else:
            if len(body) - start <= max_part_bytes:  # the last item is long
                break
            raise DataError(
                f"the body is not JSON, or an item of its list has more than {max_part_bytes} bytes: "
                f"behind byte {start}: {error.message}"
            )
    return LongList(b"".join((view[: head.end()], view[start:])), items)


def _cuts(body: bytes, start: int, max_part_bytes: int, find_cut: FindCut) -> Iterator[tuple[int, int]]:
    """Yield the end of a part that starts at some position, and the start of the next one, from near to far."""
    position = start
    for distance in CUT_DISTANCES:
        position = max(position, start + distance)
        cut = find_cut(body, position, start + max_part_bytes)
        if cut is None:
            return
        yield cut.start() + 1, cut.end()
        position = cut.end()
