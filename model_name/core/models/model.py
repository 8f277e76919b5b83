"""Base of all kinds of models: hyperparameters as configuration, a fitted state, prediction, explanation and export.

A kind implements `fit_matrix`, `score_matrix` and `to_onnx` on the feature matrix, and, where it can do better than the
defaults, `explain_matrix` and `get_internal_model`. Everything else is common to all kinds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, PrivateAttr

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision
from model_name.core.features import Features, Matrix
from model_name.core.features.fitting import TargetData, cross_fitted_matrix, fit_features
from model_name.core.models.explanation import Explanation, Scale
from model_name.core.models.warm_start import check_transferable
from model_name.core.schemas import Label, Outputs, TableSchema
from model_name.core.schemas.strict_models import StrictModel
from model_name.errors import DataError, NotFittedError

T = TypeVar("T")

GRAPH_INPUT = "features"
GRAPH_OUTPUT = "scores"
OPSET = 18  # of the default domain; the newest that ONNX Runtime 1.22 and both exporters support
BACKGROUND_ROWS = 100


@dataclass(frozen=True)
class FitContext:
    """Context of a fit, beside its data.

    Attributes:
        checkpoints: Directory that survives a kill; a fit that finds its own checkpoint there resumes from it.
        progress: Callback with (done, total, message) as the fit advances.
        has_time_order: Whether the rows are sorted by time, so that the last rows are the newest.
        warm_start: Fitted model of the same kind whose weights the fit starts from.
    """

    checkpoints: Path | None = None
    progress: Callable[[int, int, str], None] = lambda done, total, message: None
    has_time_order: bool = False
    warm_start: "Model | None" = None


class Model(StrictModel, ABC):
    """A model of a table. Its fields are hyperparameters; the fitted state is private.

    Attributes:
        random_state: Seed of all randomness; equal seeds and rows give equal models.
        can_warm_start: Whether a fit can start from an earlier model.
        architecture: Names of the hyperparameters that both models of a warm start must share.
    """

    model_config = ConfigDict(validate_assignment=True)

    can_warm_start: ClassVar[bool] = False
    architecture: ClassVar[tuple[str, ...]] = ()

    KIND: str
    random_state: int = 42

    _schema: TableSchema | None = PrivateAttr(None)
    _features: Features | None = PrivateAttr(None)
    _background: Matrix | None = PrivateAttr(None)
    _decision: Decision | None = PrivateAttr(None)

    def get_params(self) -> dict[str, Any]:
        """Return the hyperparameters by name."""
        return self.model_dump(exclude={"KIND"})

    def describe_params(self) -> dict[str, Any]:
        """Describe the hyperparameters as people read them in a run."""
        return self.get_params()

    def set_params(self, **params: Any) -> Self:
        """Change hyperparameters in place; an unknown name or a value of a wrong type raises `ValidationError`."""
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def with_params(self, **params: Any) -> Self:
        """Return an unfitted copy with other hyperparameters."""
        return type(self).model_validate(self.model_dump() | params)

    @property
    def schema_(self) -> TableSchema:
        """Schema of the table that the model was fitted on."""
        return self._fitted(self._schema)

    @property
    def features(self) -> Features:
        """Features that the model was fitted on."""
        return self._fitted(self._features)

    @property
    def classes(self) -> tuple[Label, ...]:
        """Labels of a classification; empty for a regression."""
        return self.schema_.classes

    @property
    def decision(self) -> Decision:
        """Mapping of scores to outputs: calibration, threshold and prediction intervals."""
        # Models that were pickled before decisions existed have no such attribute.
        return getattr(self, "_decision", None) or Decision()

    def set_decision(self, decision: Decision) -> None:
        """Set the decision that `outputs` applies until the next fit."""
        self._decision = decision

    def fit(self, schema: TableSchema, table: pd.DataFrame, context: FitContext | None = None) -> Self:
        """Fit features and model to a validated table.

        Args:
            schema: Schema of the table.
            table: Table of n rows that `dataframes.check_frame` has accepted, target included.
            context: Checkpoints, progress and the model to start from.

        Raises:
            DataError: The target is constant, or a class is missing from the table.
            ConfigError: The fit cannot start from the model of `context.warm_start`.
        """
        context = context or FitContext()
        targets = table[schema.target.name]
        if targets.nunique() < 2:
            raise DataError(f"the training part has one value of {schema.target.name} only: {targets.iloc[0]}")
        columns = dataframes.to_columns(table, schema)
        target_data = TargetData.for_table(schema, dataframes.target_codes(table, schema))
        features = fit_features(schema, columns, target_data)
        if context.warm_start is not None:
            check_transferable(self, context.warm_start, schema, features)
        self._schema, self._features, self._decision = schema, features, None
        matrix = cross_fitted_matrix(features, columns, target_data, seed=self.random_state)
        rows = np.random.default_rng(self.random_state).permutation(len(matrix))[:BACKGROUND_ROWS]
        self._background = matrix[np.sort(rows)]
        self.fit_matrix(matrix, target_data.targets, context)
        return self

    def bind_features(self, schema: TableSchema, features: Features, background: Matrix) -> Self:
        """Set schema, features and background that were fitted elsewhere, for a fit by `fit_matrix` alone."""
        self._schema, self._features, self._background = schema, features, background
        return self

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """Predict a table: `prediction`, and `probability_CLASS` where the task has classes; the index is kept."""
        return dataframes.outputs_frame(self.outputs(table), table.index)

    def outputs(self, table: pd.DataFrame, *, interval: float | None = None) -> Outputs:
        """Predict a table as arrays, with prediction intervals of the level `interval` if it is given.

        Raises:
            DataError: The table does not fit the schema, or the model has no intervals of this level.
        """
        return self.decision.apply(self.scores(table), self.classes, interval)

    def raw_outputs(self, table: pd.DataFrame) -> Outputs:
        """Predict without the decision: uncalibrated probabilities, and the most probable class."""
        return Outputs.from_scores(self.scores(table), self.classes)

    def scores(self, table: pd.DataFrame) -> NDArray[Any]:
        """Compute the raw scores: n (x 1) predictions of a regression, n x k probabilities otherwise."""
        matrix = self.matrix(table)
        if not len(matrix):  # scikit-learn rejects an empty matrix
            return np.empty((0, max(1, len(self.classes))))
        return self.score_matrix(matrix)

    def matrix(self, table: pd.DataFrame) -> Matrix:
        """Transform a table to its features, n x d.

        Raises:
            DataError: The table does not fit the schema.
        """
        return self.features.transform(dataframes.to_columns(table, self.schema_))

    def explain_model(self, table: pd.DataFrame) -> pd.DataFrame:
        """Compute global importances from the given rows: `feature`, `importance`, in descending order."""
        importances = self.explain(table).importances
        return pd.DataFrame({"feature": list(importances), "importance": list(importances.values())})

    def explain_samples(self, table: pd.DataFrame) -> pd.DataFrame:
        """Compute the contributions of each row, index kept; of a multiclass target those to the predicted class."""
        return self.to_sample_frame(self.explain(table), table)

    def to_sample_frame(self, explanation: Explanation, table: pd.DataFrame) -> pd.DataFrame:
        """Convert an explanation of these rows to a frame, index kept; for multiclass, of the predicted class."""
        if explanation.values.ndim == 3:
            explanation = explanation.for_classes(self.score_matrix(self.matrix(table)).argmax(axis=1))
        return pd.DataFrame(explanation.values, columns=explanation.features, index=table.index)

    def explain(self, table: pd.DataFrame) -> Explanation:
        """Compute the contributions of the features to the score of each row.

        Raises:
            ExplanationError: The contributions do not add up to the scores.
        """
        explanation = self.explain_matrix(self.matrix(table))
        explanation.check_additive(self.KIND)
        return explanation

    def export(self, directory: Path) -> Path:
        """Write the served graph, `model.onnx`: `features` (n x d float32) in, `scores` (n x k float32) out."""
        path = directory / "model.onnx"
        graph = self.to_onnx()
        onnx.checker.check_model(graph)
        path.write_bytes(graph.SerializeToString())
        return path

    def get_internal_model(self) -> Any:
        """Return the fitted estimator or network inside."""
        raise NotImplementedError(f"{self.KIND} has no internal model to show")

    def prune(self, share: float) -> "Model":
        """Return a fitted copy without the least important trees or units; the model itself is not changed.

        Args:
            share: Share of the trees or units to remove, more than 0 and less than 1.

        Raises:
            NotImplementedError: The kind has no way to become smaller.
        """
        raise NotImplementedError(f"{self.KIND} has no units to take out; fit a smaller one instead")

    @abstractmethod
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """Fit to n x d features and n targets: numbers of a regression, positions in `classes` otherwise."""

    @abstractmethod
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """Compute the n predictions of a regression, or n x k probabilities."""

    @abstractmethod
    def to_onnx(self) -> onnx.ModelProto:
        """Build the ONNX graph that computes the same as `score_matrix`, the kind's own encoding included."""

    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """Explain rows by permutation, which works for every kind (Lundberg and Lee 2017, sampled permutations)."""
        import shap

        def score(rows: NDArray[Any]) -> NDArray[Any]:
            scores = self.score_matrix(rows.astype(np.float32))
            return scores[:, 1] if scores.ndim == 2 and scores.shape[1] == 2 else scores

        background = self._fitted(self._background)
        masker = shap.maskers.Independent(background, max_samples=BACKGROUND_ROWS)
        explainer = shap.PermutationExplainer(score, masker, seed=self.random_state)
        explained = explainer(matrix, max_evals=2 * matrix.shape[1] + 1, silent=True)
        return self.explanation(explained.values, explained.base_values[0], score(matrix), "probability")

    def explainer(self) -> Callable[[Matrix], Explanation]:
        """Prepare `explain_matrix` for many calls with few rows each: all work that can be done once is done here."""
        return self.explain_matrix

    def explanation(
        self,
        values: Any,
        base: Any,
        scores: Any,
        scale: Scale,
    ) -> Explanation:
        """Build an explanation with the names of the features; the scale of a regression is always the prediction."""
        return Explanation(
            values=np.asarray(values, dtype=np.float64),
            base=np.asarray(base, dtype=np.float64),
            scores=np.asarray(scores, dtype=np.float64),
            scale=scale if self.classes else "prediction",
            features=self.features.names,
        )

    def _fitted(self, state: T | None) -> T:
        """Return a part of the fitted state.

        Raises:
            NotFittedError: The model has not been fitted.
        """
        if state is None:
            raise NotFittedError(f"{self.KIND} is not fitted", hint="call fit first, or load a registered version")
        return state
