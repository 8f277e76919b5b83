"""Metrics of predictions, by name, with the thresholds of the gate."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from model_name.core.schemas import Label, Outputs, Task
from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError

Scores = dict[str, float]

CLASSIFICATIONS: frozenset[Task] = frozenset({"binary", "multiclass"})


@dataclass(frozen=True)
class MetricDefinition:
    """Definition of a metric by a function of scikit-learn.

    Attributes:
        function: Name of the function in `sklearn.metrics`, which is imported when something is scored.
        tasks: Tasks that the metric supports.
        greater_is_better: Whether larger values are better.
        scored_values: Input of the metric: the predicted labels or numbers, the probability of the positive class, or
            all probabilities.
        options: Further arguments of the function.
    """

    function: str
    tasks: frozenset[Task]
    greater_is_better: bool
    scored_values: Literal["prediction", "positive", "probabilities"] = "prediction"
    options: Mapping[str, Any] = field(default_factory=dict)

    def score(self, truth: np.ndarray, predicted: np.ndarray, **options: Any) -> float:
        """Compute the metric; NaN if it is not defined for these rows."""
        from sklearn import metrics

        try:
            return float(getattr(metrics, self.function)(truth, predicted, **self.options, **options))
        except ValueError:  # scikit-learn raises it if the metric is not defined, e.g. for a single class
            return float("nan")


REGRESSION: frozenset[Task] = frozenset({"regression"})
BINARY: frozenset[Task] = frozenset({"binary"})
MULTICLASS: frozenset[Task] = frozenset({"multiclass"})

METRIC_DEFINITIONS: dict[str, MetricDefinition] = {
    "rmse": MetricDefinition("root_mean_squared_error", REGRESSION, greater_is_better=False),
    "mse": MetricDefinition("mean_squared_error", REGRESSION, greater_is_better=False),
    "mae": MetricDefinition("mean_absolute_error", REGRESSION, greater_is_better=False),
    "r2": MetricDefinition("r2_score", REGRESSION, greater_is_better=True),
    "accuracy": MetricDefinition("accuracy_score", CLASSIFICATIONS, greater_is_better=True),
    "balanced_accuracy": MetricDefinition("balanced_accuracy_score", CLASSIFICATIONS, greater_is_better=True),
    "f1": MetricDefinition("f1_score", options={"zero_division": np.nan}, tasks=BINARY, greater_is_better=True),
    "precision": MetricDefinition(
        "precision_score", options={"zero_division": 0.0}, tasks=BINARY, greater_is_better=True
    ),
    "recall": MetricDefinition("recall_score", options={"zero_division": np.nan}, tasks=BINARY, greater_is_better=True),
    "f1_macro": MetricDefinition(
        "f1_score", options={"average": "macro"}, tasks=CLASSIFICATIONS, greater_is_better=True
    ),
    "roc_auc": MetricDefinition("roc_auc_score", BINARY, greater_is_better=True, scored_values="positive"),
    "average_precision": MetricDefinition(
        "average_precision_score", BINARY, greater_is_better=True, scored_values="positive"
    ),
    "brier": MetricDefinition("brier_score_loss", BINARY, greater_is_better=False, scored_values="positive"),
    "log_loss": MetricDefinition("log_loss", CLASSIFICATIONS, greater_is_better=False, scored_values="probabilities"),
    "roc_auc_ovr": MetricDefinition(
        "roc_auc_score",
        MULTICLASS,
        greater_is_better=True,
        scored_values="probabilities",
        options={"multi_class": "ovr"},
    ),
}

DEFAULT_METRICS: dict[Task, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "log_loss", "accuracy"),
    "multiclass": ("log_loss", "accuracy", "f1_macro"),
}


class Metric(FrozenModel):
    """A metric of a model, and the value that a version must reach.

    Attributes:
        name: Name of the metric, one of `METRIC_DEFINITIONS`.
        threshold: Worst value that passes the gate; None if the metric is only reported.
    """

    name: str
    threshold: float | None = None

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name not in METRIC_DEFINITIONS:
            raise ValueError(f"{name} is not a metric; there are {', '.join(METRIC_DEFINITIONS)}")
        return name

    @property
    def greater_is_better(self) -> bool:
        """Whether larger values are better."""
        return METRIC_DEFINITIONS[self.name].greater_is_better

    def is_better(self, value: float, than: float) -> bool:
        """Return whether a value is better than another."""
        return value > than if self.greater_is_better else value < than

    def passes(self, value: float) -> bool:
        """Return whether a value reaches the threshold; NaN never does."""
        if self.threshold is None:
            return True
        return value >= self.threshold if self.greater_is_better else value <= self.threshold

    def check_task(self, task: Task) -> None:
        """Check that the metric supports a task.

        Raises:
            ConfigError: The metric does not support the task; the hint lists those that do.
        """
        if task not in METRIC_DEFINITIONS[self.name].tasks:
            supported = [name for name, definition in METRIC_DEFINITIONS.items() if task in definition.tasks]
            raise ConfigError(
                f"the metric {self.name} does not fit a {task} target", hint=f"use one of {', '.join(supported)}"
            )

    def score(self, targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> float:
        """Compute the metric for n rows; NaN if it is not defined for them, such as the AUC of a single class.

        Labels are compared by their position in `outputs.classes`.

        Raises:
            ValueError: The number of targets differs from that of predictions.
        """
        if len(targets) != len(outputs.prediction):
            raise ValueError(f"{len(targets)} targets cannot be compared with {len(outputs.prediction)} predictions")
        definition = METRIC_DEFINITIONS[self.name]
        if outputs.probabilities is None:
            return definition.score(np.asarray(targets, dtype=np.float64), outputs.prediction)
        if np.isnan(outputs.probabilities).any():
            # The argmax of NaN is the first class, so that a diverged model would score like a constant.
            return float("nan")
        truth = label_positions(targets, outputs.classes)
        if definition.scored_values == "prediction":
            return definition.score(truth, label_positions(outputs.prediction, outputs.classes))
        if definition.scored_values == "positive":
            if len(np.unique(truth)) < 2 and self.name != "brier":
                return float("nan")
            return definition.score(truth, outputs.probabilities[:, 1])
        return definition.score(truth, normalize_rows(outputs.probabilities), labels=list(range(len(outputs.classes))))


def default_metrics(task: Task) -> tuple[Metric, ...]:
    """List the default metrics of a task; the first one decides between models."""
    return tuple(Metric(name=name) for name in DEFAULT_METRICS[task])


def score_all(metrics: Sequence[Metric], targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> Scores:
    """Compute each metric by name."""
    return {metric.name: metric.score(targets, outputs) for metric in metrics}


def label_positions(labels: Iterable[Any], classes: Sequence[Label]) -> NDArray[np.int64]:
    """Map each label to its position in the classes."""
    positions = {label: position for position, label in enumerate(classes)}
    return np.array([positions[label] for label in labels], dtype=np.int64)


def normalize_rows(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalise each row of probabilities to a sum of 1, which float32 only approximates."""
    scaled: NDArray[np.float64] = probabilities / probabilities.sum(axis=1, keepdims=True)
    return scaled


def row_losses(targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> NDArray[np.float64]:
    """Compute a proper score of each row: the squared error, or the log loss of a classification."""
    if outputs.probabilities is None:
        errors: NDArray[np.float64] = np.square(np.asarray(targets, dtype=np.float64) - outputs.prediction)
        return errors
    return log_losses(label_positions(targets, outputs.classes), normalize_rows(outputs.probabilities))


def log_losses(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the log loss of each row from the position of its class and n x k normalised probabilities."""
    of_truth = scores[np.arange(len(truth)), truth]
    losses: NDArray[np.float64] = -np.log(np.clip(of_truth, np.finfo(np.float64).eps, 1))  # as scikit-learn clips
    return losses
