"""Buffer of the prediction log: blocks that are being filled, and blocks and large batches that wait to be written."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from model_name.serving.prediction_log.blocks import (
    BlockBuilder,
    LargeBatch,
    LoggedBatch,
    detach_bodies,
    max_batch_rows,
)

MAX_OPEN_BLOCKS = 4  # of different layouts: requests with and without intervals, or with further columns


class BlockBuffer:
    """Collects rows in blocks. Not thread-safe.

    Attributes:
        rows: Number of rows that were appended and not released.
        memory_bytes: Estimate of the memory of these rows.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.rows = 0
        self.memory_bytes = 0
        self._open: dict[tuple[Any, ...], BlockBuilder] = {}
        self._current: BlockBuilder | None = None  # of the last batch, and usually of the next one
        self._waiting: deque[BlockBuilder | LargeBatch] = deque()

    def append(self, batch: LoggedBatch, requests: Sequence[int] | None, rows: int, weight: float) -> None:
        """Append rows of a batch.

        Args:
            batch: Whole batch.
            requests: Positions of the sampled requests; None for all.
            rows: Number of rows of these requests.
            weight: Inverse of the probability with which they were sampled.
        """
        builder = self._current
        if builder is None or not builder.fits(batch, rows):
            builder = self._open_block(batch, rows)
        if builder is None:
            large = LargeBatch(detach_bodies(batch), requests, weight, rows, time.monotonic())
            self._waiting.append(large)
            self.memory_bytes += large.memory_bytes
        else:
            self.memory_bytes -= builder.memory_bytes
            builder.append(batch, requests, weight)
            self.memory_bytes += builder.memory_bytes
        self.rows += rows

    def release(self, rows: int, memory_bytes: int) -> None:
        """Subtract rows that were taken out and formatted."""
        self.rows -= rows
        self.memory_bytes -= memory_bytes

    def is_ready(self, age: float) -> bool:
        """Report whether a full block or a large batch waits, or a block that was begun more than `age` seconds ago."""
        oldest = time.monotonic() - age
        return bool(self._waiting) or any(builder.started_at <= oldest for builder in self._open.values())

    def pop(self, age: float) -> BlockBuilder | LargeBatch | None:
        """Take out the block or large batch that waits longest, or else a block that was begun `age` seconds ago."""
        if not self._waiting:
            oldest = time.monotonic() - age
            for layout in [layout for layout, builder in self._open.items() if builder.started_at <= oldest]:
                self._close(layout)
        return self._waiting.popleft() if self._waiting else None

    def _open_block(self, batch: LoggedBatch, rows: int) -> BlockBuilder | None:
        """Return an open block for rows of a batch; None if it is too large to be copied."""
        if rows > max_batch_rows(len(batch.names)):
            return None
        layout = batch.layout
        builder = self._open.get(layout)
        if builder is None or not builder.fits(batch, rows):
            self._close(layout)
            if len(self._open) == MAX_OPEN_BLOCKS:
                oldest, unfinished = next(iter(self._open.items()))
                self.memory_bytes -= unfinished.memory_bytes
                unfinished.trim()
                self.memory_bytes += unfinished.memory_bytes
                self._close(oldest)
            builder = self._open[layout] = BlockBuilder(batch, time.monotonic())
            self.memory_bytes += builder.memory_bytes
        self._current = builder
        return builder

    def _close(self, layout: tuple[Any, ...]) -> None:
        """Add the block of a layout to those that wait."""
        if (builder := self._open.pop(layout, None)) is not None:
            self._waiting.append(builder)
            self._current = None
