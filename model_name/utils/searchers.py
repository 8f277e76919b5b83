"""How hyperparameters are searched: a strategy that proposes points of a space, one trial after the other.

Every strategy proposes trial i from its seed, i and the trials before it alone. That is what makes two searches equal,
and a resumed search equal to one that was never interrupted.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from hashlib import sha256
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import Model
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import Duration, FrozenModel
from model_name.errors import ConfigError, DataError
from model_name.utils.search.spaces import Choice, Params, Range, Space, default_params, check_space
from model_name.utils.search.trial_journal import JOURNAL_FORMAT, TrialJournal
from model_name.utils.search.trials import Objective, SearchResult, Trial, best_trial
from model_name.utils.splitters import Splitter

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

ProgressCallback = Callable[[int, int, str], None]
"""Called with (done, total, words) after each trial."""


class Searcher(FrozenModel, ABC):
    """Searches hyperparameters on folds of the training part.

    Attributes:
        space: What to search, by hyperparameter: a list of choices, or a range.
        folds: How many folds of the splitter judge a trial.
        budget_seconds: No trial begins once the trials before it took so long, those of a resumed search included.
    """

    # What says how long a search goes on, but not what its trials are: it may be changed between kill and resumption.
    EXTENT: ClassVar[frozenset[str]] = frozenset({"budget_seconds"})

    KIND: str
    space: Space
    folds: int = Field(3, ge=1)
    budget_seconds: Duration | None = None

    @abstractmethod
    def count(self) -> int:
        """How many trials there are to do, the model's own hyperparameters included.

        Raises:
            ConfigError: Too many.
        """

    @abstractmethod
    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """The hyperparameters of a trial from 1 on; equal arguments give equal ones."""

    def search(
        self,
        model: Model,
        schema: TableSchema,
        table: pd.DataFrame,
        *,
        metric: Metric,
        splitter: Splitter,
        journal: Path | None = None,
        progress: ProgressCallback | None = None,
    ) -> SearchResult:
        """Try the model as it is, then what the strategy proposes.

        Args:
            model: Has the hyperparameters that are not searched.
            schema: What the table is.
            table: The checked training part.
            metric: What decides.
            splitter: Makes the folds.
            journal: Where finished trials are kept. Those of the same search are taken over, others are replaced.
            progress: Told after each trial.

        Raises:
            ConfigError: The space does not fit the model, or the metric does not fit the task.
            DataError: The table is too small for the folds, or no trial succeeded.
            StorageError: The journal cannot be written.
        """
        check_space(self.space, model)
        metric.check_task(schema.target.task)
        total = self.count()
        bench = Objective(model, schema, table, metric, tuple(splitter.folds(table, schema, self.folds)))
        book = TrialJournal(journal, self.fingerprint(bench, splitter))
        trials = book.take_over()[:total]
        known = len(trials)
        for number in range(known, total):
            if self._is_spent(trials):
                break
            params = self.suggest(number, trials, metric) if number else default_params(self.space, model)
            trials.append(bench.evaluate(number, params))
            book.append(trials[-1])
            if progress is not None:
                progress(number + 1, total, progress_message(trials, metric))
        best = best_trial(trials, metric)
        if best is None:
            raise DataError(f"all {len(trials)} trials failed; the first one: {trials[0].reason}")
        return SearchResult(tuple(trials), best, metric.name, known)

    def fingerprint(self, bench: Objective, splitter: Splitter) -> str:
        """Hash of all that decides what the trials are and what they score."""
        parts = (
            str(JOURNAL_FORMAT),
            self.model_dump_json(exclude=set(self.EXTENT)),
            bench.model.KIND,
            bench.model.model_dump_json(),
            bench.schema.model_dump_json(),
            bench.metric.name,
            dataframes.fingerprint(bench.table),
            splitter.model_dump_json(),
        )
        return sha256("\n".join(parts).encode()).hexdigest()

    def _is_spent(self, trials: Sequence[Trial]) -> bool:
        return self.budget_seconds is not None and sum(trial.seconds for trial in trials) >= self.budget_seconds


class GridSearcher(Searcher):
    """Tries every combination, the last hyperparameter of the space varying fastest.

    Attributes:
        points: Values of a range; lists of choices are tried in full.
        max_trials: The largest grid that is not refused.
    """

    EXTENT: ClassVar[frozenset[str]] = Searcher.EXTENT | {"max_trials"}

    KIND: Literal["GridSearcher"] = "GridSearcher"
    points: int = Field(3, ge=2)
    max_trials: int = Field(1000, ge=1)

    def count(self) -> int:
        """As of `Searcher`."""
        size = math.prod(len(values) for values in self._axes)
        if size > self.max_trials:
            raise ConfigError(
                f"the grid has {size:,} points, more than max_trials: {self.max_trials:,}",
                hint="take fewer points or hyperparameters, raise max_trials, or use KIND: OptunaSearcher",
            )
        return 1 + size

    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """As of `Searcher`."""
        values = next(islice(product(*self._axes), number - 1, None))
        return dict(zip(self.space, values, strict=True))

    @property
    def _axes(self) -> list[list[Any]]:
        return [dimension.grid(self.points) for dimension in self.space.values()]


class OptunaSearcher(Searcher):
    """Samples where good trials were dense before (TPE, Bergstra et al. 2011), in this process; random at first.

    Attributes:
        trials: How many, the model's own hyperparameters included.
        seed: Equal seeds give equal trials.
    """

    EXTENT: ClassVar[frozenset[str]] = Searcher.EXTENT | {"trials"}

    KIND: Literal["OptunaSearcher"] = "OptunaSearcher"
    trials: int = Field(20, ge=1)
    seed: int = 42

    def count(self) -> int:
        """As of `Searcher`."""
        return self.trials

    def suggest(self, number: int, before: Sequence[Trial], metric: Metric) -> Params:
        """As of `Searcher`: a fresh study and sampler each time, so that nothing but the arguments plays a part."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            direction="maximize" if metric.greater_is_better else "minimize",
            sampler=optuna.samplers.TPESampler(seed=self._seed_of(number)),
        )
        study.add_trials([self._observed(trial) for trial in before if self._is_observable(trial)])
        sampled = study.ask(self._distributions).params
        return {name: dimension.decode(sampled[name]) for name, dimension in self.space.items()}

    def _seed_of(self, number: int) -> int:
        return int.from_bytes(sha256(f"{self.seed}:{number}".encode()).digest()[:4], "big")

    def _is_observable(self, trial: Trial) -> bool:
        """Whether a sampler can learn from it: it succeeded, and lies in the space (the model's own may not)."""
        return not trial.reason and all(self.space[name].contains(value) for name, value in trial.params.items())

    def _observed(self, trial: Trial) -> "FrozenTrial":
        import optuna

        return optuna.trial.create_trial(
            params={name: self.space[name].encode(value) for name, value in trial.params.items()},
            distributions=self._distributions,
            value=trial.score,
        )

    @property
    def _distributions(self) -> dict[str, "BaseDistribution"]:
        return {name: _distribution(dimension) for name, dimension in self.space.items()}


def progress_message(trials: Sequence[Trial], metric: Metric) -> str:
    """What the last trial found, and the best so far."""
    last, best = trials[-1], best_trial(trials, metric)
    found = f"failed ({last.reason})" if last.reason else f"{metric.name} {last.score:.4g}"
    return f"{found}, best {best.score:.4g}" if best else f"{found}, best none"


def _distribution(dimension: Choice | Range) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(dimension, Choice):
        return CategoricalDistribution(tuple(range(len(dimension.root))))
    low, high = dimension.extremes
    if dimension.is_integer:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)
