"""Tree ensembles of scikit-learn: gradient boosting (a baseline) and random forests.

Categories are encoded as ordinal codes, and a forest has an imputer, because skl2onnx silently drops the native
category splits of HistGradientBoosting and the missing-value splits of forests.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr
from typing_extensions import override

from model_name.core.features import Matrix
from model_name.core.models.explanation import Explanation, Scale
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET, FitContext, Model

EXPLAINED_ROWS_PER_CALL = 4  # rows per call of SHAP, which holds the GIL: a tenth of a second for a forest
OWN_PARAMETERS = {"class_weight", "randomized"}  # not passed to scikit-learn as they are


class SklearnModel(Model):
    """Base of the kinds that wrap an estimator of scikit-learn."""

    _estimator: Any = PrivateAttr(None)

    @override
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        estimator = self.get_internal_model()
        scores: NDArray[Any] = estimator.predict_proba(matrix) if self.classes else estimator.predict(matrix)
        return scores

    @override
    def get_internal_model(self) -> Any:
        """Return the fitted estimator of scikit-learn."""
        return self._fitted(self._estimator)

    @override
    def explain_matrix(self, matrix: Matrix) -> Explanation:
        return self.explainer()(matrix)

    def _estimator_params(self) -> dict[str, Any]:
        """Return the parameters of the scikit-learn estimator."""
        params = {name: value for name, value in self.get_params().items() if name not in OWN_PARAMETERS}
        if self.classes and self.get_params()["class_weight"] == "balanced":
            params["class_weight"] = "balanced"
        return params

    @override
    def to_onnx(self) -> onnx.ModelProto:
        """Convert the estimator by skl2onnx."""
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        estimator = self.get_internal_model()
        graph = to_onnx(
            estimator,
            initial_types=[(GRAPH_INPUT, FloatTensorType([None, len(self.features.columns)]))],
            options={"zipmap": False} if self.classes else None,
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
        return select_output(graph, "probabilities" if self.classes else "variable")


class BoostedTrees(SklearnModel):
    """Histogram gradient boosting with scikit-learn's defaults. Each split sends missing values to one side.

    Attributes:
        learning_rate: Shrinkage of each tree.
        max_iter: Maximum number of trees (per class).
        max_leaf_nodes: Maximum number of leaves of a tree.
        max_depth: Maximum depth of a tree; None for no limit.
        min_samples_leaf: Minimum number of rows in a leaf.
        l2_regularization: L2 penalty on the values of leaves.
        max_features: Share of the features that are tried at a split.
        class_weight: `balanced` gives every class the same total weight.
    """

    KIND: Literal["BoostedTrees"] = "BoostedTrees"
    learning_rate: float = Field(0.1, gt=0)
    max_iter: int = Field(100, gt=0)
    max_leaf_nodes: int = Field(31, gt=1)
    max_depth: int | None = Field(None, gt=0)
    min_samples_leaf: int = Field(20, gt=0)
    l2_regularization: float = Field(0.0, ge=0)
    max_features: float = Field(1.0, gt=0, le=1)
    class_weight: Literal["none", "balanced"] = "none"

    @override
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if self.classes else HistGradientBoostingRegressor
        # It cannot bin a column without known values. A constant column is never used by a split.
        known = np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)
        self._estimator = kind(**self._estimator_params()).fit(known, targets)

    @override
    def prune(self, share: float) -> Self:
        """Remove the last trees, whose corrections are the smallest."""
        smaller = self.model_copy(deep=True)
        estimator = smaller.get_internal_model()
        # scikit-learn derives the number of trees from this list.
        estimator._predictors = estimator._predictors[: remaining_tree_count(len(estimator._predictors), share)]  # noqa: SLF001
        return smaller

    @override
    def explainer(self) -> Callable[[Matrix], Explanation]:
        """Prepare exact contributions by TreeSHAP, on the log-odds where there are classes."""
        estimator = self.get_internal_model()
        score = estimator.decision_function if self.classes else estimator.predict
        explain = tree_explainer(self, estimator)
        return lambda matrix: explain(matrix, score(matrix), "log-odds")


class RandomForest(SklearnModel):
    """Random forest. Missing numbers are imputed by the median, missing categories by a code of their own.

    Attributes:
        n_estimators: Number of trees.
        max_depth: Maximum depth of a tree; None for no limit.
        min_samples_leaf: Minimum number of rows in a leaf.
        max_features: Share of the features that are tried at a split.
        randomized: Whether thresholds are drawn at random, not searched (extra trees, Geurts et al. 2006): smoother.
        class_weight: `balanced` gives every class the same total weight.
        n_jobs: Number of processors; -1 for all.
    """

    KIND: Literal["RandomForest"] = "RandomForest"
    n_estimators: int = Field(100, gt=0)
    max_depth: int | None = Field(12, gt=0)
    min_samples_leaf: int = Field(5, gt=0)
    max_features: float = Field(0.5, gt=0, le=1)
    randomized: bool = False
    class_weight: Literal["none", "balanced"] = "none"
    n_jobs: int = -1

    @override
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        from sklearn import ensemble
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import Pipeline

        name = "ExtraTrees" if self.randomized else "RandomForest"
        kind = getattr(ensemble, f"{name}{'Classifier' if self.classes else 'Regressor'}")
        # The mean of one row is that row, so this imputer fills in the given values.
        imputer = SimpleImputer(strategy="mean").fit(self._fill_values(matrix)[None, :])
        forest = kind(**self._estimator_params()).fit(imputer.transform(matrix), targets)
        self._estimator = Pipeline([("imputer", imputer), ("forest", forest)])

    @override
    def prune(self, share: float) -> Self:
        """Remove the last trees; all trees of a forest are interchangeable."""
        smaller = self.model_copy(deep=True)
        forest = smaller.get_internal_model()["forest"]
        forest.estimators_ = forest.estimators_[: remaining_tree_count(len(forest.estimators_), share)]
        forest.n_estimators = len(forest.estimators_)
        return smaller

    @override
    def explainer(self) -> Callable[[Matrix], Explanation]:
        """Prepare exact contributions by TreeSHAP, on the probability where there are classes."""
        pipeline = self.get_internal_model()
        explain = tree_explainer(self, pipeline["forest"])
        columns = (slice(None), 1) if len(self.classes) == 2 else ...
        return lambda matrix: explain(
            pipeline["imputer"].transform(matrix), self.score_matrix(matrix)[columns], "probability"
        )

    def _fill_values(self, matrix: Matrix) -> NDArray[np.float64]:
        fill = np.zeros(matrix.shape[1])
        for position, feature in enumerate(self.features.columns):
            known = matrix[~np.isnan(matrix[:, position]), position]
            if feature.kind == "category":
                fill[position] = len(feature.values)
            elif len(known):
                fill[position] = np.median(known)
        return fill


def remaining_tree_count(trees: int, share: float) -> int:
    """Compute the number of trees after pruning a share of them, at least one.

    Raises:
        ValueError: The share is not more than 0 and less than 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to prune, {share}, is not between 0 and 1")
    return max(1, round(trees * (1 - share)))


def select_output(graph: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Reduce a graph to one of its outputs and rename it to `GRAPH_OUTPUT`."""
    output = next(candidate for candidate in graph.graph.output if candidate.name == name)
    del graph.graph.output[:]
    graph.graph.node.append(onnx.helper.make_node("Identity", [name], [GRAPH_OUTPUT]))
    output.name = GRAPH_OUTPUT
    graph.graph.output.append(output)
    return graph


def tree_explainer(model: Model, trees: Any) -> Callable[[NDArray[Any], NDArray[Any], Scale], Explanation]:
    """Build a TreeSHAP explainer (Lundberg et al. 2020) of rows and their scores.

    It explains the positive class of a binary target. Building it takes a hundred times as long as explaining a row.
    """
    import shap

    explainer = shap.TreeExplainer(trees)
    base = np.atleast_1d(explainer.expected_value)

    def explain(matrix: NDArray[Any], scores: NDArray[Any], scale: Scale) -> Explanation:
        # Small slices, because SHAP holds the GIL during a call. Additivity is checked by `Explanation`.
        slices = (
            matrix[start : start + EXPLAINED_ROWS_PER_CALL] for start in range(0, len(matrix), EXPLAINED_ROWS_PER_CALL)
        )
        values = np.concatenate([explainer.shap_values(rows, check_additivity=False) for rows in slices])
        if values.ndim == 3 and len(model.classes) == 2:
            return model.explanation(values[:, :, 1], base[1:], scores, scale)
        return model.explanation(values, base, scores, scale)

    return explain
