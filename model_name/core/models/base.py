"""What every model is: hyperparameters that are configured, a fitted state, and one way to ask it anything.

A kind implements five methods on the feature matrix (`fit_matrix`, `score_matrix`, `to_onnx`, and, where it can do
better than the defaults, `explain_matrix` and `get_internal_model`); the rest is the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, PrivateAttr

from model_name.core import frames
from model_name.core.documents import Closed
from model_name.core.features import Features, Matrix
from model_name.core.schemas import Label, Outputs, TableSchema
from model_name.errors import DataError, ExplanationError, NotFittedError

T = TypeVar("T")

GRAPH_INPUT = "features"
GRAPH_OUTPUT = "scores"
OPSET = 18  # of the default domain; what ONNX Runtime 1.22 and both exporters agree on
BACKGROUND_ROWS = 100
ADDITIVITY_TOLERANCE = 0.01  # of the spread of the explained scores


@dataclass(frozen=True)
class FitContext:
    """What a fit is given beside its data.

    Attributes:
        checkpoints: A folder that survives a kill; a fit that finds its own checkpoint there goes on from it.
        progress: Called with (done, total, words) as the fit advances.
        has_time_order: Whether the rows come in the order of time, so that the last ones are the newest.
    """

    checkpoints: Path | None = None
    progress: Callable[[int, int, str], None] = lambda done, total, words: None
    has_time_order: bool = False


@dataclass(frozen=True)
class Explanation:
    """Additive (SHAP) contributions: for each row, base + the sum over the features = the score.

    Attributes:
        values: rows x features of a regression or binary target, rows x features x classes of a multiclass one.
        base: The score of the background; one number, or one a class.
        scores: What the contributions add up to; rows, or rows x classes.
        scale: What is explained: the prediction, the probability (of the positive class), or its log-odds.
        features: The names of the features.
    """

    values: NDArray[np.float64]
    base: NDArray[np.float64]
    scores: NDArray[np.float64]
    scale: Literal["prediction", "probability", "log-odds"]
    features: list[str]

    @property
    def additivity_error(self) -> float:
        """The largest distance between base + contributions and the score, as a share of the scores' spread."""
        error = np.abs(self.values.sum(axis=1) + self.base - self.scores).max()
        spread = float(np.ptp(self.scores)) or 1.0
        return float(error / spread)

    @property
    def importances(self) -> dict[str, float]:
        """Mean absolute contribution of each feature, over rows and classes, the largest first."""
        means = np.abs(self.values).mean(axis=tuple(axis for axis in range(self.values.ndim) if axis != 1))
        order = np.argsort(-means, kind="stable")
        return {self.features[position]: float(means[position]) for position in order}


class Model(Closed, ABC):
    """A model of a table. Fields are its hyperparameters; what it has learnt is private.

    Attributes:
        random_state: The seed of everything random in it; equal seeds and rows give equal models.
    """

    model_config = ConfigDict(validate_assignment=True)

    KIND: str
    random_state: int = 42

    _schema: TableSchema | None = PrivateAttr(None)
    _features: Features | None = PrivateAttr(None)
    _background: Matrix | None = PrivateAttr(None)

    def get_params(self) -> dict[str, Any]:
        """The hyperparameters by name."""
        return self.model_dump(exclude={"KIND"})

    def set_params(self, **params: Any) -> Self:
        """Change hyperparameters in place; an unknown name or a value of a wrong type raises `ValidationError`."""
        for name, value in params.items():
            setattr(self, name, value)
        return self

    def with_params(self, **params: Any) -> Self:
        """An unfitted copy with other hyperparameters."""
        return type(self).model_validate(self.model_dump() | params)

    @property
    def schema_(self) -> TableSchema:
        """The schema of the table that it was fitted on."""
        return self._fitted(self._schema)

    @property
    def features(self) -> Features:
        """The features that it was fitted on."""
        return self._fitted(self._features)

    @property
    def classes(self) -> tuple[Label, ...]:
        """The labels of a classification; none for a regression."""
        return self.schema_.classes

    def fit(self, schema: TableSchema, table: pd.DataFrame, context: FitContext | None = None) -> Self:
        """Learn from a checked table.

        Args:
            schema: What the table is.
            table: n rows that `frames.check` has passed, target included.
            context: Checkpoints and progress.

        Raises:
            DataError: The target is constant, or a class is not in the table.
        """
        targets = table[schema.target.name]
        if targets.nunique() < 2:
            raise DataError(f"the training part has one value of {schema.target.name} only: {targets.iloc[0]}")
        columns = frames.to_columns(table, schema)
        features = Features.fit(schema, columns)
        matrix = features.transform(columns)
        self._schema, self._features = schema, features
        self.fit_matrix(matrix, self._encode(targets), context or FitContext())
        rows = np.random.default_rng(self.random_state).permutation(len(matrix))[:BACKGROUND_ROWS]
        self._background = matrix[np.sort(rows)]
        return self

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The `prediction` of each row, and `probability_CLASS` where the task has classes; the index is kept."""
        return frames.outputs_frame(self.outputs(table), table.index)

    def outputs(self, table: pd.DataFrame) -> Outputs:
        """The same as arrays."""
        matrix = self.matrix(table)
        if not len(matrix):  # which no estimator takes
            return Outputs.from_scores(np.empty((0, max(1, len(self.classes)))), self.classes)
        return Outputs.from_scores(self.score_matrix(matrix), self.classes)

    def matrix(self, table: pd.DataFrame) -> Matrix:
        """The features of a table, n x d.

        Raises:
            DataError: The table does not fit the schema.
        """
        return self.features.transform(frames.to_columns(table, self.schema_))

    def explain_model(self, table: pd.DataFrame) -> pd.DataFrame:
        """Global importances from the rows given: `feature`, `importance`, the largest first."""
        importances = self.explain(table).importances
        return pd.DataFrame({"feature": list(importances), "importance": list(importances.values())})

    def explain_samples(self, table: pd.DataFrame) -> pd.DataFrame:
        """One row of contributions for each row given, index kept; for `multiclass`, those of the predicted class."""
        return self.samples_of(self.explain(table), table)

    def samples_of(self, explanation: Explanation, table: pd.DataFrame) -> pd.DataFrame:
        """An explanation of these rows as a frame, index kept; for `multiclass`, that of the predicted class."""
        values = explanation.values
        if values.ndim == 3:
            predicted = self.score_matrix(self.matrix(table)).argmax(axis=1)
            values = np.take_along_axis(values, predicted[:, None, None], axis=2)[:, :, 0]
        return pd.DataFrame(values, columns=explanation.features, index=table.index)

    def explain(self, table: pd.DataFrame) -> Explanation:
        """Contributions of the features to the score of each row.

        Raises:
            ExplanationError: They do not add up to the scores.
        """
        explanation = self.explain_matrix(self.matrix(table))
        if explanation.additivity_error > ADDITIVITY_TOLERANCE:
            raise ExplanationError(
                f"{self.KIND}: contributions miss the scores by {explanation.additivity_error:.2%} of their spread",
                hint="`method: lime` in the ExplanationsJob needs no adding up; or mend the kind's explain_matrix",
            )
        return explanation

    def export(self, directory: Path) -> Path:
        """Write the served graph, `model.onnx`: `features` (n x d float32) in, `scores` (n x k float32) out."""
        path = directory / "model.onnx"
        graph = self.to_onnx()
        onnx.checker.check_model(graph)
        path.write_bytes(graph.SerializeToString())
        return path

    def get_internal_model(self) -> Any:
        """What does the work inside: an estimator, a network."""
        raise NotImplementedError(f"{self.KIND} has no internal model to show")

    @abstractmethod
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """Learn from n x d features and n targets: numbers of a regression, positions in `classes` otherwise."""

    @abstractmethod
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """The n predictions of a regression, or n x k probabilities."""

    @abstractmethod
    def to_onnx(self) -> onnx.ModelProto:
        """The graph that answers like `score_matrix`, its own encoding included."""

    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """Contributions by permutation, which any kind allows (Lundberg and Lee 2017, sampled over permutations)."""
        import shap

        def scores(rows: NDArray[Any]) -> NDArray[Any]:
            found = self.score_matrix(rows.astype(np.float32))
            return found[:, 1] if found.ndim == 2 and found.shape[1] == 2 else found

        background = self._fitted(self._background)
        masker = shap.maskers.Independent(background, max_samples=BACKGROUND_ROWS)
        explainer = shap.PermutationExplainer(scores, masker, seed=self.random_state)
        found = explainer(matrix, max_evals=2 * matrix.shape[1] + 1, silent=True)
        return self.explanation(found.values, found.base_values[0], scores(matrix), "probability")

    def explanation(
        self,
        values: Any,
        base: Any,
        scores: Any,
        scale: Literal["prediction", "probability", "log-odds"],
    ) -> Explanation:
        """An explanation with the names of the features; a regression always explains its prediction."""
        return Explanation(
            values=np.asarray(values, dtype=np.float64),
            base=np.asarray(base, dtype=np.float64),
            scores=np.asarray(scores, dtype=np.float64),
            scale=scale if self.classes else "prediction",
            features=self.features.names,
        )

    def _encode(self, targets: pd.Series) -> NDArray[Any]:
        if not self.classes:
            return targets.to_numpy(dtype=np.float64)
        position = {label: code for code, label in enumerate(self.classes)}
        codes = np.array([position[label] for label in targets])
        absent = [label for code, label in enumerate(self.classes) if not (codes == code).any()]
        if absent:
            raise DataError(
                f"the training part has no row of class {absent[0]!r}",
                hint="take it out of the schema's classes, bring rows of it, or split otherwise",
            )
        return codes

    def _fitted(self, state: T | None) -> T:
        if state is None:
            raise NotFittedError(f"{self.KIND} is not fitted", hint="call fit first, or load a registered version")
        return state


def model_kinds() -> dict[str, type[Model]]:
    """Every kind of model that has been imported, plugins included, by its KIND."""
    found: dict[str, type[Model]] = {}
    stack = list(Model.__subclasses__())
    while stack:
        kind = stack.pop()
        stack += kind.__subclasses__()
        # A subclass that does not name itself must not take the place of its parent.
        names_itself = "KIND" in get_annotations(kind)
        if names_itself and isinstance(default := kind.model_fields["KIND"].default, str):
            found[default] = kind
    return dict(sorted(found.items()))
