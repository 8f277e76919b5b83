"""Ensemble selection: the models to average and their weights, selected by their predictions for held-out rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.metrics import Metric
from model_name.core.schemas import Label, Outputs

MAX_PICKS = 25  # weights are multiples of one over the number of picks
MIN_IMPROVEMENT = 1e-4  # of the score, for one more pick
SMOOTH_METRICS = {"rmse", "mse", "mae", "r2", "log_loss", "brier", "roc_auc", "roc_auc_ovr", "average_precision"}


@dataclass(frozen=True)
class HoldoutScorer:
    """Scorer of predictions for the held-out rows of all folds.

    Attributes:
        truth: Targets of each fold, as in the table.
        classes: Labels of a classification.
        metric: Metric to optimise.
    """

    truth: Sequence[NDArray[Any]]
    classes: tuple[Label, ...]
    metric: Metric

    def fold_scores(self, predictions: Sequence[NDArray[Any]], metric: Metric | None = None) -> list[float]:
        """Score the predictions for each fold: n values of a regression, or n x k probabilities."""
        metric = metric or self.metric
        return [
            metric.score(truth, Outputs.from_scores(scores, self.classes))
            for truth, scores in zip(self.truth, predictions, strict=True)
        ]

    def is_better(self, scores: Sequence[float], than: Sequence[float]) -> bool:
        """Report whether scores are better on average and on more than half of the folds, so that no fold dominates."""
        wins = sum(self.metric.is_better(score, other) for score, other in zip(scores, than, strict=True))
        return self.metric.is_better(fmean(scores), fmean(than)) and 2 * wins > len(scores)


def select_ensemble(
    predictions: Mapping[int, Sequence[NDArray[Any]]], scorer: HoldoutScorer, *, default: int, max_members: int
) -> dict[int, float]:
    """Select the members of the best blend; the default model alone unless the blend is clearly better.

    Greedy selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models"): the model
    that improves the blend most is added repeatedly; its weight is its share of the picks.

    Args:
        predictions: Predictions of each model for each fold.
        scorer: Scorer of the held-out rows.
        default: Number of the model that the blend must beat.
        max_members: Maximum number of models in the blend.

    Returns:
        The weights by the number of the model.
    """
    # A metric with jumps, such as accuracy, would select by chance.
    metric = scorer.metric if scorer.metric.name in SMOOTH_METRICS else Metric(name="log_loss")
    picks = _pick_greedily(predictions, scorer, metric, max_members)
    weights = {number: picks.count(number) / len(picks) for number in dict.fromkeys(picks)}
    blended = blend([predictions[number] for number in weights], list(weights.values()))
    if scorer.is_better(scorer.fold_scores(blended), scorer.fold_scores(predictions[default])):
        return weights
    return {default: 1.0}


def blend(predictions: Sequence[Sequence[NDArray[Any]]], weights: Sequence[float]) -> list[NDArray[Any]]:
    """Compute the weighted mean of the predictions of several models, fold by fold."""
    return [np.tensordot(weights, np.array(folds), axes=1) for folds in zip(*predictions, strict=True)]


def _pick_greedily(
    predictions: Mapping[int, Sequence[NDArray[Any]]], scorer: HoldoutScorer, metric: Metric, max_members: int
) -> list[int]:
    picks: list[int] = []
    total = [np.zeros_like(fold) for fold in next(iter(predictions.values()))]
    best = 0.0
    for step in range(1, MAX_PICKS + 1):
        allowed = set(picks) if len(set(picks)) == max_members else set(predictions)
        scores = {
            number: fmean(
                scorer.fold_scores([(a + b) / step for a, b in zip(total, predictions[number], strict=True)], metric)
            )
            for number in predictions
            if number in allowed
        }
        number = (max if metric.greater_is_better else min)(scores, key=lambda candidate: scores[candidate])
        if picks and not _improves(scores[number], best, metric):
            break
        best = scores[number]
        picks.append(number)
        total = [so_far + added for so_far, added in zip(total, predictions[number], strict=True)]
    return picks


def _improves(score: float, best: float, metric: Metric) -> bool:
    return metric.is_better(score, best) and abs(score - best) > MIN_IMPROVEMENT * abs(best)
