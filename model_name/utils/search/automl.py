"""Search over all kinds of model within a budget of time, and blend the best."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import Model, build_model, model_kinds
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import Duration, FrozenModel, LaxTuple
from model_name.errors import ConfigError, DataError
from model_name.utils.search.ensemble_selection import HoldoutScorer, select_ensemble, blend
from model_name.utils.search.automl_objective import AutoMLObjective
from model_name.utils.search.portfolio import DEFAULT_TREES, SPACES, Candidate, portfolio, trees_cost
from model_name.utils.search.trial_journal import JOURNAL_FORMAT
from model_name.utils.search.trial_store import TrialStore
from model_name.utils.search.trials import SearchResult, Trial
from model_name.utils.searchers import OptunaSearcher, ProgressCallback, progress_message
from model_name.utils.splitters import Splitter

SMALL_ROWS = 5000  # below which more folds are worth their time
MANY_FOLDS, FEW_FOLDS = 5, 3
LEAST_SECONDS = 0.5  # left, below which no trial begins


class AutoSearcher(FrozenModel):
    """Tries configs of all kinds on folds of the training part, then chooses a weighted blend of the best.

    It begins with configs that were good on many tables, the default trees first, and goes on with proposals by TPE
    for the two kinds that did best. A blend must beat the default trees in the mean and on most folds to be chosen.

    Attributes:
        budget_seconds: When the search ends; a config that would not end in time is left out.
        kinds: What may be chosen; those of plugins begin with their own defaults.
        members: The most models in the blend; 1 chooses the best alone.
        folds: How many folds judge; by default 5 below 5 000 rows, else 3.
        max_rows: Rows that are looked at, drawn evenly where there are more.
        max_trials: The most configs to try.
        seed: Of draws and proposals. Two searches are equal where the budget does not end them.
    """

    KIND: Literal["AutoSearcher"] = "AutoSearcher"
    budget_seconds: Duration = 90.0
    kinds: LaxTuple[str] = ("BoostedTrees", "LinearModel", "RandomForest", "TabularNetwork")
    members: int = Field(5, ge=1, le=20)
    folds: int | None = Field(None, ge=1)
    max_rows: int = Field(40_000, ge=100)
    max_trials: int = Field(60, ge=1)
    seed: int = 42

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
        """Try configs until the budget is spent, then blend; arguments as of `Searcher.search`.

        Returns:
            The trials; the best is the blend of some of them, its params those of an `AutoModel`.

        Raises:
            ConfigError: The model is not an `AutoModel`, or a kind does not exist.
            DataError: The table has too few rows, or no config could be fitted.
            StorageError: The journal cannot be written.
        """
        self._require(model)
        metric.check_task(schema.target.task)
        start = time.monotonic()
        table = self._drawn(table)
        bench = AutoMLObjective(schema, table, metric, self._count(len(table)), splitter, self.seed)
        book = TrialStore(journal, self._fingerprint(bench))
        trials = book.take_over()
        spent, known = sum(trial.seconds for trial in trials), len(trials)
        while len(trials) < self.max_trials:
            left = self.budget_seconds - spent - (time.monotonic() - start)
            candidate = self._next(trials, bench, left)
            if candidate is None or (trials and left < LEAST_SECONDS):  # the default trees are tried in any case
                break
            trial, answers = bench.evaluate(len(trials), candidate.params, left if trials else math.inf)
            trials.append(trial)
            book.append(trial, answers)
            if progress is not None:
                progress(len(trials), self.max_trials, f"{candidate.params['KIND']}: {progress_message(trials, metric)}")
        return replace(self._blend(trials, book, bench.held), taken_over=known)

    def _require(self, model: Model) -> None:
        if model.KIND != "AutoModel":
            hint = f"set job.model.KIND to AutoModel, or search {model.KIND} with KIND: OptunaSearcher"
            raise ConfigError(f"an AutoSearcher chooses the members of an AutoModel, not of {model.KIND}", hint=hint)
        known = [kind for kind in model_kinds() if kind not in {"AutoModel", "ConstantModel"}]
        for kind in self.kinds:
            if kind not in known:
                raise ConfigError(f"job.searcher.kinds: {kind} cannot be chosen", hint=f"there are {', '.join(known)}")

    def _drawn(self, table: pd.DataFrame) -> pd.DataFrame:
        if len(table) <= self.max_rows:
            return table
        rows = np.random.default_rng(self.seed).permutation(len(table))[: self.max_rows]
        return table.iloc[np.sort(rows)]

    def _count(self, rows: int) -> int:
        return self.folds or (MANY_FOLDS if rows < SMALL_ROWS else FEW_FOLDS)

    def _fingerprint(self, bench: "AutoBench") -> str:
        """Hash of all that decides what the trials are and what they score; the budget only ends them."""
        parts = (
            str(JOURNAL_FORMAT),
            self.model_dump_json(exclude={"budget_seconds", "max_trials", "members"}),
            bench.schema.model_dump_json(),
            bench.metric.name,
            dataframes.fingerprint(bench.table),
            bench.splitter.model_dump_json(),
        )
        return sha256("\n".join(parts).encode()).hexdigest()

    def _next(self, trials: Sequence[Trial], bench: AutoMLObjective, left: float) -> Candidate | None:
        """The next config that fits into the time left; None where there is none."""
        tried = [trial.params for trial in trials]
        unit = trials[0].seconds if trials else 0.0
        for candidate in self._beginning(len(bench.table)):
            if not trials or (candidate.params not in tried and candidate.cost * unit <= left):
                return candidate
        return self._proposal(trials, bench.metric, unit, left)

    def _beginning(self, rows: int) -> list[Candidate]:
        """The default trees, whatever the kinds; then what is known of the kinds, and the defaults of others."""
        fitting = [
            candidate for candidate in portfolio()[1:] if candidate.max_rows is None or rows <= candidate.max_rows
        ]
        known = [candidate for candidate in fitting if candidate.params["KIND"] in self.kinds]
        others = [Candidate({"KIND": kind}) for kind in self.kinds if kind not in SPACES]
        return [Candidate(DEFAULT_TREES), *others, *known]

    def _proposal(self, trials: Sequence[Trial], metric: Metric, unit: float, left: float) -> Candidate | None:
        """A point of the space of one of the two best kinds, in turn."""
        good = sorted(
            (t for t in trials if not t.reason), key=lambda t: -t.score if metric.greater_is_better else t.score
        )
        kinds = [kind for kind in dict.fromkeys(trial.params["KIND"] for trial in good) if kind in SPACES]
        for turn in range(min(2, len(kinds))):
            kind = kinds[(len(trials) + turn) % min(2, len(kinds))]
            own = [trial for trial in good if trial.params["KIND"] == kind]
            searcher = OptunaSearcher(space=SPACES[kind], seed=self.seed)
            params = {"KIND": kind} | searcher.suggest(len(trials), [_in_space(trial) for trial in own], metric)
            cost = (
                trees_cost(params) * unit
                if kind == "BoostedTrees"
                else max(t.seconds for t in good if t.params["KIND"] == kind)
            )
            if cost <= left:
                return Candidate(params)
        return None

    def _blend(self, trials: Sequence[Trial], book: "Answers", held: HoldoutScorer) -> SearchResult:
        good = {trial.number: trial for trial in trials if not trial.reason}
        if not good:
            raise DataError(f"all {len(trials)} configs failed; the first one: {trials[0].reason}")
        answers = {number: book.read(number) for number in good}
        default = 0 if 0 in good else next(iter(good))
        weights = select_ensemble(answers, held, default=default, limit=self.members)
        scores = held.fold_scores(blend([answers[number] for number in weights], list(weights.values())))
        params = {"members": [good[number].params for number in weights], "weights": list(weights.values())}
        best = Trial(len(trials), params, fmean(scores), tuple(scores), 0.0)
        return SearchResult(tuple(trials), best, held.metric.name)


def _in_space(trial: Trial) -> Trial:
    """A trial with every hyperparameter of its kind's space, so that a sampler can learn from it."""
    model: Model = build_model(trial.params)
    known = model.get_params()
    return replace(trial, params={name: known[name] for name in SPACES[model.KIND]})
