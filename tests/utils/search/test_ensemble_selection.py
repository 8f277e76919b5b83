import numpy as np
import pytest

from model_name.core.metrics import Metric
from model_name.utils.search.ensemble_selection import HoldoutScorer, blend, select_ensemble

RANDOM = np.random.default_rng(0)
TRUTH = [RANDOM.normal(size=200) for _ in range(3)]


def noisy_predictions(noise, seed, bias=0.0):
    random = np.random.default_rng(seed)
    return [truth + bias + random.normal(0, noise, len(truth)) for truth in TRUTH]


def scorer(name="rmse"):
    return HoldoutScorer(TRUTH, (), Metric(name=name))


def test_models_with_independent_errors_are_averaged():
    # given two models as good as the default, with independent errors
    predictions = {
        0: noisy_predictions(1.0, 0),
        1: noisy_predictions(1.0, 1),
        2: noisy_predictions(1.0, 2),
        3: noisy_predictions(9.0, 3),
    }
    # when a blend is selected
    weights = select_ensemble(predictions, scorer(), default=0, max_members=5)
    # then it is about their mean, without the inaccurate one, and better than each
    assert set(weights) == {0, 1, 2}
    assert sum(weights.values()) == pytest.approx(1)
    blended = blend([predictions[number] for number in weights], list(weights.values()))
    assert max(scorer().fold_scores(blended)) < 0.7


def test_opposite_errors_cancel():
    predictions = {0: noisy_predictions(0.1, 0, bias=1.0), 1: noisy_predictions(0.1, 1, bias=-1.0)}
    weights = select_ensemble(predictions, scorer(), default=0, max_members=5)
    assert weights[0] == pytest.approx(0.5, abs=0.05)


def test_number_of_members_is_limited():
    predictions = {number: noisy_predictions(1.0, number) for number in range(6)}
    assert len(select_ensemble(predictions, scorer(), default=0, max_members=2)) == 2
    assert len(select_ensemble(predictions, scorer(), default=0, max_members=1)) == 1


def test_improvement_on_a_single_fold_does_not_replace_the_default():
    # given a model that is far better on one fold and slightly worse on the two others
    default = noisy_predictions(0.5, 0)
    lucky = [TRUTH[0], *(fold + 0.2 for fold in default[1:])]
    # then the mean is better, but most folds are not
    assert np.mean(scorer().fold_scores(lucky)) < np.mean(scorer().fold_scores(default))
    assert not scorer().is_better(scorer().fold_scores(lucky), scorer().fold_scores(default))
    assert select_ensemble({0: default, 1: lucky}, scorer(), default=0, max_members=1) == {0: 1.0}


def test_default_is_selected_if_no_blend_is_better():
    predictions = {0: noisy_predictions(0.1, 0), 1: noisy_predictions(5.0, 1)}
    assert select_ensemble(predictions, scorer(), default=0, max_members=5) == {0: 1.0}


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "log_loss"])
def test_probabilities_are_blended_for_any_metric(name):
    random = np.random.default_rng(1)
    truth = [random.random(300) < 0.5 for _ in range(3)]

    def probabilities(seed):
        noise = np.random.default_rng(seed)
        positive = [1 / (1 + np.exp(-(3 * (part - 0.5) + noise.normal(0, 1.5, 300)))) for part in truth]
        return [np.column_stack([1 - part, part]) for part in positive]

    holdout = HoldoutScorer(truth, (False, True), Metric(name=name))
    predictions = {number: probabilities(number) for number in range(3)}
    weights = select_ensemble(predictions, holdout, default=0, max_members=3)
    blended = blend([predictions[number] for number in weights], list(weights.values()))
    assert holdout.is_better(holdout.fold_scores(blended), holdout.fold_scores(predictions[0]))
