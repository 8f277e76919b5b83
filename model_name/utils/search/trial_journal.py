"""Journal of finished trials, with which a killed search is resumed."""

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
class TrialJournal:
    """Finished trials in a JSON Lines file: a header with the fingerprint of the search, then one line per trial.

    Attributes:
        path: File of the journal; None writes nothing.
        fingerprint: Fingerprint of the search, see `Searcher.fingerprint`.
    """

    path: Path | None
    fingerprint: str

    def resume(self) -> list[Trial]:
        """Load the trials of the same search, and truncate the file so that the next one can be appended.

        Raises:
            StorageError: The file cannot be read or written.
        """
        if self.path is None:
            return []
        with _storage_errors(self.path):
            content = self.path.read_bytes() if self.path.exists() else b""
            trials, length = self._parse(content)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not length:
                _write(self.path, "wb", self._header)
            elif length < len(content):
                os.truncate(self.path, length)
        return trials

    def append(self, trial: Trial) -> None:
        """Append a trial durably: after this returns, neither a kill nor a crash loses it.

        Raises:
            StorageError: The file cannot be written.
        """
        if self.path is None:
            return
        with _storage_errors(self.path):
            _write(self.path, "ab", _encode_line(asdict(trial) | {"score": None if trial.reason else trial.score}))

    @property
    def _header(self) -> bytes:
        return _encode_line({"fingerprint": self.fingerprint})

    def _parse(self, content: bytes) -> tuple[list[Trial], int]:
        """Parse the trials, and the length up to the last complete one; the length is 0 for another search."""
        header, *lines = content.splitlines(keepends=True) or [b""]
        if header != self._header:
            return [], 0
        trials: list[Trial] = []
        length = len(header)
        for line in lines:
            trial = _parse_line(line)
            if trial is None or trial.number != len(trials):
                break
            trials.append(trial)
            length += len(line)
        return trials, length


def _parse_line(line: bytes) -> Trial | None:
    if not line.endswith(b"\n"):  # the process was killed during a write
        return None
    try:
        return TRIAL.validate_python(json.loads(line))
    except ValueError:  # not JSON, or not a trial: a disk that lost power may hold anything
        return None


def _encode_line(record: dict[str, Any]) -> bytes:
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
