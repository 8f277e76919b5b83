"""Which models to average, and how much of each: chosen by what they answered for rows that they had not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.metrics import Metric
from model_name.core.schemas import Label, Outputs

STEPS = 25  # that weights are multiples of one over
LEAST_GAIN = 1e-4  # of the score that one more step must bring
SMOOTH = {"rmse", "mse", "mae", "r2", "log_loss", "brier", "roc_auc", "roc_auc_ovr", "average_precision"}


@dataclass(frozen=True)
class HeldOut:
    """The rows that all models are judged on.

    Attributes:
        truth: The targets of each fold, as the table has them.
        classes: The labels of a classification.
        metric: What decides.
    """

    truth: Sequence[NDArray[Any]]
    classes: tuple[Label, ...]
    metric: Metric

    def fold_scores(self, answers: Sequence[NDArray[Any]], metric: Metric | None = None) -> list[float]:
        """What scores are worth on each fold; n of a regression, or n x k probabilities."""
        metric = metric or self.metric
        return [
            metric.score(truth, Outputs.from_scores(answer, self.classes))
            for truth, answer in zip(self.truth, answers, strict=True)
        ]

    def is_better(self, scores: Sequence[float], than: Sequence[float]) -> bool:
        """Whether scores are better in the mean, and on more than half of the folds, so that no single one decides."""
        wins = sum(self.metric.is_better(one, other) for one, other in zip(scores, than, strict=True))
        return self.metric.is_better(fmean(scores), fmean(than)) and 2 * wins > len(scores)


def choose(
    answers: Mapping[int, Sequence[NDArray[Any]]], held: HeldOut, *, default: int, limit: int
) -> dict[int, float]:
    """The weights of the best blend, by the number of each model; the default alone where no blend is surely better.

    Greedy selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models"): the model
    that helps most is added again and again; its weight is its share of the picks.

    Args:
        answers: What each model answered for each fold.
        held: The folds.
        default: The model to beat.
        limit: The most models that may be blended.
    """
    # A metric that jumps, such as accuracy, would choose by luck.
    guide = held.metric if held.metric.name in SMOOTH else Metric(name="log_loss")
    picks = _greedy(answers, held, guide, limit)
    weights = {number: picks.count(number) / len(picks) for number in dict.fromkeys(picks)}
    blended = mix([answers[number] for number in weights], list(weights.values()))
    if held.is_better(held.fold_scores(blended), held.fold_scores(answers[default])):
        return weights
    return {default: 1.0}


def mix(answers: Sequence[Sequence[NDArray[Any]]], weights: Sequence[float]) -> list[NDArray[Any]]:
    """The weighted mean of what several models answered, fold by fold."""
    return [np.tensordot(weights, np.array(folds), axes=1) for folds in zip(*answers, strict=True)]


def _greedy(answers: Mapping[int, Sequence[NDArray[Any]]], held: HeldOut, guide: Metric, limit: int) -> list[int]:
    picks: list[int] = []
    total = [np.zeros_like(fold) for fold in next(iter(answers.values()))]
    best = 0.0
    for step in range(1, STEPS + 1):
        allowed = set(picks) if len(set(picks)) == limit else set(answers)
        tried = {
            number: fmean(
                held.fold_scores([(a + b) / step for a, b in zip(total, answers[number], strict=True)], guide)
            )
            for number in answers
            if number in allowed
        }
        number = (max if guide.greater_is_better else min)(tried, key=lambda candidate: tried[candidate])
        if picks and not _gains(tried[number], best, guide):
            break
        best = tried[number]
        picks.append(number)
        total = [so_far + more for so_far, more in zip(total, answers[number], strict=True)]
    return picks


def _gains(score: float, best: float, guide: Metric) -> bool:
    return guide.is_better(score, best) and abs(score - best) > LEAST_GAIN * abs(best)
