"""What a prediction is worth: named metrics with their thresholds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from pydantic import field_validator
from sklearn import metrics as sk

from model_name.core.schemas import Frozen, Outputs, Task
from model_name.errors import ConfigError

Scores = dict[str, float]

CLASSIFICATIONS: frozenset[Task] = frozenset({"binary", "multiclass"})


@dataclass(frozen=True)
class Definition:
    """How a metric is computed.

    Attributes:
        score: From the true values and the predicted ones.
        tasks: What it fits.
        greater_is_better: Its direction.
        sees: Whether it looks at the predicted label or number, the probability of the positive class, or all
            probabilities.
    """

    score: Callable[..., float]
    tasks: frozenset[Task]
    greater_is_better: bool
    sees: Literal["prediction", "positive", "probabilities"] = "prediction"


REGRESSION: frozenset[Task] = frozenset({"regression"})
BINARY: frozenset[Task] = frozenset({"binary"})

DEFINITIONS: dict[str, Definition] = {
    "rmse": Definition(sk.root_mean_squared_error, REGRESSION, greater_is_better=False),
    "mse": Definition(sk.mean_squared_error, REGRESSION, greater_is_better=False),
    "mae": Definition(sk.mean_absolute_error, REGRESSION, greater_is_better=False),
    "r2": Definition(sk.r2_score, REGRESSION, greater_is_better=True),
    "accuracy": Definition(sk.accuracy_score, CLASSIFICATIONS, greater_is_better=True),
    "balanced_accuracy": Definition(sk.balanced_accuracy_score, CLASSIFICATIONS, greater_is_better=True),
    "f1": Definition(partial(sk.f1_score, zero_division=np.nan), BINARY, greater_is_better=True),
    "precision": Definition(partial(sk.precision_score, zero_division=0.0), BINARY, greater_is_better=True),
    "recall": Definition(partial(sk.recall_score, zero_division=np.nan), BINARY, greater_is_better=True),
    "f1_macro": Definition(partial(sk.f1_score, average="macro"), CLASSIFICATIONS, greater_is_better=True),
    "roc_auc": Definition(sk.roc_auc_score, BINARY, greater_is_better=True, sees="positive"),
    "average_precision": Definition(sk.average_precision_score, BINARY, greater_is_better=True, sees="positive"),
    "brier": Definition(sk.brier_score_loss, BINARY, greater_is_better=False, sees="positive"),
    "log_loss": Definition(sk.log_loss, CLASSIFICATIONS, greater_is_better=False, sees="probabilities"),
    "roc_auc_ovr": Definition(
        partial(sk.roc_auc_score, multi_class="ovr"), frozenset({"multiclass"}), greater_is_better=True, sees="probabilities"
    ),
}

DEFAULTS: dict[Task, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary": ("roc_auc", "log_loss", "accuracy"),
    "multiclass": ("log_loss", "accuracy", "f1_macro"),
}


class Metric(Frozen):
    """One measure of a model, and the value that a version must reach.

    Attributes:
        name: One of `DEFINITIONS`.
        threshold: The worst value that passes the gate; none where the metric is only reported.
    """

    name: str
    threshold: float | None = None

    @field_validator("name")
    @classmethod
    def _is_known(cls, name: str) -> str:
        if name not in DEFINITIONS:
            raise ValueError(f"{name} is not a metric; there are {', '.join(DEFINITIONS)}")
        return name

    @property
    def greater_is_better(self) -> bool:
        """Its direction."""
        return DEFINITIONS[self.name].greater_is_better

    def is_better(self, value: float, than: float) -> bool:
        """Whether one value of it beats another."""
        return value > than if self.greater_is_better else value < than

    def passes(self, value: float) -> bool:
        """Whether a value reaches the threshold; NaN never does."""
        if self.threshold is None:
            return True
        return value >= self.threshold if self.greater_is_better else value <= self.threshold

    def require(self, task: Task) -> None:
        """Refuse a task that it does not fit.

        Raises:
            ConfigError: Naming the metrics that do.
        """
        if task not in DEFINITIONS[self.name].tasks:
            fitting = [name for name, definition in DEFINITIONS.items() if task in definition.tasks]
            raise ConfigError(f"the metric {self.name} does not fit a {task} target", hint=f"use one of {', '.join(fitting)}")

    def score(self, targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> float:
        """Its value for n rows; NaN where it is not defined for them, such as an AUC of one class.

        Labels are compared by their position in `outputs.classes`.

        Raises:
            ValueError: There are not as many targets as outputs.
        """
        if len(targets) != len(outputs.prediction):
            raise ValueError(f"{len(targets)} targets cannot be compared with {len(outputs.prediction)} predictions")
        definition = DEFINITIONS[self.name]
        if outputs.probabilities is None:
            return _defined(definition.score, np.asarray(targets, dtype=np.float64), outputs.prediction)
        if np.isnan(outputs.probabilities).any():
            # The largest of nothing but NaN is the first class: a model that diverged would still look half right.
            return float("nan")
        position = {label: code for code, label in enumerate(outputs.classes)}
        truth = np.array([position[label] for label in targets])
        if definition.sees == "prediction":
            return _defined(definition.score, truth, np.array([position[label] for label in outputs.prediction]))
        if definition.sees == "positive":
            if len(np.unique(truth)) < 2 and self.name != "brier":
                return float("nan")
            return _defined(definition.score, truth, outputs.probabilities[:, 1])
        shares = outputs.probabilities / outputs.probabilities.sum(axis=1, keepdims=True)
        return _defined(partial(definition.score, labels=list(range(len(outputs.classes)))), truth, shares)


def default_metrics(task: Task) -> tuple[Metric, ...]:
    """The metrics of a task; the first is the one that decides."""
    return tuple(Metric(name=name) for name in DEFAULTS[task])


def score_all(metrics: Sequence[Metric], targets: Sequence[Any] | np.ndarray, outputs: Outputs) -> Scores:
    """Every metric by name."""
    return {metric.name: metric.score(targets, outputs) for metric in metrics}


def _defined(score: Callable[..., float], truth: np.ndarray, predicted: np.ndarray) -> float:
    try:
        return float(score(truth, predicted))
    except ValueError:  # scikit-learn's word for "not defined on these rows", e.g. one class only
        return float("nan")
