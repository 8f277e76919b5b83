"""Where a search keeps its finished trials, so that one that was killed goes on where it was."""

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from model_name.errors import StorageError
from model_name.utils.search.trials import Trial

JOURNAL_FORMAT = 1

TRIAL = TypeAdapter(Trial)


@dataclass(frozen=True)
class Journal:
    """Finished trials on disk: JSON Lines, a header with the fingerprint of the search first, then one a trial.

    Attributes:
        path: The file; without one, nothing is kept.
        fingerprint: Of the search, see `Searcher.fingerprint`.
    """

    path: Path | None
    fingerprint: str

    def take_over(self) -> list[Trial]:
        """The trials of the same search, leaving the file such that the next one can be appended.

        Raises:
            StorageError: The file cannot be read or written.
        """
        if self.path is None:
            return []
        with _storage_errors(self.path):
            content = self.path.read_bytes() if self.path.exists() else b""
            trials, length = self._read(content)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not length:
                _write(self.path, "wb", self._header)
            elif length < len(content):
                os.truncate(self.path, length)
        return trials

    def append(self, trial: Trial) -> None:
        """Keep a trial: once this returns, a kill or a crash does not lose it.

        Raises:
            StorageError: The file cannot be written.
        """
        if self.path is None:
            return
        with _storage_errors(self.path):
            _write(self.path, "ab", _line(asdict(trial) | {"score": None if trial.reason else trial.score}))

    @property
    def _header(self) -> bytes:
        return _line({"fingerprint": self.fingerprint})

    def _read(self, content: bytes) -> tuple[list[Trial], int]:
        """The trials, and the bytes up to the end of the last whole one; no bytes where it is another search's."""
        header, *lines = content.splitlines(keepends=True) or [b""]
        if header != self._header:
            return [], 0
        trials: list[Trial] = []
        length = len(header)
        for line in lines:
            trial = _parse(line)
            if trial is None or trial.number != len(trials):
                break
            trials.append(trial)
            length += len(line)
        return trials, length


def _parse(line: bytes) -> Trial | None:
    if not line.endswith(b"\n"):  # killed in the middle of a write
        return None
    try:
        return TRIAL.validate_python(json.loads(line))
    except ValueError:  # no JSON or no trial: a disk that lost power may leave anything
        return None


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _write(path: Path, mode: Literal["ab", "wb"], line: bytes) -> None:
    with path.open(mode) as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _storage_errors(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as err:
        raise StorageError(f"{path}: the journal of the search cannot be kept: {err.strerror}") from err
