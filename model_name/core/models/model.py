"""What every model is: hyperparameters that are configured, a fitted state, and one way to ask it anything.

A kind implements five methods on the feature matrix (`fit_matrix`, `score_matrix`, `to_onnx`, and, where it can do
better than the defaults, `explain_matrix` and `get_internal_model`); the rest is the same for all.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import get_annotations
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
import onnx
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, PrivateAttr

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision
from model_name.core.features.fitting import Goal, fit_features, learning_matrix
from model_name.core.features.transforms import Features, Matrix
from model_name.core.models.warm_start import require_transferable
from model_name.core.schemas import Label, Outputs, TableSchema
from model_name.core.schemas.strict_models import Closed
from model_name.errors import DataError, ExplanationError, NotFittedError

T = TypeVar("T")
Scale = Literal["prediction", "probability", "log-odds"]

GRAPH_INPUT = "features"
GRAPH_OUTPUT = "scores"
OPSET = 18  # of the default domain; what ONNX Runtime 1.22 and both exporters agree on
BACKGROUND_ROWS = 100
PATH_STEPS = 64  # from the background's log-odds to a row's
ADDITIVITY_TOLERANCE = 0.01  # of the spread of the explained scores
NOISE = 1e-4  # of a score: a hundredth of it is a dozen times what float32 rounds off


@dataclass(frozen=True)
class FitContext:
    """What a fit is given beside its data.

    Attributes:
        checkpoints: A folder that survives a kill; a fit that finds its own checkpoint there goes on from it.
        progress: Called with (done, total, words) as the fit advances.
        has_time_order: Whether the rows come in the order of time, so that the last ones are the newest.
        warm_start: A fitted model of the same kind, to begin from what it has learnt.
    """

    checkpoints: Path | None = None
    progress: Callable[[int, int, str], None] = lambda done, total, words: None
    has_time_order: bool = False
    warm_start: "Model | None" = None


@dataclass(frozen=True)
class Explanation:
    """Additive (SHAP) contributions: for each row, base + the sum over the features = the score.

    Attributes:
        values: rows x features of a regression or binary target, rows x features x classes of a multiclass one.
        base: The score of the background; one number, or one a class (after `of_classes`, one a row).
        scores: What the contributions add up to; rows, or rows x classes.
        scale: What is explained: the prediction, the probability (of the positive class), or its log-odds.
        features: The names of the features.
    """

    values: NDArray[np.float64]
    base: NDArray[np.float64]
    scores: NDArray[np.float64]
    scale: Scale
    features: list[str]

    @property
    def additivity_error(self) -> float:
        """The largest distance between base + contributions and the score, as a share of the scores' spread.

        One row has no spread and a few may be alike: all that the contributions of one move counts as spread too, and
        what float32 rounds off is no error.
        """
        error = np.abs(self.values.sum(axis=1) + self.base - self.scores).max()
        moved = np.abs(self.values).sum(axis=1).max()
        spread = float(max(np.ptp(self.scores), moved, NOISE * np.abs(self.scores).max())) or 1.0
        return float(error / spread)

    def require_additive(self, kind: str) -> None:
        """Refuse contributions that are not additive.

        Args:
            kind: Of the model, for the message.

        Raises:
            ExplanationError: They do not add up to the scores.
        """
        if self.additivity_error > ADDITIVITY_TOLERANCE:
            raise ExplanationError(
                f"{kind}: contributions miss the scores by {self.additivity_error:.2%} of their spread",
                hint="`method: lime` in the ExplanationsJob needs no adding up; or mend the kind's explain_matrix",
            )

    def of_classes(self, classes: NDArray[np.intp]) -> "Explanation":
        """Of a multiclass target, what explains one class a row.

        Args:
            classes: The position of that class, one a row.

        Returns:
            Values of rows x features; base and scores one a row.
        """
        rows = np.arange(len(classes))
        values, scores = self.values[rows, :, classes], self.scores[rows, classes]
        return replace(self, values=values, base=self.base[classes], scores=scores)

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
        can_warm_start: Whether a fit can begin from an earlier model.
        architecture: The hyperparameters that such an earlier model must share.
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
        """The hyperparameters by name."""
        return self.model_dump(exclude={"KIND"})

    def described(self) -> dict[str, Any]:
        """The hyperparameters as a record shows them to people."""
        return self.get_params()

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

    @property
    def decision(self) -> Decision:
        """What turns its scores into answers."""
        # A version that was stored before there were decisions has no such attribute.
        return getattr(self, "_decision", None) or Decision()

    def decide_by(self, decision: Decision) -> None:
        """Answer so from now on, until the next fit."""
        self._decision = decision

    def fit(self, schema: TableSchema, table: pd.DataFrame, context: FitContext | None = None) -> Self:
        """Learn from a checked table.

        Args:
            schema: What the table is.
            table: n rows that `dataframes.check` has passed, target included.
            context: Checkpoints, progress and what to begin from.

        Raises:
            DataError: The target is constant, or a class is not in the table.
            ConfigError: It cannot begin from the model that the context names.
        """
        context = context or FitContext()
        targets = table[schema.target.name]
        if targets.nunique() < 2:
            raise DataError(f"the training part has one value of {schema.target.name} only: {targets.iloc[0]}")
        columns, goal = dataframes.to_columns(table, schema), Goal.of(schema, dataframes.target_codes(table, schema))
        features = fit_features(schema, columns, goal)
        if context.warm_start is not None:
            require_transferable(self, context.warm_start, schema, features)
        self._schema, self._features, self._decision = schema, features, None
        matrix = learning_matrix(features, columns, goal, seed=self.random_state)
        rows = np.random.default_rng(self.random_state).permutation(len(matrix))[:BACKGROUND_ROWS]
        self._background = matrix[np.sort(rows)]
        self.fit_matrix(matrix, goal.targets, context)
        return self

    def join(self, schema: TableSchema, features: Features, background: Matrix) -> Self:
        """Take part in a model that is made of several, whose schema, features and background these are."""
        self._schema, self._features, self._background = schema, features, background
        return self

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The `prediction` of each row, and `probability_CLASS` where the task has classes; the index is kept."""
        return dataframes.outputs_frame(self.outputs(table), table.index)

    def outputs(self, table: pd.DataFrame, *, interval: float | None = None) -> Outputs:
        """The same as arrays, with prediction intervals of a level where one is asked for.

        Raises:
            DataError: The table does not fit the schema, or there are no intervals of this level.
        """
        return self.decision.outputs(self.scores(table), self.classes, interval)

    def undecided(self, table: pd.DataFrame) -> Outputs:
        """What it would answer without its decision: probabilities as they are, the most probable class."""
        return Outputs.from_scores(self.scores(table), self.classes)

    def scores(self, table: pd.DataFrame) -> NDArray[Any]:
        """The raw scores: n (x 1) predictions of a regression, n x k probabilities otherwise."""
        matrix = self.matrix(table)
        if not len(matrix):  # which no estimator takes
            return np.empty((0, max(1, len(self.classes))))
        return self.score_matrix(matrix)

    def matrix(self, table: pd.DataFrame) -> Matrix:
        """The features of a table, n x d.

        Raises:
            DataError: The table does not fit the schema.
        """
        return self.features.transform(dataframes.to_columns(table, self.schema_))

    def explain_model(self, table: pd.DataFrame) -> pd.DataFrame:
        """Global importances from the rows given: `feature`, `importance`, the largest first."""
        importances = self.explain(table).importances
        return pd.DataFrame({"feature": list(importances), "importance": list(importances.values())})

    def explain_samples(self, table: pd.DataFrame) -> pd.DataFrame:
        """One row of contributions for each row given, index kept; for `multiclass`, those of the predicted class."""
        return self.samples_of(self.explain(table), table)

    def samples_of(self, explanation: Explanation, table: pd.DataFrame) -> pd.DataFrame:
        """An explanation of these rows as a frame, index kept; for `multiclass`, that of the predicted class."""
        if explanation.values.ndim == 3:
            explanation = explanation.of_classes(self.score_matrix(self.matrix(table)).argmax(axis=1))
        return pd.DataFrame(explanation.values, columns=explanation.features, index=table.index)

    def explain(self, table: pd.DataFrame) -> Explanation:
        """Contributions of the features to the score of each row.

        Raises:
            ExplanationError: They do not add up to the scores.
        """
        explanation = self.explain_matrix(self.matrix(table))
        explanation.require_additive(self.KIND)
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

    def pruned(self, share: float) -> "Model":
        """A fitted copy without the least important `share` of what it computes with; it stays as it is itself.

        Args:
            share: More than 0, less than 1.

        Raises:
            NotImplementedError: This kind has no way to become smaller.
        """
        raise NotImplementedError(f"{self.KIND} has no units to take out; fit a smaller one instead")

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

    def explainer(self) -> Callable[[Matrix], Explanation]:
        """`explain_matrix` with all done beforehand that can be, for who explains few rows at a time and often."""
        return self.explain_matrix

    def explain_answers(self, matrix: Matrix) -> Explanation:
        """Contributions to what is answered, the prediction or the probabilities, on whatever scale the kind explains.

        Log-odds are carried over along the straight line from the background's to the row's, which for two classes is
        the rescale rule (Chen, Lundberg and Lee 2022, "Explaining a series of models by propagating Shapley values").
        """
        return to_probabilities(self.explain_matrix(matrix))

    def explanation(
        self,
        values: Any,
        base: Any,
        scores: Any,
        scale: Scale,
    ) -> Explanation:
        """An explanation with the names of the features; a regression always explains its prediction."""
        return Explanation(
            values=np.asarray(values, dtype=np.float64),
            base=np.asarray(base, dtype=np.float64),
            scores=np.asarray(scores, dtype=np.float64),
            scale=scale if self.classes else "prediction",
            features=self.features.names,
        )

    def _fitted(self, state: T | None) -> T:
        if state is None:
            raise NotFittedError(f"{self.KIND} is not fitted", hint="call fit first, or load a registered version")
        return state


def to_probabilities(found: Explanation) -> Explanation:
    """An explanation of log-odds as one of probabilities, any other as it is; see `Model.explain_answers`."""
    if found.scale != "log-odds":
        return found
    is_binary = found.values.ndim == 2
    values, base, scores = found.values, found.base, found.scores
    if is_binary:  # as two classes, of which the first has log-odds 0
        values = np.stack([np.zeros_like(values), values], axis=2)
        base, scores = np.array([0.0, base.item()]), np.stack([np.zeros_like(scores), scores], axis=1)
    steps = (np.arange(PATH_STEPS) + 0.5) / PATH_STEPS
    slopes = np.zeros((*scores.shape, scores.shape[1]))  # the mean Jacobian of the softmax along the line
    for step in steps:
        shares = softmax(base + step * (scores - base))
        slopes += (shares[:, :, None] * (np.eye(scores.shape[1]) - shares[:, None, :])) / PATH_STEPS
    carried = np.einsum("rdj,rkj->rdk", values, slopes)
    answers, start = softmax(scores), softmax(np.atleast_2d(base))[0]
    if is_binary:
        carried, answers, start = carried[:, :, 1], answers[:, 1], start[1]
    return replace(found, values=carried, base=np.asarray(start), scores=answers, scale="probability")


def softmax(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of log-odds; n x k."""
    powers = np.exp(raw - raw.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


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
