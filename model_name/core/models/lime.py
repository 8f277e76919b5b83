"""LIME explanations: the weights of a linear model fitted around each row (Ribeiro, Singh and Guestrin 2016)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.features import Features
from model_name.core.models import Model
from model_name.errors import DependencyError

if TYPE_CHECKING:
    from lime.lime_tabular import LimeTabularExplainer

NEIGHBOUR_ROWS = 1000  # perturbed rows that each linear model is fitted on


@dataclass(frozen=True)
class LimeWeights:
    """Weights of LIME's local linear models. They are not additive: they do not add up to the score.

    Attributes:
        weights: Weights; one row per explained row, one column per feature. A weight is how much higher the score is
            here than elsewhere because the feature is in this quarter of its range, or has this category.
        scale: Scale of the scores: the prediction, or the probability (of the positive, or of the predicted class).
        fidelity: Mean R2 of the linear models on their neighbours; with values near 0 the weights mean little.
    """

    weights: pd.DataFrame
    scale: str
    fidelity: float

    @property
    def importances(self) -> dict[str, float]:
        """Mean absolute weight of each feature, in descending order."""
        means = self.weights.abs().mean().sort_values(ascending=False, kind="stable")
        return {str(name): float(value) for name, value in means.items()}


def explain_with_lime(model: Model, background: pd.DataFrame, sample: pd.DataFrame, *, seed: int) -> LimeWeights:
    """Explain rows by LIME.

    A missing number is replaced by the median of the background, because LIME does not support missing values; a
    missing or unseen category is a category of its own.

    Args:
        model: Fitted model.
        background: Rows of the training part, from which neighbours are drawn.
        sample: Rows to explain; their index is kept.
        seed: Seed of the neighbours.

    Raises:
        DependencyError: The package `lime` is not installed.
    """
    codec = MissingValueCodec(model.features, model.matrix(background))
    rows = codec.encode(model.matrix(sample))
    explainer = _lime_explainer(codec, is_classification=bool(model.classes), seed=seed)
    weights = np.zeros(rows.shape)
    fidelities = []
    predict = _predict_function(model, codec)
    for position, row in enumerate(rows):
        label = _explained_label(model, predict, row)
        explanation = explainer.explain_instance(
            row, predict, labels=(label,), num_features=rows.shape[1], num_samples=NEIGHBOUR_ROWS
        )
        # LIME stores a regression under the labels 0 (negated) and 1.
        for feature, weight in explanation.local_exp[label]:
            weights[position, feature] = weight
        fidelities.append(explanation.score)
    return LimeWeights(
        weights=pd.DataFrame(weights, columns=model.features.names, index=sample.index),
        scale="probability" if model.classes else "prediction",
        fidelity=float(np.mean(fidelities)),
    )


class MissingValueCodec:
    """Converts between the feature matrix of a model, with NaN, and one without NaN, as LIME needs it.

    Attributes:
        features: Features of the model.
        fill: Value that replaces NaN, for each feature.
        background: Encoded background rows.
    """

    def __init__(self, features: Features, background: NDArray[np.float32]) -> None:
        """Compute the medians of `background`, which is n x d."""
        self.features = features
        known = [column[~np.isnan(column)] for column in background.T]
        self.fill = np.array(
            [
                len(feature.values) if feature.kind == "category" else np.median(column) if len(column) else 0.0
                for feature, column in zip(features.columns, known, strict=True)
            ]
        )
        self.background = self.encode(background)

    @property
    def categorical(self) -> list[int]:
        """Positions of the categorical features."""
        return [position for position, feature in enumerate(self.features.columns) if feature.kind == "category"]

    def encode(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Replace NaN by the median of a number, or by the code after the last category."""
        return np.where(np.isnan(matrix), self.fill, matrix.astype(np.float64))

    def decode(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        """Convert rows back to the feature matrix; a category with the code of missing values becomes NaN again."""
        matrix = rows.astype(np.float32)
        for position in self.categorical:
            matrix[matrix[:, position] == self.fill[position], position] = np.nan
        return matrix


def _lime_explainer(codec: MissingValueCodec, *, is_classification: bool, seed: int) -> "LimeTabularExplainer":
    try:
        from lime.lime_tabular import LimeTabularExplainer
    except ImportError as err:
        hint = "pip install 'model-name[explain]', or set `method: shap`"
        raise DependencyError("method: lime needs the package lime, which is not installed", hint=hint) from err
    return LimeTabularExplainer(
        codec.background,
        mode="classification" if is_classification else "regression",
        feature_names=codec.features.names,
        categorical_features=codec.categorical,
        random_state=seed,
    )


def _predict_function(model: Model, codec: MissingValueCodec) -> Callable[[NDArray[np.float64]], NDArray[Any]]:
    def predict(rows: NDArray[np.float64]) -> NDArray[Any]:
        scores = np.asarray(model.score_matrix(codec.decode(rows)), dtype=np.float64)
        return scores if model.classes else scores.reshape(-1)

    return predict


def _explained_label(
    model: Model, predict: Callable[[NDArray[np.float64]], NDArray[Any]], row: NDArray[np.float64]
) -> int:
    """Return LIME's label of the explained score: the positive or the predicted class, or 1 for a regression."""
    return 1 if len(model.classes) <= 2 else int(predict(row[None]).argmax())
