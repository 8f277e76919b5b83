"""Linear model: ridge or logistic regression on standardised numbers and one indicator per category.

It is the best kind on small tables and where effects add up, and the member of a blend that extrapolates.
"""

from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr
from typing_extensions import override

from model_name.core.features import Matrix
from model_name.core.models.explanation import Explanation, softmax
from model_name.core.models.linear_encoder import LinearEncoder
from model_name.core.models.linear_onnx import to_onnx
from model_name.core.models.model import FitContext, Model

MAX_DENSE_INDICATORS = 300  # of all categories; with more, the design matrix is sparse
MAX_ITERATIONS = 500


class LinearModel(Model):
    """Ridge regression, or logistic regression with the same penalty; missing numbers have an indicator.

    Attributes:
        alpha: Strength of the L2 penalty on the weights of standardised features.
        pieces: Number of bins between quantiles in which each number has its own slope; 0 for straight lines.
        class_weight: `balanced` gives every class the same total weight.
    """

    KIND: Literal["LinearModel"] = "LinearModel"
    alpha: float = Field(1.0, gt=0)
    pieces: int = Field(0, ge=0, le=64)
    class_weight: Literal["none", "balanced"] = "none"

    _encoder: LinearEncoder | None = PrivateAttr(None)
    _weights: NDArray[np.float64] | None = PrivateAttr(None)  # outputs x columns of the numbers
    _table: NDArray[np.float64] | None = PrivateAttr(None)  # indicators x outputs
    _intercept: NDArray[np.float64] | None = PrivateAttr(None)

    @override
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        encoder = LinearEncoder.fit(self.features.columns, matrix, self.pieces)
        design = self._design(encoder, matrix)
        weights, intercept = self._solve(design, targets)
        if self.classes and len(weights) == 1:  # scikit-learn fits the positive class only
            weights, intercept = np.vstack([-weights / 2, weights / 2]), np.array([-intercept[0] / 2, intercept[0] / 2])
        width = len(encoder.source_features)
        self._encoder, self._weights, self._intercept = encoder, weights[:, :width], intercept
        self._table = weights[:, width:].T

    @override
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        logits = self._logits(matrix)
        return softmax(logits) if self.classes else logits[:, 0]

    @override
    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """Explain rows exactly: the weight of a feature times its distance to the background.

        Linear SHAP (Lundberg and Lee 2017), on the log-odds where there are classes.
        """
        background = self._fitted(self._background)
        effects = self._effects(matrix) - self._effects(background).mean(axis=0)  # n x d x outputs
        base, logits = self._logits(background).mean(axis=0), self._logits(matrix)
        if len(self.classes) == 2:  # the log-odds of the positive class
            effects, base = effects[:, :, 1] - effects[:, :, 0], base[1] - base[0]
            logits = logits[:, 1] - logits[:, 0]
        elif not self.classes:
            effects, base, logits = effects[:, :, 0], base[0], logits[:, 0]
        return self.explanation(effects, base, logits, "log-odds")

    @override
    def get_internal_model(self) -> dict[str, Any]:
        """Return the weights of the encoded numbers, those of the categories, and the intercept."""
        return {"weights": self._fitted(self._weights), "categories": self._table, "intercept": self._intercept}

    @override
    def to_onnx(self) -> onnx.ModelProto:
        return to_onnx(
            self._fitted(self._encoder),
            len(self.features.columns),
            weights=self._fitted(self._weights),
            table=self._fitted(self._table),
            intercept=self._fitted(self._intercept),
            has_classes=bool(self.classes),
        )

    def _design(self, encoder: LinearEncoder, matrix: Matrix) -> Any:
        """Build the design matrix of numbers and indicators; sparse if there are many categories."""
        from scipy import sparse

        numbers, indicators = encoder.encode_numbers(matrix), encoder.encode_codes(matrix)
        rows = np.repeat(np.arange(len(matrix)), indicators.shape[1])
        ones = np.ones(indicators.size, dtype=np.float32)
        flags = sparse.csr_matrix((ones, (rows, indicators.ravel())), shape=(len(matrix), encoder.indicator_count))
        if encoder.indicator_count > MAX_DENSE_INDICATORS:
            return sparse.hstack([sparse.csr_matrix(numbers), flags], format="csr")
        return np.concatenate([numbers, flags.toarray()], axis=1)

    def _solve(self, design: Any, targets: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        from sklearn.linear_model import LogisticRegression, Ridge

        if not self.classes:
            ridge = Ridge(alpha=self.alpha, random_state=self.random_state).fit(design, targets)
            return np.atleast_2d(ridge.coef_).astype(np.float64), np.atleast_1d(ridge.intercept_).astype(np.float64)
        weight = None if self.class_weight == "none" else self.class_weight
        logistic = LogisticRegression(C=1 / self.alpha, class_weight=weight, max_iter=MAX_ITERATIONS)
        logistic.fit(design.astype(np.float64), targets)
        return logistic.coef_, logistic.intercept_

    def _logits(self, matrix: Matrix) -> NDArray[np.float64]:
        """Compute predictions, or log-odds up to a constant; n x outputs."""
        encoder = self._fitted(self._encoder)
        from_numbers = encoder.encode_numbers(matrix) @ self._fitted(self._weights).T
        from_codes = self._fitted(self._table)[encoder.encode_codes(matrix)].sum(axis=1)
        logits: NDArray[np.float64] = from_numbers + from_codes + self._fitted(self._intercept)
        return logits

    def _effects(self, matrix: Matrix) -> NDArray[np.float64]:
        """Compute the additive effect of each feature on each output; n x d x outputs."""
        encoder, weights = self._fitted(self._encoder), self._fitted(self._weights)
        effects = np.zeros((len(matrix), len(self.features.columns), len(weights)))
        weighted = encoder.encode_numbers(matrix)[:, :, None] * weights.T
        for column, feature in enumerate(encoder.source_features):
            effects[:, feature] += weighted[:, column]
        if len(encoder.codes):
            effects[:, encoder.codes] = self._fitted(self._table)[encoder.encode_codes(matrix)]
        return effects
