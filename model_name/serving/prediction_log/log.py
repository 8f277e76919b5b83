"""Prediction log: inputs and outputs as lines of JSON, written by a thread beside the requests."""

import logging
import threading
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import random

from pydantic import Field

from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import ConfigError
from model_name.serving.prediction_log.adaptive_sampling import AdaptiveSampling
from model_name.serving.prediction_log.block_buffer import BlockBuffer
from model_name.serving.prediction_log.blocks import Block, BlockBuilder, LargeBatch, LoggedBatch
from model_name.serving.prediction_log.cpu_budget import CpuBudget
from model_name.serving.prediction_log.formatter import MAX_KEY_BYTES, BlockFormatter
from model_name.serving.prediction_log.log_files import JsonLinesWriter, LogFile

LOG_KEY_ENV = "MODEL_NAME_LOG_KEY"  # environment variable with the key that hashes sensitive values
MAX_CPU_SHARE = 0.04  # of one processor, on average; requests lose no more
MAX_CPU_CREDIT_SECONDS = 0.25  # of the share while no rows arrive, for the rows of a large request
MIN_PAUSE_SECONDS = 0.01  # between two blocks, so that requests get the interpreter
POLL_SECONDS = 0.1  # between two checks of the buffer: to wake the thread would take longer than all of `put`
WARN_INTERVAL_SECONDS = 60.0  # between two warnings of a kind
MIN_BACKLOG_SECONDS = 1.0  # that rows may wait before fewer requests are sampled

logger = logging.getLogger("model_name.predictions")


class LogSettings(FrozenModel):
    """Settings of the prediction log.

    Attributes:
        url: Local folder, or any fsspec URL.
        sampling: Probability with which a request is logged; lower while more rows arrive than can be written.
        text_ids: Whether `text-id` columns are logged if clients send them.
        max_buffered_rows: Maximum number of rows in the buffer; a batch that exceeds it is dropped and counted.
        max_buffered_bytes: Memory of the buffer, at which further batches are dropped and counted.
        flush_seconds: Time within which rows are in a local file, unless more arrive than can be written: the most that
            a killed process loses.
        upload_seconds: Interval between two writes to an object store, each of which creates a file.
        max_file_bytes: Size at which a file ends; the rows of one block may exceed it.
    """

    url: str = Field(min_length=1)
    sampling: float = Field(1.0, ge=0, le=1)
    text_ids: bool = False
    max_buffered_rows: int = Field(1_000_000, gt=0)
    max_buffered_bytes: int = Field(64 * 2**20, gt=0)
    flush_seconds: Duration = 1.0
    upload_seconds: Duration = 30.0
    max_file_bytes: int = Field(64 * 2**20, gt=0)


@dataclass(slots=True)
class PendingRows:
    """Rows that the thread is formatting.

    Attributes:
        rows: Number of rows that are not formatted yet.
    """

    rows: int


class PredictionLog:
    """Buffers predicted batches and writes them from a thread of its own.

    The log never fails a request. If more rows arrive than can be written, fewer requests are sampled, and each record
    has the inverse of its probability as its weight. Rows that were sampled and cannot be buffered or written are
    dropped and counted, with one warning per minute.

    Attributes:
        dropped: Number of sampled rows that are lost.
        written: Number of rows in files.
        cpu_seconds: Processor time of the thread.
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
            ConfigError: fsspec has no file system for the protocol of the URL, or the key is too long.
            DependencyError: The package for the protocol of the URL is not installed.
        """
        if key and len(key) > MAX_KEY_BYTES:
            raise ConfigError(f"the key of the prediction log has {len(key)} bytes, {MAX_KEY_BYTES} is the most")
        self.settings = settings
        self.dropped = 0
        self.written = 0
        self.cpu_seconds = 0.0
        self.on_drop: Callable[[int], None] = lambda rows: None
        self._slot = slot
        self._key = key or None
        self._writer = JsonLinesWriter(settings.url, max_file_bytes=settings.max_file_bytes)
        self._formatter: BlockFormatter | None = None
        self._sampling = AdaptiveSampling(
            settings.sampling,
            backlog_seconds=max(settings.flush_seconds, MIN_BACKLOG_SECONDS),
            max_bytes=settings.max_buffered_bytes,
        )
        self._poll_seconds = min(POLL_SECONDS, settings.flush_seconds / 4)
        self._max_age = settings.flush_seconds / 2
        self._buffer = BlockBuffer()
        self._lock = threading.Lock()
        self._unsettled_rows = 0  # accepted by `put`, and neither written nor dropped yet
        self._has_overflowed = False
        self._lowest_probability = settings.sampling  # since the last report of the sampling
        self._closing = threading.Event()
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._budget: CpuBudget
        self._next_warning = 0.0
        self._next_sampling_report = 0.0
        self._is_reduced = False
        self._warned_columns: set[str] = set()

    @property
    def waiting(self) -> int:
        """Number of sampled rows that are neither in a file nor dropped."""
        return self._unsettled_rows

    @property
    def probability(self) -> float:
        """Probability with which the next request is sampled."""
        return self._sampling.probability(self._buffer.rows, self._buffer.memory_bytes)

    def check_writable(self) -> None:
        """Check that files can be written to the URL, before the first rows are.

        Raises:
            ConfigError: The folder cannot be created, or access is denied.
        """
        self._writer.check_writable()

    def start(self) -> None:
        """Start the thread that writes."""
        self._thread.start()

    def put(self, batch: LoggedBatch) -> None:
        """Buffer a batch. Takes microseconds, on any thread, and never blocks or raises."""
        rows = len(batch.outputs.prediction)
        probability = self.probability
        requests: list[int] | None = None
        if probability < 1:
            self._lowest_probability = min(self._lowest_probability, probability)
            draws = range(len(batch.rows))
            requests = [request for request in draws if random() < probability]  # noqa: S311  no secret  # nosec B311
            rows = sum([batch.rows[request].stop - batch.rows[request].start for request in requests])
        if not rows:
            return
        with self._lock:
            is_accepted = (
                self._buffer.rows + rows <= self.settings.max_buffered_rows
                and self._buffer.memory_bytes < self.settings.max_buffered_bytes
                and not self._closing.is_set()
            )
            if is_accepted:
                self._buffer.append(batch, requests, rows, 1 / probability)
                self._unsettled_rows += rows
            else:
                self._has_overflowed = True
                self.dropped += rows
        if not is_accepted:
            self._notify_dropped(rows)

    def close(self, seconds: float) -> None:
        """Reject further batches and write the buffered rows, without regard to the share of the processor.

        Args:
            seconds: Time after which the rows that are left are dropped.
        """
        with self._lock:
            self._closing.set()
        if self._thread.is_alive() and not self._is_abandoned:
            self._thread.join(seconds)
        self._is_abandoned = True
        with self._lock:
            lost, self._unsettled_rows = self._unsettled_rows, 0
            self.dropped += lost
        if lost:
            logger.warning("prediction log %s: closed with %d rows unwritten", self._writer.root, lost)
            self._notify_dropped(lost)

    def _run(self) -> None:
        self._budget = CpuBudget(MAX_CPU_SHARE, MAX_CPU_CREDIT_SECONDS)
        interval = self.settings.flush_seconds if self._writer.is_local else self.settings.upload_seconds
        next_flush = time.monotonic() + interval
        is_last = False
        while not is_last and not self._is_abandoned:
            self._wait(next_flush)
            is_closing = self._closing.is_set()  # nothing is appended afterwards
            with self._lock:
                item = self._buffer.pop(0.0 if is_closing else self._max_age)
            if item is not None:
                self._format_item(item)
            is_last = is_closing and item is None
            if is_last or time.monotonic() >= next_flush:
                self._write(self._writer.buffered_files())
                self._warn_overflow()
                self._report_sampling()
                next_flush = time.monotonic() + interval

    def _wait(self, next_flush: float) -> None:
        """Wait until rows should be formatted or files be written, and the budget allows it, or the log is closing."""
        self._pause(MIN_PAUSE_SECONDS if self._has_block() else self._poll_seconds)
        while not (self._closing.is_set() or self._has_block() or time.monotonic() >= next_flush):
            self._pause(self._poll_seconds)

    def _has_block(self) -> bool:
        with self._lock:
            return self._buffer.is_ready(self._max_age)

    def _pause(self, seconds: float) -> None:
        """Pause for some seconds, and until the budget is no longer exceeded, unless the log is closing."""
        self._budget.update()
        self.cpu_seconds = self._budget.used_seconds
        self._closing.wait(max(seconds, self._budget.pause_seconds))

    def _format_item(self, item: BlockBuilder | LargeBatch) -> None:
        """Format and write a block, or a large batch in blocks with a pause after each."""
        pending = PendingRows(item.rows)
        unreleased = item.rows
        with self._drop_on_error(pending):
            for block in item.build():
                if unreleased < item.rows:
                    self._pause(MIN_PAUSE_SECONDS)
                if self._is_abandoned:
                    break
                self._format(block, pending)
                unreleased -= block.rows
                self._release(block.rows, 0)
        self._release(unreleased, item.memory_bytes)

    def _release(self, rows: int, memory_bytes: int) -> None:
        with self._lock:
            self._buffer.release(rows, memory_bytes)

    def _format(self, block: Block, pending: PendingRows) -> None:
        """Format rows, buffer their lines, and write the files that are due."""
        started = time.monotonic()
        self._budget.update()
        manifest = block.manifest
        if self._formatter is None or self._formatter.manifest is not manifest:
            self._formatter = BlockFormatter(manifest, slot=self._slot, key=self._key, text_ids=self.settings.text_ids)
            self._warn_omitted(self._formatter.omitted_columns)
        for day, encoded in self._formatter.format_block(block).items():
            file = self._writer.add(day, manifest.version, encoded.text, encoded.rows)
            pending.rows -= encoded.rows
            if self._writer.is_due(file):
                self._write([file])
        used = self._budget.update()
        elapsed = time.monotonic() - started + MIN_PAUSE_SECONDS
        rows = max(block.rows, block.capacity // 2)  # those of a small block cost more than rows do if many wait
        self._sampling.record_block(rows, elapsed, used, credit=self._budget.credit_seconds, share=self._budget.share)

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
            self._warn_dropped(f"the buffer is full: {self._buffer.rows} rows wait")

    def _report_sampling(self) -> None:
        """Log that fewer requests are sampled, or that all are again, at most once per `WARN_INTERVAL_SECONDS`."""
        now = time.monotonic()
        lowest = self._lowest_probability
        is_reduced = lowest < self.settings.sampling
        if now < self._next_sampling_report or not (is_reduced or self._is_reduced):
            return
        self._next_sampling_report = now + WARN_INTERVAL_SECONDS
        self._lowest_probability = self.settings.sampling
        if is_reduced:
            logger.warning(
                "prediction log %s: more rows arrive than it writes; requests were sampled with a probability of %.3g "
                "or more, which their records have as weight",
                self._writer.root,
                lowest,
            )
        else:
            logger.info("prediction log %s: the sampling is %g again", self._writer.root, self.settings.sampling)
        self._is_reduced = is_reduced

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
