"""Coverage of prediction intervals on rows of the same distribution."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from model_name.core.decisions.conformal import SplitConformal, conformal_rank


def noisy(rows, seed):
    """Draw predictions, and actual values whose noise grows with the prediction."""
    random = np.random.default_rng(seed)
    predicted = random.uniform(0, 10, rows)
    return predicted, predicted + random.normal(0, 0.2 + predicted / 3)


def covered(intervals, predicted, actual, level):
    lower, upper = intervals.bounds(predicted, level)
    return (lower <= actual) & (actual <= upper)


@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_coverage_holds_for_small_and_large_noise(level):
    # given intervals
    intervals = SplitConformal(bins=10).fit(*noisy(20_000, seed=1))
    predicted, actual = noisy(20_000, seed=2)
    # when new rows are compared with them
    inside = covered(intervals, predicted, actual, level)
    # then the coverage is the level, overall and in both ranges
    assert inside.mean() == pytest.approx(level, abs=0.01)
    for part in (predicted < 2, predicted > 8):
        assert inside[part].mean() == pytest.approx(level, abs=0.03)


def test_single_bin_undercovers_large_noise():
    predicted, actual = noisy(20_000, seed=2)
    inside = covered(SplitConformal(bins=1).fit(*noisy(20_000, seed=1)), predicted, actual, 0.9)
    assert inside[predicted > 8].mean() < 0.8


@given(st.integers(1, 2000), st.floats(0.01, 0.99))
def test_rank_is_the_smallest_that_covers_in_expectation(rows, level):
    rank = conformal_rank(rows, level)
    assert rank >= (rows + 1) * level - 1e-6
    assert rank - 1 < (rows + 1) * level + 1e-6


@pytest.mark.parametrize(
    ("rows", "levels", "bins"),
    [
        pytest.param(12, (0.8, 0.9), 1, id="12 rows are too few for 95 %"),
        pytest.param(19, (0.8, 0.9, 0.95), 1, id="19 rows are enough for 95 %"),
        pytest.param(250, (0.8, 0.9, 0.95), 2, id="bins of a hundred"),
        pytest.param(5000, (0.8, 0.9, 0.95), 5, id="no more bins than configured"),
    ],
)
def test_few_rows_have_fewer_levels_and_bins(rows, levels, bins):
    intervals = SplitConformal().fit(*noisy(rows, seed=3))
    assert (intervals.levels, len(intervals.edges) + 1, intervals.rows) == (levels, bins, rows)


@pytest.mark.parametrize(
    ("predicted", "actual"),
    [
        pytest.param([1.0, 2.0], [1.0, 3.0], id="two rows"),
        pytest.param([], [], id="no row"),
        pytest.param([np.nan] * 100, [1.0] * 100, id="NaN"),
    ],
)
def test_no_intervals_without_enough_finite_residuals(predicted, actual):
    assert SplitConformal().fit(np.array(predicted), np.array(actual)) is None


def test_constant_prediction_has_one_bin():
    predicted = np.full(1000, 3.0)
    intervals = SplitConformal().fit(predicted, predicted + np.random.default_rng(0).normal(0, 1, 1000))
    assert (intervals.edges, [len(halves) for halves in intervals.halves]) == ((), [1, 1, 1])


def test_higher_levels_have_wider_intervals():
    halves = np.array(SplitConformal(levels=(0.95, 0.5, 0.8)).fit(*noisy(3000, seed=4)).halves)
    assert (np.diff(halves, axis=0) >= 0).all()


@pytest.mark.parametrize("levels", [(), (0.0,), (1.0,), (90,)])
def test_levels_outside_0_and_1_are_refused(levels):
    with pytest.raises(ValidationError, match="levels are shares"):
        SplitConformal(levels=levels)


def test_error_about_a_misspelt_key_shows_the_name_of_the_config():
    with pytest.raises(ValidationError, match="level is not a key of Conformal; did you mean levels"):
        SplitConformal.model_validate({"level": [0.9]})
