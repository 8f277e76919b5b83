"""JSON Lines files by day and version, in a folder or behind any fsspec URL."""

import logging
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from socket import gethostname
from threading import Thread
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model_name.errors import ConfigError, DependencyError

FILE_SUFFIX = ".jsonl"
MAX_UPLOAD_BYTES = 8 * 2**20  # of a file in an object store: until it is uploaded, its lines are held in memory
CHECK_NAME = ".write-check"  # of the file that checks whether an object store accepts files
CHECK_SECONDS = 5.0  # for which the start of a server waits for an object store

logger = logging.getLogger("model_name.predictions")


@dataclass
class LogFile:
    """One file, and the lines to be written to it.

    Attributes:
        path: Path in the file system or store.
        size: Size of the written lines in bytes.
        buffer: Lines to be written.
        buffered_bytes: Size of the buffer.
        rows: Number of rows in the buffer.
    """

    path: str
    size: int = 0
    buffer: list[bytes] = field(default_factory=list)
    buffered_bytes: int = 0
    rows: int = 0


class JsonLinesWriter:
    """Writes `date=YYYY-MM-DD/version=V/HOST-PID-MILLISECONDS-NNNN.jsonl`.

    A local file grows by the buffered lines, each time that it is written. An object store cannot append, so that each
    write creates a file there. Either way a file has whole lines, unless the process is killed while it writes.

    Attributes:
        filesystem: File system of the URL.
        root: Path of the folder in it.
        is_local: Whether the file system is the local one.
    """

    def __init__(self, url: str, *, max_file_bytes: int) -> None:
        """Open a file system; the folder need not exist, nor the store be reachable yet.

        Args:
            url: Local folder, or any fsspec URL.
            max_file_bytes: Size at which a file ends.

        Raises:
            ConfigError: fsspec has no file system for the protocol of the URL.
            DependencyError: The package for the protocol is not installed.
        """
        try:
            self.filesystem, root = fsspec.core.url_to_fs(url)
        except ImportError as err:
            raise DependencyError(f"{url}: {err}") from err
        except ValueError as err:
            raise ConfigError(f"{url}: {err}") from err
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.filesystem, LocalFileSystem)
        self._max_file_bytes = max_file_bytes if self.is_local else min(max_file_bytes, MAX_UPLOAD_BYTES)
        self._files: dict[tuple[str, str], LogFile] = {}
        self._numbers = count()
        self._prefix = f"{quote(gethostname(), safe='')}-{os.getpid()}-{time.time_ns() // 1_000_000}"

    def check_writable(self) -> None:
        """Check that files can be created; an object store that cannot be reached within some seconds is only logged.

        Raises:
            ConfigError: The folder cannot be created, or access is denied.
        """
        if self.is_local:
            try:
                Path(self.root).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.root):
                    pass
            except OSError as err:
                raise self._not_writable(err) from err
            return
        failures: list[Exception] = []
        thread = Thread(target=self._create_check_file, args=(failures,), name="prediction-log-check", daemon=True)
        thread.start()
        thread.join(CHECK_SECONDS)
        if not failures and not thread.is_alive():
            return
        failure = failures[0] if failures else TimeoutError(f"no answer for {CHECK_SECONDS:g} s")
        if isinstance(failure, OSError) and not isinstance(failure, ConnectionError | TimeoutError):
            raise self._not_writable(failure) from failure
        logger.warning("prediction log %s: cannot be checked, %s: %s", self.root, type(failure).__name__, failure)

    def add(self, day: str, version: str, line: bytes, rows: int) -> LogFile:
        """Buffer a line, and return the file to which it will be written.

        Args:
            day: Day of the rows, as YYYY-MM-DD.
            version: Version of the model that predicted.
            line: Whole line.
            rows: Number of rows in the line.
        """
        file = self._files.get((day, version))
        if file is None:
            # Percent-encoded, a version can neither leave the folder nor be taken for a glob pattern.
            folder = f"{self.root}/date={day}/version={quote(version, safe='')}"
            file = LogFile(f"{folder}/{self._prefix}-{next(self._numbers):04d}{FILE_SUFFIX}")
            self._files[day, version] = file
        file.buffer.append(line)
        file.buffered_bytes += len(line)
        file.rows += rows
        return file

    def is_due(self, file: LogFile) -> bool:
        """Report whether a file should be written now: a local one always, an object if it has its final size."""
        return (self.is_local and file.rows > 0) or self._is_full(file)

    def buffered_files(self) -> list[LogFile]:
        """List the files with buffered lines, and end the others: their day is over, or their version was replaced."""
        idle = [key for key, file in self._files.items() if not file.rows]
        # The last file is kept, so that a pause of all traffic does not start a new one.
        for key in idle[: len(self._files) - 1]:
            del self._files[key]
        return [file for file in self._files.values() if file.rows]

    def write(self, file: LogFile) -> None:
        """Write the buffered lines. The buffer is empty afterwards, even if the write fails.

        Raises:
            OSError: The disk is full, or the path cannot be written; a local file keeps its previous content.
            Exception: The client of the object store failed.
        """
        is_final = not self.is_local or self._is_full(file)
        lines = file.buffer[0] if len(file.buffer) == 1 else b"".join(file.buffer)
        file.buffer.clear()
        file.buffered_bytes = 0
        if is_final:
            self._files = {key: other for key, other in self._files.items() if other is not file}
        if self.is_local:
            append_lines(Path(file.path), lines)
        else:
            self._upload(file.path, lines)
        file.size += len(lines)

    def _is_full(self, file: LogFile) -> bool:
        """Report whether a file has reached the size at which it ends."""
        return file.size + file.buffered_bytes >= self._max_file_bytes

    def _upload(self, path: str, lines: bytes) -> None:
        try:
            self.filesystem.pipe_file(path, lines)
        except FileNotFoundError:  # a store with real folders; in others, creating them needs permissions and requests
            self.filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
            self.filesystem.pipe_file(path, lines)

    def _create_check_file(self, failures: list[Exception]) -> None:
        """Create an empty file, and remove it if that is allowed; readers ignore it. Append an exception to a list."""
        path = f"{self.root}/{CHECK_NAME}"
        try:
            self._upload(path, b"")
        except Exception as err:  # noqa: BLE001  clients of object stores raise anything
            failures.append(err)
            return
        with suppress(Exception):
            self.filesystem.rm_file(path)

    def _not_writable(self, err: OSError) -> ConfigError:
        return ConfigError(
            f"prediction log {self.root}: cannot be written: {err.strerror or err}",
            hint="name a folder or bucket that the server may write to",
        )


def append_lines(path: Path, lines: bytes) -> None:
    """Append lines to a file, all or, as far as the disk permits, none of them.

    Raises:
        OSError: The disk is full, or the path cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        start = file.tell()
        remaining = memoryview(lines)
        try:
            while remaining:  # a disk that fills up accepts a part of them first
                remaining = remaining[file.write(remaining) :]
        except OSError:
            with suppress(OSError):  # otherwise the last line may stay truncated, and readers skip it
                file.truncate(start)
            raise
