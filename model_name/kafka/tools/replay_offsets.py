"""Track which records of a partition are replayed when others before them are not: more than one offset can express.

A group commits one offset and a short metadata text for each partition. The offset is that of the first pending record;
the metadata describes, by run lengths, which of the records after it are replayed. Both are committed together. A
client that ignores the metadata reads too many records rather than too few.
"""

import zlib
from base64 import b85decode, b85encode
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from model_name.errors import DataError

MAX_METADATA_BYTES = 4096
"""Limit of the broker, unless `offset.metadata.max.bytes` is set."""


class ReplayCheckpoint(NamedTuple):
    """Committed offset of a partition and its metadata."""

    offset: int
    metadata: str


class PendingOffsets:
    """Pending records of one partition, updated while the partition is read once more, in order."""

    def __init__(self, edges: Sequence[int]) -> None:
        """Create the pending records from the edges of their ranges.

        Args:
            edges: Offsets at which pending and replayed ranges alternate: pending from the first to the second,
                replayed from there to the third, and so on; all records from the last one on are pending.
        """
        self._old_edges = [*edges]
        self._new_edges: list[int] = []  # of the records that were read
        self._next = edges[0]
        self._was_pending = False

    @classmethod
    def from_checkpoint(cls, checkpoint: ReplayCheckpoint | None, log_start: int) -> Self:
        """Restore the pending records of a group.

        Args:
            checkpoint: Checkpoint that the group has committed, if there is one.
            log_start: First offset of the partition that still exists.

        Raises:
            DataError: The metadata was not written by a replay.
        """
        if checkpoint is None:
            return cls([log_start])
        edges = [checkpoint.offset]
        for length in _decode_run_lengths(checkpoint.metadata):
            edges.append(edges[-1] + length)
        while len(edges) > 2 and edges[1] <= log_start:  # a pending and a replayed range that are deleted
            del edges[:2]
        return cls([max(edge, log_start) for edge in edges])

    @property
    def first_pending(self) -> int:
        """First offset that may be pending."""
        return self._old_edges[0]

    def is_pending(self, offset: int) -> bool:
        """Return whether the record at an offset was pending before this pass."""
        return bisect_right(self._old_edges, offset) % 2 == 1

    def advance(self, offset: int, *, is_pending: bool) -> None:
        """Record whether the record at an offset stays pending, and continue after it. Offsets may have gaps."""
        if is_pending != self._was_pending:
            self._new_edges.append(offset if is_pending else self._next)
        self._was_pending, self._next = is_pending, offset + 1

    def to_checkpoint(self) -> ReplayCheckpoint:
        """Build the checkpoint of this pass up to now.

        Raises:
            DataError: The metadata exceeds the limit of the broker.
        """
        edges = self._merged_edges()
        lengths = [end - start for start, end in pairwise(edges)]
        metadata = b85encode(zlib.compress(",".join(map(str, lengths)).encode(), 9)).decode() if lengths else ""
        if len(metadata) > MAX_METADATA_BYTES:
            raise DataError(
                f"what is passed over lies too scattered: {len(lengths):,} turns do not fit into "
                f"{MAX_METADATA_BYTES} bytes",
                hint="take all that is left, or by a filter that takes more of it",
            )
        return ReplayCheckpoint(edges[0], metadata)

    def _merged_edges(self) -> list[int]:
        """Join the edges of the records that were read and those of the records after them."""
        passed = bisect_right(self._old_edges, self._next)
        edges = [*self._new_edges]
        if (len(edges) % 2 == 1) != (passed % 2 == 1):
            edges.append(self._next)
        return edges + self._old_edges[passed:]


def _decode_run_lengths(metadata: str) -> list[int]:
    if not metadata:
        return []
    try:
        return [int(length) for length in zlib.decompress(b85decode(metadata)).split(b",")]
    except (ValueError, zlib.error) as err:
        raise DataError(
            f"the group has committed {metadata[:50]!r} beside its offset, which is of somebody else",
            hint="give the replay a group of its own",
        ) from err
