"""Objective of a search over kinds of model: scores on folds whose features are fitted once for all configs."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core import dataframes
from model_name.core.features import Features, Matrix
from model_name.core.features.fitting import TargetData, cross_fitted_matrix, fit_features
from model_name.core.models import FitContext, Model, build_model
from model_name.core.models.model import BACKGROUND_ROWS
from model_name.errors import ConfigError, DataError
from model_name.utils.search.ensemble_selection import HoldoutScorer
from model_name.utils.search.objective import SearchProblem
from model_name.utils.search.spaces import Params
from model_name.utils.search.trials import Trial
from model_name.utils.splitters import RowPositions, Split


class BudgetExceeded(Exception):  # noqa: N818  not an error: it ends a trial
    """A fit would not end within the budget."""


@dataclass(frozen=True)
class PreparedFold:
    """A fold whose features are fitted once for all configs.

    Attributes:
        features: Features fitted to the training rows.
        matrix: Feature matrix of the training rows.
        targets: Targets of the training rows, as models are fitted to them.
        test: Feature matrix of the held-out rows.
    """

    features: Features
    matrix: Matrix
    targets: NDArray[Any]
    test: Matrix


@dataclass(frozen=True)
class AutoMLObjective:
    """Cross-validated score of configs of any kind of model.

    Attributes:
        problem: Table and metric.
        fold_count: Number of folds.
        seed: Seed of the configs that set none.
    """

    problem: SearchProblem
    fold_count: int
    seed: int

    def evaluate(self, number: int, params: Params, seconds: float) -> tuple[Trial, list[NDArray[Any]]]:
        """Fit and score a config on every fold, unless it would take longer than `seconds`.

        Returns:
            The trial, and the scores that the model predicted for the held-out rows of each fold.
        """
        start = time.monotonic()
        predictions: list[NDArray[Any]] = []
        reason = ""
        try:
            for position, fold in enumerate(self.folds):
                share = (seconds - (time.monotonic() - start)) / (len(self.folds) - position)
                predictions.append(self._fit_and_predict(params, fold, share))
        except BudgetExceeded:
            reason = "it would take longer than the budget allows"
        except (DataError, ConfigError, NotImplementedError) as err:
            reason = f"fold {len(predictions) + 1}: {err}"
        scores = self.scorer.fold_scores(predictions) if not reason else []
        if not reason and not all(map(math.isfinite, scores)):
            reason = f"{self.problem.metric.name} is not defined on its held-out rows"
        score = math.nan if reason else fmean(scores)
        return Trial(number, params, score, tuple(scores), round(time.monotonic() - start, 3), reason), predictions

    @cached_property
    def folds(self) -> list[PreparedFold]:
        """Folds with fitted features."""
        return [self._prepare(train, test) for train, test in self._splits]

    @cached_property
    def scorer(self) -> HoldoutScorer:
        """Scorer of predictions for the held-out rows."""
        targets = self.problem.table[self.problem.schema.target.name].to_numpy()
        truth = [targets[test] for _, test in self._splits]
        return HoldoutScorer(truth, self.problem.schema.classes, self.problem.metric)

    @cached_property
    def _splits(self) -> tuple[Split, ...]:
        return self.problem.folds(self.fold_count)

    def _prepare(self, train: RowPositions, test: RowPositions) -> PreparedFold:
        schema, table = self.problem.schema, self.problem.table
        rows = table.iloc[train]
        columns = dataframes.to_columns(rows, schema)
        target = TargetData.for_table(schema, dataframes.target_codes(rows, schema))
        features = fit_features(schema, columns, target)
        matrix = cross_fitted_matrix(features, columns, target, seed=self.seed)
        held_out = features.transform(dataframes.to_columns(table.iloc[test], schema))
        return PreparedFold(features, matrix, target.targets, held_out)

    def _fit_and_predict(self, params: Params, fold: PreparedFold, seconds: float) -> NDArray[Any]:
        model: Model = build_model({"random_state": self.seed} | params)
        context = FitContext(progress=_stop_after(seconds), has_time_order=self.problem.has_time_order)
        model.bind_features(self.problem.schema, fold.features, fold.matrix[:BACKGROUND_ROWS])
        model.fit_matrix(fold.matrix, fold.targets, context)
        return np.asarray(model.score_matrix(fold.test), dtype=np.float64)


def _stop_after(seconds: float) -> Callable[[int, int, str], None]:
    """Create a progress callback that raises `BudgetExceeded` once a fit is expected to take longer than `seconds`."""
    start = time.monotonic()
    first: list[tuple[int, float]] = []  # time to begin, such as for an import, is not part of a step

    def progress(done: int, total: int, _: str) -> None:
        now = time.monotonic()
        first.append((done, now))
        first_done, first_time = first[0]
        left = (now - first_time) / (done - first_done) * (total - done) if done > first_done else 0.0
        if now + left - start > seconds:
            raise BudgetExceeded

    return progress
