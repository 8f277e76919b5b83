"""AutoML: a search over kinds of model within a time budget, and a weighted blend of the best configs."""

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
from model_name.core.schemas.strict_models import Duration, FrozenModel, LaxTuple
from model_name.errors import ConfigError, DataError
from model_name.utils.search.automl_objective import AutoMLObjective
from model_name.utils.search.ensemble_selection import HoldoutScorer, blend, select_ensemble
from model_name.utils.search.objective import SearchProblem
from model_name.utils.search.optuna_search import OptunaSearcher
from model_name.utils.search.portfolio import DEFAULT_TREES, SPACES, Candidate, portfolio, trees_cost
from model_name.utils.search.searcher import ProgressCallback
from model_name.utils.search.trial_journal import JOURNAL_FORMAT
from model_name.utils.search.trial_store import TrialStore
from model_name.utils.search.trials import SearchResult, Trial, progress_message

SMALL_ROWS = 5000  # tables with fewer rows get more folds
SMALL_TABLE_FOLDS, LARGE_TABLE_FOLDS = 5, 3
MIN_TRIAL_SECONDS = 0.5  # of the budget that must be left for another trial
SUGGESTED_KINDS = 2  # the best kinds, for which configs are suggested in turn


class AutoSearcher(FrozenModel):
    """Tries configs of all kinds on folds of the training part, then selects a weighted blend of the best.

    The search begins with a portfolio of configs that were good on many tables, the default trees first. It continues
    with suggestions by TPE for the two best kinds. A blend is only selected if it beats the default trees on average
    and on most folds.

    Attributes:
        budget_seconds: Time budget of the search; a config that would not end in time is skipped.
        kinds: Kinds that may be selected; kinds of plugins begin with their defaults.
        members: Maximum number of models in the blend; 1 selects the best model alone.
        folds: Number of folds; by default 5 below 5 000 rows, else 3.
        max_rows: Maximum number of rows to use; a larger table is sampled uniformly.
        max_trials: Maximum number of configs to try.
        seed: Seed of sampling and suggestions. Two searches are equal unless the budget ends them.
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
        self, problem: SearchProblem, *, journal: Path | None = None, progress: ProgressCallback | None = None
    ) -> SearchResult:
        """Try configs until the budget is spent, then select a blend; arguments as for `Searcher.search`.

        Returns:
            The trials; the best is the blend of some of them, its params are those of an `AutoModel`.

        Raises:
            ConfigError: The model is not an `AutoModel`, or a kind does not exist.
            DataError: The table has too few rows, or no config could be fitted.
            StorageError: The journal cannot be written.
        """
        self._check_kinds(problem.model)
        problem.metric.check_task(problem.schema.target.task)
        start = time.monotonic()
        problem = replace(problem, table=self._sample(problem.table))
        objective = AutoMLObjective(problem, self._fold_count(len(problem.table)), self.seed)
        store = TrialStore(journal, self._fingerprint(problem))
        trials = store.resume()
        spent, reused = sum(trial.seconds for trial in trials), len(trials)
        while len(trials) < self.max_trials:
            left = self.budget_seconds - spent - (time.monotonic() - start)
            candidate = self._next_candidate(trials, problem, left)
            # The default trees are tried in any case.
            if candidate is None or (trials and left < MIN_TRIAL_SECONDS):
                break
            trial, predictions = objective.evaluate(len(trials), candidate.params, left if trials else math.inf)
            trials.append(trial)
            store.append(trial, predictions)
            if progress is not None:
                message = f"{candidate.params['KIND']}: {progress_message(trials, problem.metric)}"
                progress(len(trials), self.max_trials, message)
        return replace(self._select_blend(trials, store, objective.scorer), reused=reused)

    def _check_kinds(self, model: Model) -> None:
        if model.KIND != "AutoModel":
            hint = f"set job.model.KIND to AutoModel, or search {model.KIND} with KIND: OptunaSearcher"
            raise ConfigError(f"an AutoSearcher chooses the members of an AutoModel, not of {model.KIND}", hint=hint)
        known = [kind for kind in model_kinds() if kind not in {"AutoModel", "ConstantModel"}]
        for kind in self.kinds:
            if kind not in known:
                raise ConfigError(f"job.searcher.kinds: {kind} cannot be chosen", hint=f"there are {', '.join(known)}")

    def _sample(self, table: pd.DataFrame) -> pd.DataFrame:
        if len(table) <= self.max_rows:
            return table
        rows = np.random.default_rng(self.seed).permutation(len(table))[: self.max_rows]
        return table.iloc[np.sort(rows)]

    def _fold_count(self, rows: int) -> int:
        return self.folds or (SMALL_TABLE_FOLDS if rows < SMALL_ROWS else LARGE_TABLE_FOLDS)

    def _fingerprint(self, problem: SearchProblem) -> str:
        """Hash all settings that decide the trials and their scores; the budget only ends a search."""
        parts = (
            str(JOURNAL_FORMAT),
            self.model_dump_json(exclude={"budget_seconds", "max_trials", "members"}),
            problem.schema.model_dump_json(),
            problem.metric.name,
            dataframes.fingerprint(problem.table),
            problem.splitter.model_dump_json(),
        )
        return sha256("\n".join(parts).encode()).hexdigest()

    def _next_candidate(self, trials: Sequence[Trial], problem: SearchProblem, left: float) -> Candidate | None:
        """Return the next config that is expected to end within `left` seconds; None if there is none."""
        tried = [trial.params for trial in trials]
        unit = trials[0].seconds if trials else 0.0
        for candidate in self._first_candidates(len(problem.table)):
            if not trials or (candidate.params not in tried and candidate.cost * unit <= left):
                return candidate
        return self._suggest_candidate(trials, problem.metric, unit, left)

    def _first_candidates(self, rows: int) -> list[Candidate]:
        """List the default trees whatever the kinds, the defaults of plugins, and the portfolio of the other kinds."""
        known = [
            candidate
            for candidate in portfolio()[1:]
            if candidate.accepts(rows) and candidate.params["KIND"] in self.kinds
        ]
        plugins = [Candidate({"KIND": kind}) for kind in self.kinds if kind not in SPACES]
        return [Candidate(DEFAULT_TREES), *plugins, *known]

    def _suggest_candidate(self, trials: Sequence[Trial], metric: Metric, unit: float, left: float) -> Candidate | None:
        """Suggest a point of the space of one of the best kinds, in turn.

        Args:
            trials: Trials so far.
            metric: Metric to optimise.
            unit: Seconds that the default trees took.
            left: Seconds that are left of the budget.
        """
        succeeded = [trial for trial in trials if not trial.reason]
        ranked = sorted(succeeded, key=lambda trial: -trial.score if metric.greater_is_better else trial.score)
        kinds = [kind for kind in dict.fromkeys(trial.params["KIND"] for trial in ranked) if kind in SPACES]
        kinds = kinds[:SUGGESTED_KINDS]
        for offset in range(len(kinds)):
            kind = kinds[(len(trials) + offset) % len(kinds)]
            of_kind = [trial for trial in ranked if trial.params["KIND"] == kind]
            searcher = OptunaSearcher(space=SPACES[kind], seed=self.seed)
            suggested = searcher.suggest(len(trials), [_complete_params(trial) for trial in of_kind], metric)
            params = {"KIND": kind} | suggested
            is_trees = kind == "BoostedTrees"
            seconds = trees_cost(params) * unit if is_trees else max(trial.seconds for trial in of_kind)
            if seconds <= left:
                return Candidate(params)
        return None

    def _select_blend(self, trials: Sequence[Trial], store: TrialStore, scorer: HoldoutScorer) -> SearchResult:
        succeeded = {trial.number: trial for trial in trials if not trial.reason}
        if not succeeded:
            raise DataError(f"all {len(trials)} configs failed; the first one: {trials[0].reason}")
        predictions = {number: store.load_predictions(number) for number in succeeded}
        default = 0 if 0 in succeeded else next(iter(succeeded))
        weights = select_ensemble(predictions, scorer, default=default, max_members=self.members)
        scores = scorer.fold_scores(blend([predictions[number] for number in weights], list(weights.values())))
        params = {"members": [succeeded[number].params for number in weights], "weights": list(weights.values())}
        best = Trial(len(trials), params, fmean(scores), tuple(scores), 0.0)
        return SearchResult(tuple(trials), best, scorer.metric.name)


def _complete_params(trial: Trial) -> Trial:
    """Add the defaults of all hyperparameters of the kind's space to a trial, so that a sampler can learn from it."""
    model: Model = build_model(trial.params)
    params = model.get_params()
    return replace(trial, params={name: params[name] for name in SPACES[model.KIND]})
