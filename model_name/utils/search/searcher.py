"""Searcher: a strategy that suggests points of a hyperparameter space, one trial after the other.

Every strategy suggests trial i from its seed, i and the trials before it alone. Therefore two searches are equal, and a
resumed search equals one that was never interrupted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import DataError
from model_name.utils.search.objective import Objective, SearchProblem
from model_name.utils.search.spaces import Params, Space, check_space, default_params
from model_name.utils.search.trial_journal import JOURNAL_FORMAT, TrialJournal
from model_name.utils.search.trials import SearchResult, Trial, best_trial, progress_message

ProgressCallback = Callable[[int, int, str], None]
"""Function that is called with (done, total, message) after each trial."""


class Searcher(FrozenModel, ABC):
    """Searches hyperparameters on folds of the training part.

    Attributes:
        space: Search space by hyperparameter: a list of choices, or a range.
        folds: Number of folds on which a trial is scored.
        budget_seconds: Duration of all trials, earlier ones of a resumed search included, after which none begins.
    """

    # Fields that do not change the trials, so that a resumed search may have other values.
    UNFINGERPRINTED: ClassVar[frozenset[str]] = frozenset({"budget_seconds"})

    KIND: str
    space: Space
    folds: int = Field(3, ge=1)
    budget_seconds: Duration | None = None

    @abstractmethod
    def count(self) -> int:
        """Return the number of trials, the model's own hyperparameters included.

        Raises:
            ConfigError: The number of trials exceeds a limit of the searcher.
        """

    @abstractmethod
    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """Suggest the hyperparameters of a trial; equal arguments give equal ones.

        Args:
            number: Number of the trial, from 1.
            before: Trials before it.
            metric: Metric to optimise.
        """

    def search(
        self, problem: SearchProblem, *, journal: Path | None = None, progress: ProgressCallback | None = None
    ) -> SearchResult:
        """Try the model with its own hyperparameters, then with those that the strategy suggests.

        Args:
            problem: Model, table and metric.
            journal: File of finished trials. The trials of an equal search are reused, those of another are replaced.
            progress: Callback after each trial.

        Raises:
            ConfigError: The space does not fit the model, or the metric does not fit the task.
            DataError: The table is too small for the folds, or no trial succeeded.
            StorageError: The journal cannot be written.
        """
        check_space(self.space, problem.model)
        problem.metric.check_task(problem.schema.target.task)
        total = self.count()
        objective = Objective(problem, problem.folds(self.folds))
        trial_journal = TrialJournal(journal, self.fingerprint(problem))
        trials = trial_journal.resume()[:total]
        reused = len(trials)
        for number in range(reused, total):
            if self._is_budget_spent(trials):
                break
            metric = problem.metric
            params = self.suggest(number, trials, metric) if number else default_params(self.space, problem.model)
            trials.append(objective.evaluate(number, params))
            trial_journal.append(trials[-1])
            if progress is not None:
                progress(number + 1, total, progress_message(trials, metric))
        return search_result(trials, problem.metric, reused=reused)

    def fingerprint(self, problem: SearchProblem) -> str:
        """Hash all settings that decide the trials and their scores."""
        parts = (
            str(JOURNAL_FORMAT),
            self.model_dump_json(exclude=set(self.UNFINGERPRINTED)),
            problem.model.KIND,
            problem.model.model_dump_json(),
            problem.schema.model_dump_json(),
            problem.metric.name,
            dataframes.fingerprint(problem.table),
            problem.splitter.model_dump_json(),
        )
        return sha256("\n".join(parts).encode()).hexdigest()

    def _is_budget_spent(self, trials: Sequence[Trial]) -> bool:
        return self.budget_seconds is not None and sum(trial.seconds for trial in trials) >= self.budget_seconds


def search_result(trials: Sequence[Trial], metric: Metric, *, reused: int = 0) -> SearchResult:
    """Select the best of the trials.

    Raises:
        DataError: All of the trials failed.
    """
    best = best_trial(trials, metric)
    if best is None:
        raise DataError(f"all {len(trials)} trials failed; the first one: {trials[0].reason}")
    return SearchResult(tuple(trials), best, metric.name, reused)
