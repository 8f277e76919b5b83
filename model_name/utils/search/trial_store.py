"""Where a search over kinds keeps what its trials answered for held-out rows: what a blend is chosen by."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model_name.errors import StorageError
from model_name.utils.search.trial_journal import Journal
from model_name.utils.search.trials import Trial

UNREADABLE = (OSError, ValueError, BadZipFile)


@dataclass(frozen=True)
class Answers:
    """The journal of a search, and beside it what each trial answered, so that a killed search can still blend.

    Attributes:
        journal: The file of the trials; without one, nothing is kept.
        fingerprint: Of the search.
    """

    journal: Path | None
    fingerprint: str

    def take_over(self) -> list[Trial]:
        """The trials of the same search; none, and the journal begun anew, where an answer is gone.

        Raises:
            StorageError: The journal cannot be read or written.
        """
        trials = self._book.take_over()
        if self.journal is None or all(trial.reason or self._is_kept(trial.number) for trial in trials):
            return trials
        self.journal.unlink()  # without it they are not the search's any more
        return self._book.take_over()

    def append(self, trial: Trial, answers: Sequence[NDArray[Any]]) -> None:
        """Keep a trial, its answers first.

        Raises:
            StorageError: They cannot be written.
        """
        if not trial.reason:
            self._kept[trial.number] = list(answers)
            if self.journal is not None:
                self._write(trial.number, answers)
        self._book.append(trial)

    def read(self, number: int) -> list[NDArray[Any]]:
        """What a trial answered for each fold."""
        if number not in self._kept:
            with np.load(self._path(number)) as found:
                self._kept[number] = [found[name] for name in found.files]
        return self._kept[number]

    def _is_kept(self, number: int) -> bool:
        try:
            self.read(number)
        except UNREADABLE:
            return False
        return True

    @cached_property
    def _book(self) -> Journal:
        return Journal(self.journal, self.fingerprint)

    @cached_property
    def _kept(self) -> dict[int, list[NDArray[Any]]]:
        return {}

    def _path(self, number: int) -> Path:
        journal = self.journal or Path()
        return journal.with_suffix("") / self.fingerprint[:16] / f"{number:04d}.npz"

    def _write(self, number: int, answers: Sequence[NDArray[Any]]) -> None:
        path = self._path(number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, *answers)
            partial.replace(path)
        except OSError as err:
            raise StorageError(f"{path}: the answers of a trial cannot be kept: {err.strerror}") from err
