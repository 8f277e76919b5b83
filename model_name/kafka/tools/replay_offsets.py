"""What is left of a partition when some of its records are taken and others are not: more than an offset can say.

A group commits for a partition one offset and a short text. The offset is that of the first record that is left; the
text says, in runs, which of those behind it were taken. Both are committed at once, and whoever knows nothing of the
text reads too much rather than too little.
"""

import zlib
from base64 import b85decode, b85encode
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from model_name.errors import DataError

MOST_TEXT = 4096
"""Bytes: what a broker takes unless `offset.metadata.max.bytes` says otherwise."""


class Mark(NamedTuple):
    """What a group commits for a partition."""

    offset: int
    text: str


class Remainder:
    """The records of one partition that are left, while it is gone through once more, in order."""

    def __init__(self, edges: Sequence[int]) -> None:
        """Begin.

        Args:
            edges: Offsets at which what is left and what is taken take turns: left from the first to the second,
                taken from there to the third, and so on; from the last on all are left.
        """
        self._before = [*edges]
        self._edges: list[int] = []  # of what has been gone through
        self._next = edges[0]
        self._was_left = False

    @classmethod
    def read(cls, mark: Mark | None, begin: int) -> Self:
        """What a group has left.

        Args:
            mark: What it has committed, if it has.
            begin: The first offset of the partition that is still there.

        Raises:
            DataError: It is not of this kind.
        """
        if mark is None:
            return cls([begin])
        edges = [mark.offset]
        for length in _lengths(mark.text):
            edges.append(edges[-1] + length)
        while len(edges) > 2 and edges[1] <= begin:  # a turn of both is gone
            del edges[:2]
        return cls([max(edge, begin) for edge in edges])

    @property
    def begin(self) -> int:
        """The first offset that may be left."""
        return self._before[0]

    def has(self, offset: int) -> bool:
        """Whether the record there is left."""
        return bisect_right(self._before, offset) % 2 == 1

    def pass_by(self, offset: int, *, is_left: bool) -> None:
        """Go on behind a record; offsets that are passed over have none."""
        if is_left != self._was_left:
            self._edges.append(offset if is_left else self._next)
        self._was_left, self._next = is_left, offset + 1

    def mark(self) -> Mark:
        """What to commit for what has been gone through until now, and has not.

        Raises:
            DataError: It is more than fits.
        """
        edges = self._joined()
        lengths = [end - start for start, end in pairwise(edges)]
        text = b85encode(zlib.compress(",".join(map(str, lengths)).encode(), 9)).decode() if lengths else ""
        if len(text) > MOST_TEXT:
            raise DataError(
                f"what is passed over lies too scattered: {len(lengths):,} turns do not fit into {MOST_TEXT} bytes",
                hint="take all that is left, or by a filter that takes more of it",
            )
        return Mark(edges[0], text)

    def _joined(self) -> list[int]:
        """The edges of what has been gone through, followed by those of before."""
        behind = bisect_right(self._before, self._next)
        edges = [*self._edges]
        if (len(edges) % 2 == 1) != (behind % 2 == 1):
            edges.append(self._next)
        return edges + self._before[behind:]


def _lengths(text: str) -> list[int]:
    if not text:
        return []
    try:
        return [int(length) for length in zlib.decompress(b85decode(text)).split(b",")]
    except (ValueError, zlib.error) as err:
        raise DataError(
            f"the group has committed {text[:50]!r} beside its offset, which is of somebody else",
            hint="give the replay a group of its own",
        ) from err
