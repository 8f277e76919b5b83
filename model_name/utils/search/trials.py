"""Trials of a search and its result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Annotated

import pandas as pd
from pydantic import BeforeValidator

from model_name.core.metrics import Metric
from model_name.utils.search.spaces import Params


@dataclass(frozen=True)
class Trial:
    """One point of the search space with its scores. Trials are equal if their parameters and fold scores are.

    Attributes:
        number: Number from 0, which is the model with its own hyperparameters.
        params: Values of the hyperparameters of the space.
        score: Mean over the folds; NaN if the trial failed.
        fold_scores: Score of each fold, up to the one that failed.
        seconds: Duration of the trial.
        reason: Reason of the failure; empty if the trial succeeded.
    """

    number: int
    params: Params
    # Not compared: it follows from the folds, and NaN is not equal to itself.
    score: Annotated[float, BeforeValidator(lambda score: math.nan if score is None else score)] = field(compare=False)
    fold_scores: tuple[float, ...]
    seconds: float = field(compare=False)
    reason: str = ""


@dataclass(frozen=True)
class SearchResult:
    """Result of a search.

    Attributes:
        trials: All trials in their order; the first is the model with its own hyperparameters.
        best: First trial with the best score, or the ensemble of several.
        metric: Name of the metric that was optimised.
        reused: Number of trials that were reused from an earlier, equal search.
    """

    trials: tuple[Trial, ...]
    best: Trial
    metric: str
    reused: int = field(default=0, compare=False)

    @property
    def best_params(self) -> Params:
        """Hyperparameters to change; empty if the model's own were best."""
        return dict(self.best.params) if self.best.number else {}

    def to_frame(self) -> pd.DataFrame:
        """Build a table of the trials: `number`, `param_NAME`, `score`, `fold_N` (from 1), `seconds`, `reason`."""
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


def best_trial(trials: Sequence[Trial], metric: Metric) -> Trial | None:
    """Return the first trial with the best score; None if all failed."""
    best = max if metric.greater_is_better else min
    return best((trial for trial in trials if not trial.reason), key=lambda trial: trial.score, default=None)


def progress_message(trials: Sequence[Trial], metric: Metric) -> str:
    """Format the score of the last trial and the best one so far."""
    last, best = trials[-1], best_trial(trials, metric)
    text = f"failed ({last.reason})" if last.reason else f"{metric.name} {last.score:.4g}"
    return f"{text}, best {best.score:.4g}" if best else f"{text}, best none"
