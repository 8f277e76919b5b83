"""Store of the trials of a search over kinds with their held-out predictions, from which the ensemble is selected."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model_name.errors import StorageError
from model_name.utils.search.trial_journal import TrialJournal
from model_name.utils.search.trials import Trial

READ_ERRORS = (OSError, ValueError, BadZipFile)


@dataclass(frozen=True)
class TrialStore:
    """Journal of a search with the predictions of each trial beside it, so that a killed search can be resumed.

    Attributes:
        path: File of the journal; None keeps everything in memory.
        fingerprint: Fingerprint of the search.
    """

    path: Path | None
    fingerprint: str

    def resume(self) -> list[Trial]:
        """Load the trials of the same search; start an empty journal if predictions of a trial are missing.

        Raises:
            StorageError: The journal cannot be read or written.
        """
        trials = self._journal.resume()
        if self.path is None or all(trial.reason or self._has_predictions(trial.number) for trial in trials):
            return trials
        self.path.unlink()
        return self._journal.resume()

    def append(self, trial: Trial, predictions: Sequence[NDArray[Any]]) -> None:
        """Store a trial; its predictions are written before the journal.

        Raises:
            StorageError: The predictions or the journal cannot be written.
        """
        if not trial.reason:
            self._cache[trial.number] = list(predictions)
            if self.path is not None:
                self._write(trial.number, predictions)
        self._journal.append(trial)

    def load_predictions(self, number: int) -> list[NDArray[Any]]:
        """Load the predictions of a trial for the held-out rows of each fold."""
        if number not in self._cache:
            with np.load(self._predictions_path(number)) as arrays:
                self._cache[number] = [arrays[name] for name in arrays.files]
        return self._cache[number]

    def _has_predictions(self, number: int) -> bool:
        try:
            self.load_predictions(number)
        except READ_ERRORS:
            return False
        return True

    @cached_property
    def _journal(self) -> TrialJournal:
        return TrialJournal(self.path, self.fingerprint)

    @cached_property
    def _cache(self) -> dict[int, list[NDArray[Any]]]:
        return {}

    def _predictions_path(self, number: int) -> Path:
        journal = self.path or Path()
        return journal.with_suffix("") / self.fingerprint[:16] / f"{number:04d}.npz"

    def _write(self, number: int, predictions: Sequence[NDArray[Any]]) -> None:
        path = self._predictions_path(number)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, *predictions)
            partial.replace(path)
        except OSError as err:
            raise StorageError(f"{path}: the answers of a trial cannot be kept: {err.strerror}") from err
