"""Prediction intervals hold what they promise, on rows like those that they were found in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core.decisions.conformal import SplitConformal, conformal_rank


def noisy(rows, seed):
    """Predictions, and actual values whose noise grows with them."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(0, 10, rows)
    return predicted, predicted + random.normal(0, 0.2 + predicted / 3)


def covered(intervals, predicted, actual, level):
    lower, upper = intervals.bounds(predicted, level)
    return (lower <= actual) & (actual <= upper)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_each_level_covers_its_share_where_noise_is_small_and_where_it_is_large(level):
    # given
    intervals = SplitConformal(bins=10).fit(*noisy(20_000, seed=1))
    predicted, actual = noisy(20_000, seed=2)
    # when
    inside = covered(intervals, predicted, actual, level)
    # then
    assert inside.mean() == pytest.approx(level, abs=0.01)
    for part in (predicted < 2, predicted > 8):
        assert inside[part].mean() == pytest.approx(level, abs=0.03)


def test_a_single_width_would_cover_too_little_where_noise_is_large():
    predicted, actual = noisy(20_000, seed=2)
    inside = covered(SplitConformal(bins=1).fit(*noisy(20_000, seed=1)), predicted, actual, 0.9)
    assert inside[predicted > 8].mean() < 0.8


@given(st.integers(1, 2000), st.floats(0.01, 0.99))
def test_the_rank_is_the_smallest_that_covers_in_expectation(rows, level):
    found = conformal_rank(rows, level)
    assert found >= (rows + 1) * level - 1e-6
    assert found - 1 < (rows + 1) * level + 1e-6


@pytest.mark.parametrize(
    ("rows", "levels", "bins"),
    [
        pytest.param(12, (0.8, 0.9), 1, id="12 rows are too few for 95 %"),
        pytest.param(19, (0.8, 0.9, 0.95), 1, id="19 rows are enough for 95 %"),
        pytest.param(250, (0.8, 0.9, 0.95), 2, id="bins of a hundred"),
        pytest.param(5000, (0.8, 0.9, 0.95), 5, id="no more bins than asked for"),
    ],
)
def test_few_rows_have_fewer_levels_and_bins(rows, levels, bins):
    found = SplitConformal().fit(*noisy(rows, seed=3))
    assert (found.levels, len(found.edges) + 1, found.rows) == (levels, bins, rows)


@pytest.mark.parametrize(
    ("predicted", "actual"),
    [
        pytest.param([1.0, 2.0], [1.0, 3.0], id="two rows"),
        pytest.param([], [], id="no row"),
        pytest.param([np.nan] * 100, [1.0] * 100, id="NaN"),
    ],
)
def test_no_interval_is_made_up(predicted, actual):
    assert SplitConformal().fit(np.array(predicted), np.array(actual)) is None


def test_a_constant_prediction_has_one_width():
    predicted = np.full(1000, 3.0)
    found = SplitConformal().fit(predicted, predicted + np.random.default_rng(0).normal(0, 1, 1000))
    assert (found.edges, [len(halves) for halves in found.halves]) == ((), [1, 1, 1])


def test_higher_levels_are_wider():
    halves = np.array(SplitConformal(levels=(0.95, 0.5, 0.8)).fit(*noisy(3000, seed=4)).halves)
    assert (np.diff(halves, axis=0) >= 0).all()


@pytest.mark.parametrize("levels", [(), (0.0,), (1.0,), (90,)])
def test_levels_are_shares(levels):
    with pytest.raises(ValidationError, match="levels are shares"):
        SplitConformal(levels=levels)
