"""Trees of scikit-learn: boosted (the baseline) and a random forest.

Categories reach them as ordinal codes. The native category splits of HistGradientBoosting are lost in its export to
ONNX, silently, and so are missing values in a forest: hence the codes, and the imputer before the forest.
"""

from collections.abc import Callable
from typing import Any, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from model_name.core.features.transforms import Matrix
from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET, Explanation, FitContext, Model, Scale

SLICE_ROWS = 4  # that SHAP explains at once: a tenth of a second of a forest
OURS = {"class_weight", "randomized"}  # that scikit-learn has not, or not for every task


class SklearnModel(Model):
    """What the scikit-learn kinds share."""

    _estimator: Any = PrivateAttr(None)

    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """As of `Model`."""
        estimator = self.get_internal_model()
        scores: NDArray[Any] = estimator.predict_proba(matrix) if self.classes else estimator.predict(matrix)
        return scores

    def get_internal_model(self) -> Any:
        """The fitted estimator of scikit-learn."""
        return self._fitted(self._estimator)

    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """As of `explainer`."""
        return self.explainer()(matrix)

    def _options(self) -> dict[str, Any]:
        """The hyperparameters as scikit-learn takes them."""
        options = self.get_params()
        for ours in OURS & options.keys():
            del options[ours]
        if self.classes and self.get_params()["class_weight"] == "balanced":
            options["class_weight"] = "balanced"
        return options

    def to_onnx(self) -> onnx.ModelProto:
        """As of `Model`, by skl2onnx."""
        from skl2onnx import to_onnx
        from skl2onnx.common.data_types import FloatTensorType

        estimator = self.get_internal_model()
        graph = to_onnx(
            estimator,
            initial_types=[(GRAPH_INPUT, FloatTensorType([None, len(self.features.columns)]))],
            options={"zipmap": False} if self.classes else None,
            target_opset={"": OPSET, "ai.onnx.ml": 3},
        )
        return keep_output(graph, "probabilities" if self.classes else "variable")


class BoostedTrees(SklearnModel):
    """Histogram gradient boosting; its defaults are scikit-learn's. Missing values have a side of their own.

    Attributes:
        learning_rate: The share of each tree that is added.
        max_iter: How many trees (a class) at the most.
        max_leaf_nodes: Leaves of a tree.
        max_depth: Depth of a tree; unbounded where None.
        min_samples_leaf: Rows that a leaf needs.
        l2_regularization: Shrinkage of the leaves.
        max_features: Share of the features that a split looks at.
        class_weight: `balanced` gives each class the same weight in all.
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

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`."""
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if self.classes else HistGradientBoostingRegressor
        # It cannot bin a column of which nothing is known. As a constant it is never split by.
        known = np.where(np.isnan(matrix).all(axis=0), np.float32(0), matrix)
        self._estimator = kind(**self._options()).fit(known, targets)

    def pruned(self, share: float) -> Self:
        """As of `Model`: without the last trees, which correct the least."""
        smaller = self.model_copy(deep=True)
        estimator = smaller.get_internal_model()
        # scikit-learn counts its trees by this list alone.
        estimator._predictors = estimator._predictors[: kept(len(estimator._predictors), share)]  # noqa: SLF001
        return smaller

    def explainer(self) -> Callable[[Matrix], Explanation]:
        """As of `Model`: exact contributions by TreeSHAP, on the log-odds where there are classes."""
        estimator = self.get_internal_model()
        raw = estimator.decision_function if self.classes else estimator.predict
        explain = tree_explainer(self, estimator)
        return lambda matrix: explain(matrix, raw(matrix), "log-odds")


class RandomForest(SklearnModel):
    """Averaged deep trees. Missing numbers become the median, missing categories a code of their own.

    Attributes:
        n_estimators: How many trees.
        max_depth: Depth of a tree; unbounded where None.
        min_samples_leaf: Rows that a leaf needs.
        max_features: Share of the features that a split looks at.
        randomized: Whether thresholds are drawn rather than searched (extra trees, Geurts et al. 2006): smoother.
        class_weight: `balanced` gives each class the same weight in all.
        n_jobs: Processors; -1 for all.
    """

    KIND: Literal["RandomForest"] = "RandomForest"
    n_estimators: int = Field(100, gt=0)
    max_depth: int | None = Field(12, gt=0)
    min_samples_leaf: int = Field(5, gt=0)
    max_features: float = Field(0.5, gt=0, le=1)
    randomized: bool = False
    class_weight: Literal["none", "balanced"] = "none"
    n_jobs: int = -1

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`."""
        from sklearn import ensemble
        from sklearn.impute import SimpleImputer
        from sklearn.pipeline import Pipeline

        name = "ExtraTrees" if self.randomized else "RandomForest"
        kind = getattr(ensemble, f"{name}{'Classifier' if self.classes else 'Regressor'}")
        # The mean over one row is that row: the documented way to tell the imputer what to fill in.
        imputer = SimpleImputer(strategy="mean").fit(self._fill(matrix)[None, :])
        forest = kind(**self._options()).fit(imputer.transform(matrix), targets)
        self._estimator = Pipeline([("imputer", imputer), ("forest", forest)])

    def pruned(self, share: float) -> Self:
        """As of `Model`: without the last trees; they are all alike."""
        smaller = self.model_copy(deep=True)
        forest = smaller.get_internal_model()["forest"]
        forest.estimators_ = forest.estimators_[: kept(len(forest.estimators_), share)]
        forest.n_estimators = len(forest.estimators_)
        return smaller

    def explainer(self) -> Callable[[Matrix], Explanation]:
        """As of `Model`: exact contributions by TreeSHAP, on the probability where there are classes."""
        pipeline = self.get_internal_model()
        explain = tree_explainer(self, pipeline["forest"])
        place = (slice(None), 1) if len(self.classes) == 2 else ...
        return lambda matrix: explain(
            pipeline["imputer"].transform(matrix), self.score_matrix(matrix)[place], "probability"
        )

    def _fill(self, matrix: Matrix) -> NDArray[np.float64]:
        fill = np.zeros(matrix.shape[1])
        for position, feature in enumerate(self.features.columns):
            known = matrix[~np.isnan(matrix[:, position]), position]
            if feature.kind == "category":
                fill[position] = len(feature.values)
            elif len(known):
                fill[position] = np.median(known)
        return fill


def kept(trees: int, share: float) -> int:
    """How many trees are left without a share of them: one at least.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to prune, {share}, is not between 0 and 1")
    return max(1, round(trees * (1 - share)))


def keep_output(graph: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Leave one output in a graph, under the name that servers ask for."""
    kept = next(output for output in graph.graph.output if output.name == name)
    del graph.graph.output[:]
    graph.graph.node.append(onnx.helper.make_node("Identity", [name], [GRAPH_OUTPUT]))
    kept.name = GRAPH_OUTPUT
    graph.graph.output.append(kept)
    return graph


def tree_explainer(model: Model, trees: Any) -> Callable[[NDArray[Any], NDArray[Any], Scale], Explanation]:
    """What explains rows and their scores by an ensemble of trees; of a binary target its positive class.

    TreeSHAP (Lundberg et al. 2020). To read the trees takes a hundred times as long as to explain a row.
    """
    import shap

    explainer = shap.TreeExplainer(trees)
    base = np.atleast_1d(explainer.expected_value)

    def explain(matrix: NDArray[Any], scores: NDArray[Any], scale: Scale) -> Explanation:
        # SHAP lets no other thread of a server run meanwhile. Additivity is checked for every kind alike.
        some = (matrix[start : start + SLICE_ROWS] for start in range(0, len(matrix), SLICE_ROWS))
        values = np.concatenate([explainer.shap_values(rows, check_additivity=False) for rows in some])
        if values.ndim == 3 and len(model.classes) == 2:
            return model.explanation(values[:, :, 1], base[1:], scores, scale)
        return model.explanation(values, base, scores, scale)

    return explain
