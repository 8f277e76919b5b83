"""Files of lines by day and version, in a folder or behind any fsspec URL."""

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from socket import gethostname
from urllib.parse import quote

import fsspec
from fsspec.implementations.local import LocalFileSystem

from model_name.errors import ConfigError, DependencyError

FILE_SUFFIX = ".jsonl"
BLOCK_BYTES = 2**18  # written while they are still in the cache of the processor


@dataclass
class LogFile:
    """One file, and the lines that wait to be written to it.

    Attributes:
        place: Its path.
        size: The bytes that it holds.
        waiting: Whole lines.
        rows: How many.
    """

    place: str
    size: int = 0
    waiting: bytearray = field(default_factory=bytearray)
    rows: int = 0


class JsonLinesWriter:
    """Writes `date=YYYY-MM-DD/version=V/HOST-PID-MILLISECONDS-NNNN.jsonl`.

    A local file grows by what waits, each time that it is written. An object store cannot append: there, what waits
    becomes a file of its own. Either way a file holds whole lines, unless the process is killed while it writes.
    """

    def __init__(self, url: str, *, max_file_bytes: int) -> None:
        """Look at a folder or a store; it need not exist, nor be reachable yet.

        Raises:
            ConfigError: The URL is of no known kind.
            DependencyError: The package for its kind is not installed.
        """
        try:
            self.filesystem, root = fsspec.core.url_to_fs(url)
        except ImportError as err:
            raise DependencyError(f"{url}: {err}") from err
        except ValueError as err:
            raise ConfigError(f"{url}: {err}") from err
        self.root = root.rstrip("/")
        self.is_local = isinstance(self.filesystem, LocalFileSystem)
        self._max_file_bytes = max_file_bytes
        self._parts: dict[tuple[str, str], LogFile] = {}
        self._numbers = count()
        self._writer = f"{quote(gethostname(), safe='')}-{os.getpid()}-{time.time_ns() // 1_000_000}"

    def add(self, day: str, version: str, lines: bytes, rows: int) -> LogFile:
        """Let whole lines wait, and return the part that they wait for."""
        part = self._parts.get((day, version))
        if part is None:
            # Percent-encoded, a version can neither leave the folder nor be taken for a pattern.
            folder = f"{self.root}/date={day}/version={quote(version, safe='')}"
            part = LogFile(f"{folder}/{self._writer}-{next(self._numbers):04d}{FILE_SUFFIX}")
            self._parts[day, version] = part
        part.waiting += lines
        part.rows += rows
        return part

    def is_due(self, part: LogFile) -> bool:
        """Whether so much waits that it is to be written now: a block of a local file, or all that a file may hold."""
        return (self.is_local and len(part.waiting) >= BLOCK_BYTES) or self._is_full(part)

    def parts(self) -> list[LogFile]:
        """Those that lines wait for. The others end: their day is over, or their version no longer answers."""
        idle = [key for key, part in self._parts.items() if not part.rows]
        for key in idle[: len(self._parts) - 1]:  # a pause of all traffic alone makes no new file
            del self._parts[key]
        return [part for part in self._parts.values() if part.rows]

    def write(self, part: LogFile) -> None:
        """Write what waits. Whatever comes of it, it waits no longer.

        Raises:
            OSError: The disk is full, or the place cannot be written; the file is as it was.
            Exception: Whatever else the client of a store raises.
        """
        is_over = not self.is_local or self._is_full(part)
        lines = bytes(part.waiting)
        part.waiting.clear()
        if is_over:
            self._parts = {key: other for key, other in self._parts.items() if other is not part}
        if self.is_local:
            append_lines(Path(part.place), lines)
        else:
            self._upload(part.place, lines)
        part.size += len(lines)

    def _is_full(self, part: LogFile) -> bool:
        """Whether a part has reached the size at which it ends."""
        return part.size + len(part.waiting) >= self._max_file_bytes

    def _upload(self, place: str, lines: bytes) -> None:
        try:
            self.filesystem.pipe_file(place, lines)
        except FileNotFoundError:  # a store with real folders; for the others, to make them takes rights and requests
            self.filesystem.makedirs(place.rpartition("/")[0], exist_ok=True)
            self.filesystem.pipe_file(place, lines)


def append_lines(path: Path, lines: bytes) -> None:
    """Append lines to a file: all of them, or none if it can be helped.

    Raises:
        OSError: They cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as file:
        start = file.tell()
        left = memoryview(lines)
        try:
            while left:  # a disk that fills up takes a part of them first
                left = left[file.write(left) :]
        except OSError:
            with suppress(OSError):  # a line may be left cut then, which readers skip
                file.truncate(start)
            raise
