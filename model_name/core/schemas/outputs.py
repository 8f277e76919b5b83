"""Predictions of a model for the rows of a table.

Imports only numpy and pydantic, because servers import it.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import StrictBool, StrictInt, StrictStr

from model_name.core.schemas.columns import Columns, label_text

Task = Literal["regression", "binary", "multiclass"]
Label = StrictBool | StrictInt | StrictStr


@dataclass(frozen=True)
class Outputs:
    """Predictions for n rows.

    Attributes:
        prediction: n numbers of a regression, or n labels of a classification.
        probabilities: n x k probabilities of a classification, columns in the order of `classes`.
        classes: The k labels.
        lower: The n lower ends of the prediction intervals of a regression, if they were requested.
        upper: The n upper ends.
    """

    prediction: NDArray[Any]
    probabilities: NDArray[np.float64] | None = None
    classes: tuple[Label, ...] = ()
    lower: NDArray[np.float64] | None = None
    upper: NDArray[np.float64] | None = None

    @classmethod
    def from_scores(cls, scores: NDArray[Any], classes: tuple[Label, ...]) -> Self:
        """Convert raw scores to outputs, with the most probable class as the prediction of a classification.

        Args:
            scores: n (x 1) predictions of a regression, n x k probabilities of a classification.
            classes: The k labels; none for a regression.
        """
        scores = np.asarray(scores, dtype=np.float64)
        if not classes:
            return cls(prediction=scores.reshape(-1))
        labels = np.empty(len(classes), dtype=object)
        labels[:] = classes
        return cls(prediction=labels[scores.argmax(axis=1)], probabilities=scores, classes=classes)

    def take(self, rows: NDArray[Any] | slice) -> Self:
        """Select the outputs of some rows by position."""
        if self.probabilities is None and self.lower is None:
            return type(self)(self.prediction[rows], None, self.classes)
        parts = (self.probabilities, self.lower, self.upper)
        probabilities, lower, upper = (None if part is None else part[rows] for part in parts)
        return type(self)(self.prediction[rows], probabilities, self.classes, lower, upper)

    @property
    def columns(self) -> Columns:
        """Named columns: `prediction`, `probability_LABEL` of each class, and `lower` and `upper` of the intervals."""
        columns: Columns = {"prediction": self.prediction}
        if self.lower is not None and self.upper is not None:
            columns |= {"lower": self.lower, "upper": self.upper}
        if self.probabilities is not None:
            for position, label in enumerate(self.classes):
                columns[f"probability_{label_text(label)}"] = self.probabilities[:, position]
        return columns
