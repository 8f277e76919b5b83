"""Prediction log: inputs and outputs as one line of JSON per row, written by a thread beside the requests."""

import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import random

from pydantic import Field

from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import ConfigError
from model_name.serving.prediction_log.formatter import MAX_KEY_BYTES, RecordFormatter
from model_name.serving.prediction_log.log_files import JsonLinesWriter, LogFile
from model_name.serving.prediction_log.row_selection import (
    LoggedBatch,
    LoggedRequest,
    RowSelection,
    merge_chunks,
    split_rows,
)

CHUNK_ROWS = 256  # formatted at a time, in about a millisecond
MIN_PAUSE_SECONDS = 0.01  # between two chunks, so that requests get the interpreter
MAX_CPU_SHARE = 0.04  # of one processor; requests lose no more, and rows beyond it are dropped
IDLE_POLL_SECONDS = 0.1  # between two checks of an empty buffer
WARN_INTERVAL_SECONDS = 60.0  # between two warnings

logger = logging.getLogger("model_name.predictions")


class LogSettings(FrozenModel):
    """Settings of the prediction log.

    Attributes:
        url: Local folder, or any fsspec URL.
        sampling: Share of requests that is logged, drawn for each request.
        text_ids: Whether `text-id` columns are logged if clients send them.
        max_buffered_rows: Maximum number of rows in the buffer; a batch that exceeds it is dropped and counted.
        flush_seconds: Interval between two writes of a local file: the most that a killed process loses.
        upload_seconds: Interval between two writes to an object store, each of which creates a file.
        max_file_bytes: Size at which a file ends; the rows of one chunk may exceed it.
    """

    url: str = Field(min_length=1)
    sampling: float = Field(1.0, ge=0, le=1)
    text_ids: bool = False
    max_buffered_rows: int = Field(250_000, gt=0)
    flush_seconds: Duration = 1.0
    upload_seconds: Duration = 30.0
    max_file_bytes: int = Field(64 * 2**20, gt=0)


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """A batch of which some requests are logged.

    Attributes:
        batch: Whole batch.
        requests: Requests that were drawn.
        rows: Number of rows of these requests.
    """

    batch: LoggedBatch
    requests: Sequence[LoggedRequest]
    rows: int


@dataclass(slots=True)
class PendingRows:
    """Rows that the thread is formatting.

    Attributes:
        rows: Number of rows that are not formatted yet.
    """

    rows: int


class PredictionLog:
    """Buffers predicted batches and writes them from a thread of its own.

    The log never fails a request: rows that cannot be buffered or written are dropped and counted, with one warning
    per minute.

    Attributes:
        dropped: Number of sampled rows that are lost.
        written: Number of rows in files.
        on_drop: Callback that receives the number of rows of each drop, on the thread that drops them; exceptions in it
            are ignored.
    """

    def __init__(self, settings: LogSettings, *, slot: str, key: bytes | None = None) -> None:
        """Prepare a log; `start` starts its thread.

        Args:
            settings: Settings of the log.
            slot: Blue-green slot of the server, such as `blue`.
            key: Key that hashes the values of sensitive columns; without one, or with an empty one, they are omitted.

        Raises:
            ConfigError: fsspec does not know the protocol of the URL, or the key is too long.
            DependencyError: The package for the protocol of the URL is not installed.
        """
        if key and len(key) > MAX_KEY_BYTES:
            raise ConfigError(f"the key of the prediction log has {len(key)} bytes, {MAX_KEY_BYTES} is the most")
        self.settings = settings
        self.dropped = 0
        self.written = 0
        self.on_drop: Callable[[int], None] = lambda rows: None
        self._slot = slot
        self._key = key or None
        self._writer = JsonLinesWriter(settings.url, max_file_bytes=settings.max_file_bytes)
        self._formatter: RecordFormatter | None = None
        self._buffer: deque[SampledBatch] = deque()  # polled: to wake a thread takes longer than all of `put`
        self._lock = threading.Lock()
        self._buffered_rows = 0  # in `_buffer`
        self._unsettled_rows = 0  # accepted by `put`, and neither written nor dropped yet
        self._has_overflowed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._next_warning = 0.0
        self._warned_columns: set[str] = set()
        self._thread_seconds = 0.0  # processor time of the thread, at the end of the last pause

    def start(self) -> None:
        """Start the thread that writes."""
        self._thread.start()

    def put(self, batch: LoggedBatch) -> None:
        """Buffer a batch. Takes microseconds, on any thread, and never blocks or raises."""
        requests: Sequence[LoggedRequest] = batch.requests
        rows = len(batch.outputs.prediction)
        share = self.settings.sampling
        if share < 1:
            requests = [request for request in requests if random() < share]  # noqa: S311  no secret  # nosec B311
            rows = sum([request.rows.stop - request.rows.start for request in requests])
        if not rows:
            return
        with self._lock:
            is_accepted = self._buffered_rows + rows <= self.settings.max_buffered_rows and not self._closing.is_set()
            if is_accepted:
                self._buffered_rows += rows
                self._unsettled_rows += rows
                self._buffer.append(SampledBatch(batch, requests, rows))
            else:
                self._has_overflowed = True
                self.dropped += rows
        if not is_accepted:
            self._notify_dropped(rows)

    def close(self, seconds: float) -> None:
        """Reject further batches and write the buffered rows.

        Args:
            seconds: Time after which the rows that are left are dropped.
        """
        with self._lock:
            self._closing.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        with self._lock:
            lost, self._unsettled_rows = self._unsettled_rows, 0
            self.dropped += lost
        if lost:
            logger.warning("prediction log %s: closed with %d rows unwritten", self._writer.root, lost)
            self._notify_dropped(lost)

    def _run(self) -> None:
        self._thread_seconds = time.thread_time()
        interval = self.settings.flush_seconds if self._writer.is_local else self.settings.upload_seconds
        next_write = time.monotonic() + interval
        is_last = False
        while not is_last:
            self._throttle(MIN_PAUSE_SECONDS if self._buffer else min(IDLE_POLL_SECONDS, interval))
            samples = self._pop_samples()
            is_last = self._closing.is_set() and not self._buffer
            pending = PendingRows(sum(sample.rows for sample in samples))
            with self._drop_on_error(pending):
                selections = (
                    part for sample in samples for part in split_rows(sample.batch, sample.requests, CHUNK_ROWS)
                )
                for number, chunk in enumerate(merge_chunks(selections, CHUNK_ROWS)):
                    if number:
                        self._throttle(MIN_PAUSE_SECONDS)
                    self._format(chunk, pending)
            if is_last or time.monotonic() >= next_write:
                self._write(self._writer.buffered_files())
                self._warn_overflow()
                next_write = time.monotonic() + interval

    def _pop_samples(self) -> list[SampledBatch]:
        """Remove the oldest batches from the buffer, as many as make up a chunk."""
        samples: list[SampledBatch] = []
        rows = 0
        while self._buffer and rows < CHUNK_ROWS:
            samples.append(self._buffer.popleft())
            rows += samples[-1].rows
        with self._lock:
            self._buffered_rows -= rows
        return samples

    def _throttle(self, seconds: float) -> None:
        """Pause until the thread is back at `MAX_CPU_SHARE`, for at least some seconds, unless the log is closing."""
        used = time.thread_time() - self._thread_seconds
        self._closing.wait(max(seconds, used * (1 - MAX_CPU_SHARE) / MAX_CPU_SHARE))
        self._thread_seconds = time.thread_time()

    def _format(self, chunk: Sequence[RowSelection], pending: PendingRows) -> None:
        """Format rows, buffer their lines, and write the files that are due."""
        manifest = chunk[0].batch.manifest
        if self._formatter is None or self._formatter.manifest is not manifest:
            self._formatter = RecordFormatter(manifest, slot=self._slot, key=self._key, text_ids=self.settings.text_ids)
            self._warn_omitted(self._formatter.omitted_columns)
        for day, lines in self._formatter.format_lines(chunk).items():
            file = self._writer.add(day, manifest.version, lines.text, lines.rows)
            pending.rows -= lines.rows
            if self._writer.is_due(file):
                self._write([file])

    def _write(self, files: Sequence[LogFile]) -> None:
        for file in files:
            with self._drop_on_error(file):
                self._writer.write(file)
                rows, file.rows = file.rows, 0
                with self._lock:
                    settled = min(rows, self._unsettled_rows)  # zero after `close` has dropped them
                    self._unsettled_rows -= settled
                    self.written += settled

    @contextmanager
    def _drop_on_error(self, rows: PendingRows | LogFile) -> Generator[None]:
        """Count the rows that are left of some work as dropped if it fails, so that the thread continues."""
        try:
            yield
        except Exception as err:  # noqa: BLE001  the outermost loop: clients of object stores raise anything
            left, rows.rows = rows.rows, 0
            with self._lock:
                lost = min(left, self._unsettled_rows)
                self._unsettled_rows -= lost
                self.dropped += lost
            self._notify_dropped(lost)
            self._warn_dropped(describe_failure(err, rows))

    def _notify_dropped(self, rows: int) -> None:
        with suppress(Exception):  # a callback may raise anything, and `put` must not
            self.on_drop(rows)

    def _warn_overflow(self) -> None:
        if self._has_overflowed:
            self._has_overflowed = False
            self._warn_dropped(f"the buffer of {self.settings.max_buffered_rows} rows is full")

    def _warn_omitted(self, names: Sequence[str]) -> None:
        new = [name for name in names if name not in self._warned_columns]
        self._warned_columns.update(new)
        if new:
            logger.warning("prediction log: without a key, sensitive columns are left out: %s", ", ".join(new))

    def _warn_dropped(self, reason: str) -> None:
        if time.monotonic() >= self._next_warning:
            self._next_warning = time.monotonic() + WARN_INTERVAL_SECONDS
            logger.warning("prediction log %s: %d rows dropped so far: %s", self._writer.root, self.dropped, reason)


def describe_failure(err: Exception, rows: PendingRows | LogFile) -> str:
    """Describe why formatting or writing failed: by the message of the disk or store, without a value."""
    if isinstance(rows, LogFile):
        return f"{type(err).__name__}: {err}"
    place = traceback.extract_tb(err.__traceback__)[-1]
    return f"{type(err).__name__} in {Path(place.filename).name}, line {place.lineno}"
