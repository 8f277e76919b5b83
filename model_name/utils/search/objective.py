"""Objective of a search over the hyperparameters of one model: its mean score on folds of the training part."""

import math
import time
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

import pandas as pd
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import FitContext, Model
from model_name.core.schemas import TableSchema
from model_name.errors import DataError
from model_name.utils.search.spaces import Params
from model_name.utils.search.trials import Trial
from model_name.utils.splitters import RowPositions, Split, Splitter


@dataclass(frozen=True)
class SearchProblem:
    """Search problem: find the hyperparameters of a model that score best on a table.

    Attributes:
        model: Model with the hyperparameters that are not searched.
        schema: Table schema.
        table: Validated training part.
        metric: Metric to optimise.
        splitter: Splitter that makes the folds.
    """

    model: Model
    schema: TableSchema
    table: pd.DataFrame
    metric: Metric
    splitter: Splitter

    def folds(self, count: int) -> tuple[Split, ...]:
        """Split the training part into folds.

        Raises:
            DataError: The table is too small for `count` folds.
        """
        return tuple(self.splitter.folds(self.table, self.schema, count))

    @cached_property
    def has_time_order(self) -> bool:
        """Whether the rows are sorted by time."""
        return dataframes.is_time_sorted(self.table, self.schema)


@dataclass(frozen=True)
class Objective:
    """Cross-validated score of the model of a problem.

    Attributes:
        problem: Model, table and metric.
        folds: Training and held-out rows of each fold.
    """

    problem: SearchProblem
    folds: tuple[Split, ...]

    def evaluate(self, number: int, params: Params) -> Trial:
        """Fit and score the model on every fold; a fit that the data does not allow makes a failed trial."""
        start = time.monotonic()
        scores, reason = self._score_folds(params if number else {})
        score = math.nan if reason else fmean(scores)
        return Trial(number, params, score, tuple(scores), round(time.monotonic() - start, 3), reason)

    def score(self, params: Params, fold: int) -> float:
        """Fit and score the model on one fold, counted from 0.

        Raises:
            DataError: The model cannot be fitted to these rows, or the metric is not defined on them.
        """
        return self._fit_and_score(self.problem.model.with_params(**params), *self.folds[fold])

    def _score_folds(self, params: Params) -> tuple[list[float], str]:
        scores: list[float] = []
        try:
            model = self.problem.model.with_params(**params)
        except ValidationError as err:  # each value by itself was accepted before the search began
            kind = self.problem.model.KIND
            return scores, f"{kind} does not accept this combination: {err.errors()[0]['msg']}"
        for fold, (train, test) in enumerate(self.folds, start=1):
            try:
                scores.append(self._fit_and_score(model, train, test))
            except DataError as err:
                return scores, f"fold {fold}: {err.message}"
        return scores, ""

    def _fit_and_score(self, model: Model, train: RowPositions, test: RowPositions) -> float:
        problem = self.problem
        held_out = problem.table.iloc[test]
        context = FitContext(has_time_order=problem.has_time_order)
        fitted = model.with_params().fit(problem.schema, problem.table.iloc[train], context)
        score = problem.metric.score(held_out[problem.schema.target.name].to_numpy(), fitted.outputs(held_out))
        if not math.isfinite(score):
            raise DataError(f"{problem.metric.name} is {score} on its held-out rows")
        return score
