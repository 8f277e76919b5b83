"""What a search tries: one point of its space, judged on the folds of the training part."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from statistics import fmean
from typing import Annotated

import pandas as pd
from pydantic import BeforeValidator, ValidationError

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import FitContext, Model
from model_name.core.schemas import TableSchema
from model_name.errors import DataError
from model_name.utils.search.spaces import Params
from model_name.utils.splitters import Rows, Split


@dataclass(frozen=True)
class Trial:
    """One point of the space, and what it was worth. Two are equal where they tried and found the same.

    Attributes:
        number: Counts from 0, which is the model with its own hyperparameters.
        params: The hyperparameters that the space names.
        score: The mean over the folds; NaN where it failed.
        fold_scores: What each fold scored, up to the one that failed.
        seconds: How long it took.
        reason: Why it failed; empty where it did not.
    """

    number: int
    params: Params
    # No part of equality: it follows from the folds, and a NaN would not be equal to itself.
    score: Annotated[float, BeforeValidator(lambda score: math.nan if score is None else score)] = field(compare=False)
    fold_scores: tuple[float, ...]
    seconds: float = field(compare=False)
    reason: str = ""


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        trials: All of them, in their order; the first is the model with its own hyperparameters.
        best: The first of those with the best score, or what was made of several.
        metric: The name of what was scored.
        taken_over: How many trials an earlier, equal search had done.
    """

    trials: tuple[Trial, ...]
    best: Trial
    metric: str
    taken_over: int = field(default=0, compare=False)

    @property
    def best_params(self) -> Params:
        """The hyperparameters to change; none where the model's own were best."""
        return dict(self.best.params) if self.best.number else {}

    def frame(self) -> pd.DataFrame:
        """One row a trial: `number`, `param_NAME`, `score`, `fold_N` (from 1), `seconds`, `reason`."""
        folds = [f"fold_{fold}" for fold in range(1, 1 + max(len(trial.fold_scores) for trial in self.trials))]
        rows = [
            {
                "number": trial.number,
                **{f"param_{name}": value for name, value in trial.params.items()},
                "score": trial.score,
                **dict(zip_longest(folds, trial.fold_scores, fillvalue=math.nan)),
                "seconds": trial.seconds,
                "reason": trial.reason,
            }
            for trial in self.trials
        ]
        return pd.DataFrame(rows)


@dataclass(frozen=True)
class Objective:
    """What all trials of a search are judged on.

    Attributes:
        model: Has the hyperparameters that are not searched.
        schema: What the table is.
        table: The checked training part.
        metric: What decides.
        splits: The folds.
    """

    model: Model
    schema: TableSchema
    table: pd.DataFrame
    metric: Metric
    splits: tuple[Split, ...]

    def evaluate(self, number: int, params: Params) -> Trial:
        """Fit and score on every fold; a fit that the data does not allow makes a failed trial."""
        start = time.monotonic()
        scores, reason = self._try(params if number else {})
        score = math.nan if reason else fmean(scores)
        return Trial(number, params, score, tuple(scores), round(time.monotonic() - start, 3), reason)

    def score(self, params: Params, fold: int) -> float:
        """Fit and score on one fold, counted from 0.

        Raises:
            DataError: The fit is not possible with these rows, or the metric is not defined on them.
        """
        return self._score(self.model.with_params(**params), *self.splits[fold])

    def _try(self, params: Params) -> tuple[list[float], str]:
        scores: list[float] = []
        try:
            model = self.model.with_params(**params)
        except ValidationError as err:  # each value alone was accepted before the search began
            return scores, f"{self.model.KIND} does not accept this combination: {err.errors()[0]['msg']}"
        for fold, (train, test) in enumerate(self.splits, start=1):
            try:
                scores.append(self._score(model, train, test))
            except DataError as err:
                return scores, f"fold {fold}: {err.message}"
        return scores, ""

    def _score(self, model: Model, train: Rows, test: Rows) -> float:
        held_out = self.table.iloc[test]
        fitted = model.with_params().fit(self.schema, self.table.iloc[train], self._context)
        score = self.metric.score(held_out[self.schema.target.name].to_numpy(), fitted.outputs(held_out))
        if not math.isfinite(score):
            raise DataError(f"{self.metric.name} is {score} on its held-out rows")
        return score

    @cached_property
    def _context(self) -> FitContext:
        return FitContext(has_time_order=dataframes.is_time_sorted(self.table, self.schema))


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """The first of the trials with the best score; None where all failed."""
    best = max if metric.greater_is_better else min
    return best((trial for trial in trials if not trial.reason), key=lambda trial: trial.score, default=None)
