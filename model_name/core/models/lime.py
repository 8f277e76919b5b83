"""LIME: a linear model around each row says what moved its score (Ribeiro, Singh and Guestrin 2016)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from model_name.core.features.transforms import Features
from model_name.core.models import Model
from model_name.errors import DependencyError

if TYPE_CHECKING:
    from lime.lime_tabular import LimeTabularExplainer

NEIGHBOURS = 1000  # perturbed rows that each linear model is fitted on


@dataclass(frozen=True)
class LocalWeights:
    """What LIME found. Weights are no contributions: they do not add up to the score.

    Attributes:
        weights: One row a row, one column a feature: how much the score is higher here than elsewhere because the
            feature is in this quarter of its range, or has this category.
        scale: What is explained: the prediction, or the probability (of the positive, or of the predicted class).
        fidelity: The mean R2 of the linear models on their neighbours; near 0 the weights say little.
    """

    weights: pd.DataFrame
    scale: str
    fidelity: float

    @property
    def importances(self) -> dict[str, float]:
        """Mean absolute weight of each feature, the largest first."""
        means = self.weights.abs().mean().sort_values(ascending=False, kind="stable")
        return {str(name): float(value) for name, value in means.items()}


def local_weights(model: Model, background: pd.DataFrame, sample: pd.DataFrame, *, seed: int) -> LocalWeights:
    """Explain rows by LIME.

    A missing number is taken as the median of the background, because LIME knows no missing values; a missing or
    unseen category stays one, as a value of its own.

    Args:
        model: Fitted.
        background: Rows of the training part, from which neighbours are drawn.
        sample: The rows to explain; their index is kept.
        seed: Of the neighbours.

    Raises:
        DependencyError: LIME is not installed.
    """
    codes = Codes(model.features, model.matrix(background))
    rows = codes.encode(model.matrix(sample))
    explainer = _explainer(codes, is_classification=bool(model.classes), seed=seed)
    found = np.zeros(rows.shape)
    fits = []
    predict = _predictor(model, codes)
    for position, row in enumerate(rows):
        label = _label(model, predict, row)
        told = explainer.explain_instance(
            row, predict, labels=(label,), num_features=rows.shape[1], num_samples=NEIGHBOURS
        )
        # LIME writes a regression under the labels 0 (negated) and 1.
        for feature, weight in told.local_exp[label]:
            found[position, feature] = weight
        fits.append(told.score)
    return LocalWeights(
        weights=pd.DataFrame(found, columns=model.features.names, index=sample.index),
        scale="probability" if model.classes else "prediction",
        fidelity=float(np.mean(fits)),
    )


class Codes:
    """Between the matrix of a model, with its NaN, and one without, as LIME needs it."""

    def __init__(self, features: Features, background: NDArray[np.float32]) -> None:
        """Learn the medians; `background` is n x d."""
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
        """The positions of the categories."""
        return [place for place, feature in enumerate(self.features.columns) if feature.kind == "category"]

    def encode(self, matrix: NDArray[np.float32]) -> NDArray[np.float64]:
        """Without NaN: the median for a number, a code behind the last for a category."""
        return np.where(np.isnan(matrix), self.fill, matrix.astype(np.float64))

    def decode(self, rows: NDArray[np.float64]) -> NDArray[np.float32]:
        """Back to the matrix: a category without a value is missing again."""
        matrix = rows.astype(np.float32)
        for place in self.categorical:
            matrix[matrix[:, place] == self.fill[place], place] = np.nan
        return matrix


def _explainer(codes: Codes, *, is_classification: bool, seed: int) -> "LimeTabularExplainer":
    try:
        from lime.lime_tabular import LimeTabularExplainer
    except ImportError as err:
        hint = "pip install 'model-name[explain]', or set `method: shap`"
        raise DependencyError("method: lime needs the package lime, which is not installed", hint=hint) from err
    return LimeTabularExplainer(
        codes.background,
        mode="classification" if is_classification else "regression",
        feature_names=codes.features.names,
        categorical_features=codes.categorical,
        random_state=seed,
    )


def _predictor(model: Model, codes: Codes) -> Callable[[NDArray[np.float64]], NDArray[Any]]:
    def predict(rows: NDArray[np.float64]) -> NDArray[Any]:
        scores = np.asarray(model.score_matrix(codes.decode(rows)), dtype=np.float64)
        return scores if model.classes else scores.reshape(-1)

    return predict


def _label(model: Model, predict: Callable[[NDArray[np.float64]], NDArray[Any]], row: NDArray[np.float64]) -> int:
    """Which score is explained: that of the positive class, of the predicted one, or LIME's name of a regression."""
    return 1 if len(model.classes) <= 2 else int(predict(row[None]).argmax())
