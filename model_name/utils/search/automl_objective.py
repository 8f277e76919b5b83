"""What all configs of a search over kinds are judged on: folds whose features are fitted once."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core import dataframes
from model_name.core.features import Features, Matrix
from model_name.core.features.fitting import TargetData, cross_fitted_matrix, fit_features
from model_name.core.metrics import Metric
from model_name.core.models import FitContext, Model, build_model
from model_name.core.models.model import BACKGROUND_ROWS
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError
from model_name.utils.search.ensemble_selection import HoldoutScorer
from model_name.utils.search.trials import Trial
from model_name.utils.splitters import Splitter


class BudgetExceeded(Exception):  # noqa: N818  it is no error: it ends a trial
    """A fit would not end within the budget."""


@dataclass(frozen=True)
class PreparedFold:
    """One fold, its features fitted once for all that is tried on it.

    Attributes:
        features: Of the training rows.
        matrix: The training rows, to learn from.
        targets: Their targets, as models learn them.
        test: The held-out rows.
    """

    features: Features
    matrix: Matrix
    targets: NDArray[Any]
    test: Matrix


@dataclass(frozen=True)
class AutoMLObjective:
    """What all configs are judged on.

    Attributes:
        schema: What the table is.
        table: The checked rows.
        metric: What decides.
        count: How many folds.
        splitter: Makes them.
        seed: Of the configs that set none.
    """

    schema: TableSchema
    table: pd.DataFrame
    metric: Metric
    count: int
    splitter: Splitter
    seed: int

    def evaluate(self, number: int, params: dict[str, Any], seconds: float) -> tuple[Trial, list[NDArray[Any]]]:
        """Fit and score a config on every fold, unless it takes too long; and what it answered."""
        start = time.monotonic()
        answers: list[NDArray[Any]] = []
        reason = ""
        try:
            for fold in range(len(self.folds)):
                share = (seconds - (time.monotonic() - start)) / (len(self.folds) - fold)
                answers.append(self._answer(params, self.folds[fold], share))
        except BudgetExceeded:
            reason = "it would take longer than the budget allows"
        except (DataError, ConfigError, NotImplementedError) as err:
            reason = f"fold {len(answers) + 1}: {err}"
        scores = self.held.fold_scores(answers) if not reason else []
        if not reason and not all(map(math.isfinite, scores)):
            reason = f"{self.metric.name} is not defined on its held-out rows"
        score = math.nan if reason else fmean(scores)
        return Trial(number, params, score, tuple(scores), round(time.monotonic() - start, 3), reason), answers

    @cached_property
    def folds(self) -> list[PreparedFold]:
        """The folds."""
        return [self._prepared(train, test) for train, test in self._splits]

    @cached_property
    def held(self) -> HoldoutScorer:
        """The targets of the held-out rows."""
        targets = self.table[self.schema.target.name].to_numpy()
        return HoldoutScorer([targets[test] for _, test in self._splits], self.schema.classes, self.metric)

    @cached_property
    def _splits(self) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        return list(self.splitter.folds(self.table, self.schema, self.count))

    def _prepared(self, train: NDArray[Any], test: NDArray[Any]) -> PreparedFold:
        rows = self.table.iloc[train]
        columns = dataframes.to_columns(rows, self.schema)
        goal = TargetData.for_table(self.schema, dataframes.target_codes(rows, self.schema))
        features = fit_features(self.schema, columns, goal)
        matrix = cross_fitted_matrix(features, columns, goal, seed=self.seed)
        held_out = features.transform(dataframes.to_columns(self.table.iloc[test], self.schema))
        return PreparedFold(features, matrix, goal.targets, held_out)

    def _answer(self, params: dict[str, Any], fold: PreparedFold, seconds: float) -> NDArray[Any]:
        model: Model = build_model({"random_state": self.seed} | params)
        context = FitContext(progress=_deadline(seconds), has_time_order=self._has_time_order)
        model.bind_features(self.schema, fold.features, fold.matrix[:BACKGROUND_ROWS])
        model.fit_matrix(fold.matrix, fold.targets, context)
        return np.asarray(model.score_matrix(fold.test), dtype=np.float64)

    @cached_property
    def _has_time_order(self) -> bool:
        return dataframes.is_time_sorted(self.table, self.schema)


def _deadline(seconds: float) -> Callable[[int, int, str], None]:
    """Progress that ends a fit once it is clear that it would take longer."""
    start = time.monotonic()
    first: list[tuple[int, float]] = []  # what it takes to begin, such as an import, is not taken for a step

    def progress(done: int, total: int, _: str) -> None:
        now = time.monotonic()
        first.append((done, now))
        begun, moment = first[0]
        left = (now - moment) / (done - begun) * (total - done) if done > begun else 0.0
        if now + left - start > seconds:
            raise BudgetExceeded

    return progress
