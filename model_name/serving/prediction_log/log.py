"""The prediction log: what was asked and what was answered, one line of JSON a row, off the path of the requests."""

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
from model_name.serving.prediction_log.formatter import (
    MAX_KEY_BYTES,
    LoggedBatch,
    LoggedRequest,
    RecordFormatter,
    RowSelection,
    split_rows,
    merge_chunks,
)
from model_name.serving.prediction_log.log_files import JsonLinesWriter, LogFile

__all__ = ["LoggedBatch", "LoggedRequest", "LogSettings", "PredictionLog"]

CHUNK_ROWS = 256  # formatted at a time, in about a millisecond
MIN_PAUSE_SECONDS = 0.01  # between two stretches, at least: the interpreter lock belongs to the requests
MAX_CPU_SHARE = 0.04  # of one processor that the log may take: requests lose no more, and what does not fit is dropped
IDLE_POLL_SECONDS = 0.1  # between two looks at a buffer that was empty
WARN_INTERVAL_SECONDS = 60.0  # between two warnings

logger = logging.getLogger("model_name.predictions")


class LogSettings(FrozenModel):
    """Where the prediction log goes and how much of it.

    Attributes:
        url: A local folder, or any fsspec URL.
        sampling: The share of requests that is logged, drawn for each request.
        text_ids: Whether `text-id` columns are logged where clients send them.
        max_buffered_rows: How many rows may wait to be formatted; a batch that does not fit is dropped and counted.
        flush_seconds: How often a local file is written at least: the most that a killed process loses.
        upload_seconds: The same for an object store, where each time makes a file.
        max_file_bytes: The size at which a file ends; the rows of one stretch may go beyond it.
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
    """What is logged of a batch.

    Attributes:
        batch: The whole batch.
        requests: Those that were drawn.
        rows: How many rows they have.
    """

    batch: LoggedBatch
    requests: Sequence[LoggedRequest]
    rows: int


@dataclass(slots=True)
class PendingRows:
    """What the writer has in hand.

    Attributes:
        rows: How many of it are still to be formatted.
    """

    rows: int


class PredictionLog:
    """Takes answered batches and writes them from a thread of its own.

    It never fails a request: what cannot be kept or written is dropped, counted, and said once a minute.

    Attributes:
        dropped: Rows that were to be logged and are not.
        written: Rows that are in files.
        on_drop: Called with the number of rows of each drop, on the thread that drops them; what it raises is ignored.
    """

    def __init__(self, settings: LogSettings, *, slot: str, key: bytes | None = None) -> None:
        """Set up a log.

        Args:
            settings: Where to, and how much.
            slot: The slot that this server stands in, e.g. `blue`.
            key: Hashes the values of sensitive columns; without one (or with an empty one) they are left out.

        Raises:
            ConfigError: The URL is of no known kind, or the key is too long.
            DependencyError: The package for the kind of URL is not installed.
        """
        if key and len(key) > MAX_KEY_BYTES:
            raise ConfigError(f"the key of the prediction log has {len(key)} bytes, {MAX_KEY_BYTES} is the most")
        self.settings = settings
        self.dropped = 0
        self.written = 0
        self.on_drop: Callable[[int], None] = lambda rows: None
        self._slot = slot
        self._key = key or None
        self._files = JsonLinesWriter(settings.url, max_file_bytes=settings.max_file_bytes)
        self._records: RecordFormatter | None = None
        self._buffer: deque[SampledBatch] = deque()  # nobody waits at it: to wake a thread takes longer than all of `put`
        self._lock = threading.Lock()
        self._buffered = 0  # rows in it
        self._unsettled = 0  # rows taken, and neither written nor dropped yet
        self._overflowed = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._quiet_until = 0.0
        self._told: set[str] = set()
        self._worked = 0.0  # seconds of a processor, at the end of the last pause

    def start(self) -> None:
        """Start to write."""
        self._thread.start()

    def put(self, batch: LoggedBatch) -> None:
        """Log a batch; takes microseconds, from any thread, and never blocks or raises."""
        requests: Sequence[LoggedRequest] = batch.requests
        rows = len(batch.outputs.prediction)
        share = self.settings.sampling
        if share < 1:
            requests = [one for one in requests if random() < share]  # noqa: S311  no secret  # nosec B311
            rows = sum([one.rows.stop - one.rows.start for one in requests])
        if not rows:
            return
        with self._lock:
            fits = self._buffered + rows <= self.settings.max_buffered_rows and not self._closing.is_set()
            if fits:
                self._buffered += rows
                self._unsettled += rows
                self._buffer.append(SampledBatch(batch, requests, rows))
            else:
                self._overflowed = True
                self.dropped += rows
        if not fits:
            self._tell_drop(rows)

    def close(self, seconds: float) -> None:
        """Take no more, write what is there, and give up on the rest after so many seconds."""
        with self._lock:
            self._closing.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        with self._lock:
            lost, self._unsettled = self._unsettled, 0
            self.dropped += lost
        if lost:
            logger.warning("prediction log %s: closed with %d rows unwritten", self._files.root, lost)
            self._tell_drop(lost)

    def _run(self) -> None:
        self._worked = time.thread_time()
        every = self.settings.flush_seconds if self._files.is_local else self.settings.upload_seconds
        due = time.monotonic() + every
        is_over = False
        while not is_over:
            self._pause(MIN_PAUSE_SECONDS if self._buffer else min(IDLE_POLL_SECONDS, every))
            samples = self._take()
            is_over = self._closing.is_set() and not self._buffer
            work = PendingRows(sum(sample.rows for sample in samples))
            with self._surviving(work):
                parts = (part for one in samples for part in split_rows(one.batch, one.requests, CHUNK_ROWS))
                for number, stretch in enumerate(merge_chunks(parts, CHUNK_ROWS)):
                    if number:
                        self._pause(MIN_PAUSE_SECONDS)
                    self._record(stretch, work)
            if is_over or time.monotonic() >= due:
                self._write(self._files.parts())
                self._tell_overflow()
                due = time.monotonic() + every

    def _take(self) -> list[SampledBatch]:
        """The oldest samples that wait, as many as make up a stretch."""
        samples: list[SampledBatch] = []
        rows = 0
        while self._buffer and rows < CHUNK_ROWS:
            samples.append(self._buffer.popleft())
            rows += samples[-1].rows
        with self._lock:
            self._buffered -= rows
        return samples

    def _pause(self, seconds: float) -> None:
        """Let others have the interpreter lock for their share of the time, unless nothing more will come."""
        worked = time.thread_time() - self._worked
        self._closing.wait(max(seconds, worked * (1 - MAX_CPU_SHARE) / MAX_CPU_SHARE))
        self._worked = time.thread_time()

    def _record(self, stretch: Sequence[RowSelection], work: PendingRows) -> None:
        """Format rows and let them wait for their file to be written."""
        manifest = stretch[0].batch.manifest
        if self._records is None or self._records.manifest is not manifest:
            self._records = RecordFormatter(manifest, slot=self._slot, key=self._key, text_ids=self.settings.text_ids)
            self._tell_left_out(self._records.left_out)
        for day, lines in self._records.lines(stretch).items():
            part = self._files.add(day, manifest.version, lines.text, lines.rows)
            work.rows -= lines.rows
            if self._files.is_due(part):
                self._write([part])

    def _write(self, parts: Sequence[LogFile]) -> None:
        for part in parts:
            with self._surviving(part):
                self._files.write(part)
                rows, part.rows = part.rows, 0
                with self._lock:
                    settled = min(rows, self._unsettled)  # none, where `close` has given them up
                    self._unsettled -= settled
                    self.written += settled

    @contextmanager
    def _surviving(self, work: PendingRows | LogFile) -> Generator[None]:
        """Whatever happens, the thread goes on, and the rows of the work that are not done are counted."""
        try:
            yield
        except Exception as err:  # noqa: BLE001  the outermost loop: clients of stores raise what they like
            rows, work.rows = work.rows, 0
            with self._lock:
                lost = min(rows, self._unsettled)
                self._unsettled -= lost
                self.dropped += lost
            self._tell_drop(lost)
            self._warn(describe_failure(err, work))

    def _tell_drop(self, rows: int) -> None:
        with suppress(Exception):  # a hook may be anything, and `put` never raises
            self.on_drop(rows)

    def _tell_overflow(self) -> None:
        if self._overflowed:
            self._overflowed = False
            self._warn(f"more came than {self.settings.max_buffered_rows} rows that may wait")

    def _tell_left_out(self, names: Sequence[str]) -> None:
        new = [name for name in names if name not in self._told]
        self._told.update(new)
        if new:
            logger.warning("prediction log: without a key, sensitive columns are left out: %s", ", ".join(new))

    def _warn(self, reason: str) -> None:
        if time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + WARN_INTERVAL_SECONDS
            logger.warning("prediction log %s: %d rows dropped so far: %s", self._files.root, self.dropped, reason)


def describe_failure(err: Exception, work: PendingRows | LogFile) -> str:
    """Why something failed: in the words of the disk or the store, but never with a value of a request."""
    if isinstance(work, LogFile):
        return f"{type(err).__name__}: {err}"
    place = traceback.extract_tb(err.__traceback__)[-1]
    return f"{type(err).__name__} in {Path(place.filename).name}, line {place.lineno}"
