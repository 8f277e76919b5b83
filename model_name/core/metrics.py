"""What a prediction is worth: named metrics with their thresholds."""

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
    """How a metric is computed.

    Attributes:
        function: Its name in scikit-learn's `metrics`, which is imported when something is scored.
        tasks: What it fits.
        greater_is_better: Its direction.
        sees: Whether it looks at the predicted label or number, the probability of the positive class, or all
            probabilities.
        options: What else the function is told.
    """

    function: str
    tasks: frozenset[Task]
    greater_is_better: bool
    scored_values: Literal["prediction", "positive", "probabilities"] = "prediction"
    options: Mapping[str, Any] = field(default_factory=dict)

    def score(self, truth: np.ndarray, predicted: np.ndarray, **options: Any) -> float:
        """Its value; NaN where it is not defined on these rows."""
        from sklearn import metrics

        try:
            return float(getattr(metrics, self.function)(truth, predicted, **self.options, **options))
        except ValueError:  # scikit-learn's word for "not defined", e.g. with one class only
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
    "precision": MetricDefinition("precision_score", options={"zero_division": 0.0}, tasks=BINARY, greater_is_better=True),
    "recall": MetricDefinition("recall_score", options={"zero_division": np.nan}, tasks=BINARY, greater_is_better=True),
    "f1_macro": MetricDefinition("f1_score", options={"average": "macro"}, tasks=CLASSIFICATIONS, greater_is_better=True),
    "roc_auc": MetricDefinition("roc_auc_score", BINARY, greater_is_better=True, scored_values="positive"),
    "average_precision": MetricDefinition("average_precision_score", BINARY, greater_is_better=True, scored_values="positive"),
    "brier": MetricDefinition("brier_score_loss", BINARY, greater_is_better=False, scored_values="positive"),
    "log_loss": MetricDefinition("log_loss", CLASSIFICATIONS, greater_is_better=False, scored_values="probabilities"),
    "roc_auc_ovr": MetricDefinition(
        "roc_auc_score", MULTICLASS, greater_is_better=True, scored_values="probabilities", options={"multi_class": "ovr"}
    ),
}

DEFAULT_METRICS: dict[Task, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "log_loss", "accuracy"),
    "multiclass": ("log_loss", "accuracy", "f1_macro"),
}


class Metric(FrozenModel):
    """One measure of a model, and the value that a version must reach.

    Attributes:
        name: One of `METRIC_DEFINITIONS`.
        threshold: The worst value that passes the gate; none where the metric is only reported.
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
        """Its direction."""
        return METRIC_DEFINITIONS[self.name].greater_is_better

    def is_better(self, value: float, than: float) -> bool:
        """Whether one value of it beats another."""
        return value > than if self.greater_is_better else value < than

    def passes(self, value: float) -> bool:
        """Whether a value reaches the threshold; NaN never does."""
        if self.threshold is None:
            return True
        return value >= self.threshold if self.greater_is_better else value <= self.threshold

    def check_task(self, task: Task) -> None:
        """Refuse a task that it does not fit.

        Raises:
            ConfigError: Naming the metrics that do.
        """
        if task not in METRIC_DEFINITIONS[self.name].tasks:
            fitting = [name for name, definition in METRIC_DEFINITIONS.items() if task in definition.tasks]
            raise ConfigError(
                f"the metric {self.name} does not fit a {task} target", hint=f"use one of {', '.join(fitting)}"
            )

    def score(self, targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> float:
        """Its value for n rows; NaN where it is not defined for them, such as an AUC of one class.

        Labels are compared by their position in `outputs.classes`.

        Raises:
            ValueError: There are not as many targets as outputs.
        """
        if len(targets) != len(outputs.prediction):
            raise ValueError(f"{len(targets)} targets cannot be compared with {len(outputs.prediction)} predictions")
        definition = METRIC_DEFINITIONS[self.name]
        if outputs.probabilities is None:
            return definition.score(np.asarray(targets, dtype=np.float64), outputs.prediction)
        if np.isnan(outputs.probabilities).any():
            # The largest of nothing but NaN is the first class: a model that diverged would still look half right.
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
    """The metrics of a task; the first is the one that decides."""
    return tuple(Metric(name=name) for name in DEFAULT_METRICS[task])


def score_all(metrics: Sequence[Metric], targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> Scores:
    """Every metric by name."""
    return {metric.name: metric.score(targets, outputs) for metric in metrics}


def label_positions(labels: Iterable[Any], classes: Sequence[Label]) -> NDArray[np.int64]:
    """The position of each label in the classes."""
    position = {label: code for code, label in enumerate(classes)}
    return np.array([position[label] for label in labels], dtype=np.int64)


def normalize_rows(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same with rows that add up to 1, which float32 does not keep."""
    scaled: NDArray[np.float64] = probabilities / probabilities.sum(axis=1, keepdims=True)
    return scaled


def row_losses(targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> NDArray[np.float64]:
    """What each row costs by a proper score: its squared error, or its log loss where there are classes."""
    if outputs.probabilities is None:
        errors: NDArray[np.float64] = np.square(np.asarray(targets, dtype=np.float64) - outputs.prediction)
        return errors
    return log_losses(label_positions(targets, outputs.classes), normalize_rows(outputs.probabilities))


def log_losses(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The log loss of each row, from the position of its class and the n x k shares of the classes."""
    given = scores[np.arange(len(truth)), truth]
    losses: NDArray[np.float64] = -np.log(np.clip(given, np.finfo(np.float64).eps, 1))  # as scikit-learn clips
    return losses
