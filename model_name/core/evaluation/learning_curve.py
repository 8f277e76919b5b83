"""Whether more rows would help: the model fitted on less and less of its training part."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from loguru import logger

from model_name.core.models import FitContext, Model
from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.strict_models import LenientModel
from model_name.errors import DataError

TRAINING_SHARES = (0.1, 0.25, 0.5)
RELATIVE_COST = sum(TRAINING_SHARES)  # of the curve, in fits of the whole


class LearningPoint(LenientModel):
    """What a model scores that was fitted on some rows.

    Attributes:
        rows: How many rows of the training part it saw, the newest.
        score: The deciding metric on the held-out rows; None where it is not defined.
    """

    rows: int
    score: float | None


def learning_curve(
    model: Model, schema: TableSchema, train: pd.DataFrame, test: pd.DataFrame, score: Callable[[Outputs], float | None]
) -> tuple[LearningPoint, ...]:
    """Fit copies of a model on the newest 10, 25 and 50 % of the training part; the last point is the model itself.

    Scores are those of the model before any calibration, so that the points can be compared.

    Args:
        model: Fitted on the whole training part.
        schema: What the table is.
        train: The training part; the newest rows are the last of its time column, or a sample where there is none.
        test: The held-out rows.
        score: The deciding metric of outputs for them.
    """
    context = FitContext(has_time_order=schema.time is not None and train[schema.time].is_monotonic_increasing)
    points = []
    for part in training_subsets(train, schema, seed=model.random_state):
        try:
            outputs = model.with_params().fit(schema, part, context).outputs(test)
        except DataError as err:  # so few rows that a class is not among them
            logger.debug("no point of the learning curve at {:,} rows: {}", len(part), err.message)
            continue
        points.append(LearningPoint(rows=len(part), score=score(outputs)))
    return (*points, LearningPoint(rows=len(train), score=score(model.raw_outputs(test))))


def training_subsets(train: pd.DataFrame, schema: TableSchema, *, seed: int) -> Iterator[pd.DataFrame]:
    """The newest rows, in the order of the table; where there is no time, a random sample of them."""
    if schema.time is None:
        order = np.random.default_rng(seed).permutation(len(train))
    else:
        order = np.argsort(-train[schema.time].to_numpy().astype(np.int64), kind="stable")
    for share in TRAINING_SHARES:
        rows = max(2, round(len(train) * share))
        yield train.iloc[np.sort(order[:rows])]
