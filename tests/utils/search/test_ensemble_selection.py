import numpy as np
import pytest

from model_name.core.metrics import Metric
from model_name.utils.search.ensemble_selection import HoldoutScorer, blend, select_ensemble

RANDOM = np.random.default_rng(0)
TRUTH = [RANDOM.normal(size=200) for _ in range(3)]


def answers(noise, seed, bias=0.0):
    random = np.random.default_rng(seed)
    return [truth + bias + random.normal(0, noise, len(truth)) for truth in TRUTH]


def held(name="rmse"):
    return HoldoutScorer(TRUTH, (), Metric(name=name))


def test_two_that_err_apart_are_averaged():
    # given two models as good as the default, whose errors have nothing in common
    found = {0: answers(1.0, 0), 1: answers(1.0, 1), 2: answers(1.0, 2), 3: answers(9.0, 3)}
    # when a blend is chosen
    weights = select_ensemble(found, held(), default=0, max_members=5)
    # then it is about their mean, without the bad one, and better than each
    assert set(weights) == {0, 1, 2}
    assert sum(weights.values()) == pytest.approx(1)
    blended = blend([found[number] for number in weights], list(weights.values()))
    assert max(held().fold_scores(blended)) < 0.7


def test_opposite_errors_cancel():
    found = {0: answers(0.1, 0, bias=1.0), 1: answers(0.1, 1, bias=-1.0)}
    weights = select_ensemble(found, held(), default=0, max_members=5)
    assert weights[0] == pytest.approx(0.5, abs=0.05)


def test_the_limit_is_kept():
    found = {number: answers(1.0, number) for number in range(6)}
    assert len(select_ensemble(found, held(), default=0, max_members=2)) == 2
    assert len(select_ensemble(found, held(), default=0, max_members=1)) == 1


def test_the_default_stays_where_one_lucky_fold_decides():
    # given a model that is far better on one fold and slightly worse on the two others
    default = answers(0.5, 0)
    lucky = [TRUTH[0], *(fold + 0.2 for fold in default[1:])]
    # then the mean is better, but not most folds
    assert np.mean(held().fold_scores(lucky)) < np.mean(held().fold_scores(default))
    assert not held().is_better(held().fold_scores(lucky), held().fold_scores(default))
    assert select_ensemble({0: default, 1: lucky}, held(), default=0, max_members=1) == {0: 1.0}


def test_nothing_better_leaves_the_default():
    found = {0: answers(0.1, 0), 1: answers(5.0, 1)}
    assert select_ensemble(found, held(), default=0, max_members=5) == {0: 1.0}


@pytest.mark.parametrize("name", ["accuracy", "roc_auc", "log_loss"])
def test_probabilities_are_blended_whatever_decides(name):
    random = np.random.default_rng(1)
    truth = [random.random(300) < 0.5 for _ in range(3)]

    def shares(seed):
        noise = np.random.default_rng(seed)
        found = [1 / (1 + np.exp(-(3 * (part - 0.5) + noise.normal(0, 1.5, 300)))) for part in truth]
        return [np.column_stack([1 - part, part]) for part in found]

    rows = HoldoutScorer(truth, (False, True), Metric(name=name))
    found = {number: shares(number) for number in range(3)}
    weights = select_ensemble(found, rows, default=0, max_members=3)
    blended = blend([found[number] for number in weights], list(weights.values()))
    assert rows.is_better(rows.fold_scores(blended), rows.fold_scores(found[0]))
