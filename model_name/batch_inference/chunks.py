"""Chunks of a streamed table, and an ordered map over them on several threads."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

MAX_THREADS = 8  # more threads spend more time waiting for the GIL than computing

T = TypeVar("T")
Mapped = TypeVar("Mapped")


@dataclass(frozen=True)
class RowChunk:
    """Consecutive rows of a table.

    Attributes:
        first_row: Number of the first row in the table.
        batch: Rows.
    """

    first_row: int
    batch: pa.RecordBatch


def split_into_chunks(batches: Iterable[pa.RecordBatch], start: int, part_rows: int) -> Iterator[RowChunk]:
    """Yield the rows from number `start` on; no chunk crosses the end of an output part."""
    row = 0
    for batch in batches:
        offset = min(batch.num_rows, max(0, start - row))
        row += offset
        while offset < batch.num_rows:
            chunk = batch.slice(offset, part_rows - row % part_rows)
            yield RowChunk(row, chunk)
            row += chunk.num_rows
            offset += chunk.num_rows


def map_ordered(function: Callable[[T], Mapped], items: Iterable[T], threads: int) -> Generator[Mapped]:
    """Map items on a thread pool and yield the results in order.

    At most `threads + 2` items are submitted ahead of the consumer, which bounds memory. An exception is raised at the
    position of its item.
    """
    pending: deque[Future[Mapped]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def default_threads() -> int:
    """Return the number of CPUs that this process may use, at most `MAX_THREADS`."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(available, MAX_THREADS)
