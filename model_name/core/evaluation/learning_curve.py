"""Learning curve: metrics of the model fitted on 10, 25 and 50 % of its training part."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from loguru import logger

from model_name.core.models import FitContext, Model
from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.strict_models import LenientModel
from model_name.errors import DataError

TRAINING_SHARES = (0.1, 0.25, 0.5)
RELATIVE_COST = sum(TRAINING_SHARES)  # of the curve, in fits on all rows


class LearningPoint(LenientModel):
    """Point of a learning curve.

    Attributes:
        rows: Number of rows that the model was fitted on, the newest of the training part.
        score: Deciding metric on the held-out rows; None if it is undefined.
    """

    rows: int
    score: float | None


def learning_curve(
    model: Model, schema: TableSchema, train: pd.DataFrame, test: pd.DataFrame, score: Callable[[Outputs], float | None]
) -> tuple[LearningPoint, ...]:
    """Fit copies of a model on the newest 10, 25 and 50 % of the training part; the last point is the model itself.

    Scores are computed without calibration, so that the points can be compared.

    Args:
        model: Model fitted on the whole training part.
        schema: Schema of the table.
        train: Training part; the newest rows are those with the largest time, or a sample if there is no time column.
        test: Held-out rows.
        score: Function from the outputs for the held-out rows to the deciding metric.
    """
    context = FitContext(has_time_order=schema.time is not None and train[schema.time].is_monotonic_increasing)
    points = []
    for part in training_subsets(train, schema, seed=model.random_state):
        try:
            outputs = model.with_params().fit(schema, part, context).outputs(test)
        except DataError as err:  # e.g. a class is missing from so few rows
            logger.debug("no point of the learning curve at {:,} rows: {}", len(part), err.message)
            continue
        points.append(LearningPoint(rows=len(part), score=score(outputs)))
    return (*points, LearningPoint(rows=len(train), score=score(model.raw_outputs(test))))


def training_subsets(train: pd.DataFrame, schema: TableSchema, *, seed: int) -> Iterator[pd.DataFrame]:
    """Yield the newest rows of each share, in the order of the table; random rows if there is no time column."""
    if schema.time is None:
        order = np.random.default_rng(seed).permutation(len(train))
    else:
        order = np.argsort(-train[schema.time].to_numpy().astype(np.int64), kind="stable")
    for share in TRAINING_SHARES:
        rows = max(2, round(len(train) * share))
        yield train.iloc[np.sort(order[:rows])]
