"""Searchers: strategies that suggest points of a hyperparameter space, one trial after the other.

Every strategy suggests trial i from its seed, i and the trials before it alone. Therefore two searches are equal, and a
resumed search equals one that was never interrupted.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field
from typing_extensions import override

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import ConfigError, DataError
from model_name.utils.search.objective import Objective, SearchProblem
from model_name.utils.search.spaces import Choice, Params, Range, Space, check_space, default_params
from model_name.utils.search.trial_journal import JOURNAL_FORMAT, TrialJournal
from model_name.utils.search.trials import SearchResult, Trial, best_trial, progress_message

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

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


class GridSearcher(Searcher):
    """Tries every combination; the last hyperparameter of the space varies fastest.

    Attributes:
        points: Number of values of a range; lists of choices are tried in full.
        max_trials: Maximum size of the grid.
    """

    UNFINGERPRINTED: ClassVar[frozenset[str]] = Searcher.UNFINGERPRINTED | {"max_trials"}

    KIND: Literal["GridSearcher"] = "GridSearcher"
    points: int = Field(3, ge=2)
    max_trials: int = Field(1000, ge=1)

    @override
    def count(self) -> int:
        size = math.prod(len(values) for values in self._axes)
        if size > self.max_trials:
            raise ConfigError(
                f"the grid has {size:,} points, more than max_trials: {self.max_trials:,}",
                hint="take fewer points or hyperparameters, raise max_trials, or use KIND: OptunaSearcher",
            )
        return 1 + size

    @override
    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        values = next(islice(product(*self._axes), number - 1, None))
        return dict(zip(self.space, values, strict=True))

    @property
    def _axes(self) -> list[list[Any]]:
        return [dimension.grid(self.points) for dimension in self.space.values()]


class OptunaSearcher(Searcher):
    """Samples where good trials were dense before (TPE, Bergstra et al. 2011), in this process; random at first.

    Attributes:
        trials: Number of trials, the model's own hyperparameters included.
        seed: Seed of the sampler; equal seeds give equal trials.
    """

    UNFINGERPRINTED: ClassVar[frozenset[str]] = Searcher.UNFINGERPRINTED | {"trials"}

    KIND: Literal["OptunaSearcher"] = "OptunaSearcher"
    trials: int = Field(20, ge=1)
    seed: int = 42

    @override
    def count(self) -> int:
        return self.trials

    @override
    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """Suggest with a new study and sampler each time, so that the result depends on the arguments alone."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if metric.greater_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self._seed_of(number)),
        )
        study.add_trials([self._to_optuna(trial) for trial in before if self._is_observable(trial)])
        sampled = study.ask(self._distributions).params
        return {name: dimension.decode(sampled[name]) for name, dimension in self.space.items()}

    def _seed_of(self, number: int) -> int:
        return int.from_bytes(sha256(f"{self.seed}:{number}".encode()).digest()[:4], "big")

    def _is_observable(self, trial: Trial) -> bool:
        """Report whether a trial succeeded and lies in the space (the model's own hyperparameters may not)."""
        return not trial.reason and all(self.space[name].contains(value) for name, value in trial.params.items())

    def _to_optuna(self, trial: Trial) -> "FrozenTrial":
        import optuna

        return optuna.trial.create_trial(
            params={name: self.space[name].encode(value) for name, value in trial.params.items()},
            distributions=self._distributions,
            value=trial.score,
        )

    @property
    def _distributions(self) -> dict[str, "BaseDistribution"]:
        return {name: _distribution(dimension) for name, dimension in self.space.items()}


def _distribution(dimension: Choice | Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(tuple(range(len(dimension.root))))
    low, high = dimension.extremes
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
