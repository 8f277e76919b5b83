"""Additive explanations of a model's scores, and their conversion from log-odds to probabilities."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model_name.errors import ExplanationError

Scale = Literal["prediction", "probability", "log-odds"]

PATH_STEPS = 64  # points on the line from the background's log-odds to those of a row
ADDITIVITY_TOLERANCE = 0.01  # relative to the spread of the explained scores
ROUNDING_SPREAD = 1e-4  # of a score; with the tolerance a dozen times the rounding error of float32


@dataclass(frozen=True)
class Explanation:
    """Additive (SHAP) contributions: for each row, base + sum over the features = score.

    Attributes:
        values: Contributions; rows x features for regression and binary targets, rows x features x classes otherwise.
        base: Score of the background; one number, or one per class (after `for_classes`, one per row).
        scores: Sums of base and contributions; rows, or rows x classes.
        scale: Scale of the scores: the prediction, the probability (of the positive class), or its log-odds.
        features: Names of the features.
    """

    values: NDArray[np.float64]
    base: NDArray[np.float64]
    scores: NDArray[np.float64]
    scale: Scale
    features: list[str]

    @property
    def additivity_error(self) -> float:
        """Largest distance between base + contributions and the score, as a share of the scores' spread.

        A single row has no spread, and the scores of a few may be equal. The sum of a row's absolute contributions
        therefore counts as spread too, and so does the rounding error of float32.
        """
        error = np.abs(self.values.sum(axis=1) + self.base - self.scores).max()
        moved = np.abs(self.values).sum(axis=1).max()
        spread = float(max(np.ptp(self.scores), moved, ROUNDING_SPREAD * np.abs(self.scores).max())) or 1.0
        return float(error / spread)

    def check_additive(self, kind: str) -> None:
        """Check that the contributions add up to the scores.

        Args:
            kind: Kind of the model, for the error message.

        Raises:
            ExplanationError: The additivity error is larger than `ADDITIVITY_TOLERANCE`.
        """
        if self.additivity_error > ADDITIVITY_TOLERANCE:
            raise ExplanationError(
                f"{kind}: contributions miss the scores by {self.additivity_error:.2%} of their spread",
                hint="`method: lime` in the ExplanationsJob needs no adding up; or mend the kind's explain_matrix",
            )

    def for_classes(self, classes: NDArray[np.intp]) -> "Explanation":
        """Select one class per row of a multiclass explanation.

        Args:
            classes: Position of the class of each row.

        Returns:
            An explanation with values of rows x features, and one base and one score per row.
        """
        rows = np.arange(len(classes))
        values, scores = self.values[rows, :, classes], self.scores[rows, classes]
        return replace(self, values=values, base=self.base[classes], scores=scores)

    @property
    def importances(self) -> dict[str, float]:
        """Mean absolute contribution of each feature over rows and classes, in descending order."""
        means = np.abs(self.values).mean(axis=tuple(axis for axis in range(self.values.ndim) if axis != 1))
        order = np.argsort(-means, kind="stable")
        return {self.features[position]: float(means[position]) for position in order}


def to_probabilities(explanation: Explanation) -> Explanation:
    """Convert an explanation of log-odds to one of probabilities; return any other as it is.

    Contributions are propagated along the straight line from the background's log-odds to those of the row, which for
    two classes is the rescale rule (Chen, Lundberg and Lee 2022, "Explaining a series of models by propagating Shapley
    values").
    """
    if explanation.scale != "log-odds":
        return explanation
    is_binary = explanation.values.ndim == 2
    values, base, scores = explanation.values, explanation.base, explanation.scores
    if is_binary:  # as two classes, of which the first has log-odds 0
        values = np.stack([np.zeros_like(values), values], axis=2)
        base, scores = np.array([0.0, base.item()]), np.stack([np.zeros_like(scores), scores], axis=1)
    steps = (np.arange(PATH_STEPS) + 0.5) / PATH_STEPS
    slopes = np.zeros((*scores.shape, scores.shape[1]))  # the mean Jacobian of the softmax along the line
    for step in steps:
        probabilities = softmax(base + step * (scores - base))
        slopes += (probabilities[:, :, None] * (np.eye(scores.shape[1]) - probabilities[:, None, :])) / PATH_STEPS
    propagated = np.einsum("rdj,rkj->rdk", values, slopes)
    end, start = softmax(scores), softmax(np.atleast_2d(base))[0]
    if is_binary:
        propagated, end, start = propagated[:, :, 1], end[:, 1], start[1]
    return replace(explanation, values=propagated, base=np.asarray(start), scores=end, scale="probability")


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute probabilities from log-odds; n x k."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
