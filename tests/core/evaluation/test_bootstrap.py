"""Bootstrap intervals of metrics, and of differences between models on the same rows."""

import time

import numpy as np
import pytest

from model_name.core.evaluation.bootstrap import MIN_DAYS, Resampler, paired_difference, percentile_interval
from model_name.core.evaluation.weighted_metrics import weighted_metric
from model_name.core.metrics import Metric
from model_name.core.schemas import Outputs

RMSE = Metric(name="mse")


def make_outputs(errors):
    return np.zeros(len(errors)), Outputs.from_scores(errors, ())


def hours(rows):
    return np.datetime64("2024-01-01") + np.arange(rows) * np.timedelta64(1, "h")


def mse_interval(errors, moments=None, resamples=500):
    targets, outputs = make_outputs(errors)
    resampler = Resampler.for_rows(len(errors), moments, resamples=resamples, seed=1)
    return percentile_interval(resampler.resample([weighted_metric(RMSE, targets, outputs)])[:, 0])


def test_interval_of_a_mean_matches_the_normal_approximation():
    errors = np.random.default_rng(0).normal(0, 1, 5000)
    interval, squares = mse_interval(errors), errors**2
    half_width = 1.96 * squares.std() / np.sqrt(5000)
    assert interval.low == pytest.approx(squares.mean() - half_width, abs=half_width / 4)
    assert interval.high == pytest.approx(squares.mean() + half_width, abs=half_width / 4)


def test_blocks_of_days_give_wider_intervals_than_rows():
    errors = np.repeat(np.random.default_rng(0).normal(0, 1, 100), 24)
    by_day, by_row = mse_interval(errors, hours(2400)), mse_interval(errors)
    assert by_day.high - by_day.low > 3 * (by_row.high - by_row.low)


def test_equal_seeds_give_equal_intervals():
    errors = np.random.default_rng(0).normal(0, 1, 200)
    assert mse_interval(errors) == mse_interval(errors)


@pytest.mark.parametrize(
    ("rows", "moments", "description"),
    [
        pytest.param(24 * MIN_DAYS, hours(24 * MIN_DAYS), f"{MIN_DAYS} days, drawn 500 times", id="enough days"),
        pytest.param(12, hours(12), "12 rows, drawn 500 times", id="12 rows of one day"),
        pytest.param(12, None, "12 rows, drawn 500 times", id="no time column"),
        pytest.param(300_000, None, "300,000 rows, drawn 200 times", id="many rows are resampled less often"),
    ],
)
def test_days_are_resampled_if_there_are_enough(rows, moments, description):
    assert Resampler.for_rows(rows, moments, resamples=500, seed=0).description == description


def test_common_variation_cancels_in_a_difference():
    # given: a model that is a little worse on each row, and days of which some are very hard
    hard = np.repeat(np.random.default_rng(0).exponential(1, 60), 24)
    targets, own = make_outputs(np.sqrt(hard))
    _, other = make_outputs(np.sqrt(hard + 0.05))
    resampler = Resampler.for_rows(len(hard), hours(len(hard)), resamples=500, seed=0)
    # when
    drawn = resampler.resample([weighted_metric(RMSE, targets, outputs) for outputs in (own, other)])
    difference = paired_difference(
        "champion", "mse", (float(hard.mean()), float(hard.mean()) + 0.05), drawn[:, 0] - drawn[:, 1]
    )
    # then
    assert (difference.value, difference.low, difference.high) == pytest.approx((-0.05, -0.05, -0.05))
    assert np.ptp(drawn[:, 0]) > 0.3


@pytest.mark.parametrize(
    ("values", "is_known"),
    [
        pytest.param([np.nan] * 300 + [1.0] * 200, False, id="mostly undefined"),
        pytest.param([np.nan] * 200 + [1.0] * 300, True, id="mostly defined"),
        pytest.param([], False, id="no resamples"),
    ],
)
def test_interval_of_a_mostly_undefined_metric_is_none(values, is_known):
    interval = percentile_interval(np.array(values))
    assert (interval.low is not None, interval.high is not None) == (is_known, is_known)


def test_difference_to_an_undefined_metric_is_none():
    assert paired_difference("constant", "roc_auc", (0.7, None), np.full(5, np.nan)).value is None


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "seconds"), [(20_000, 3), (300_000, 10)])
def test_many_rows_are_resampled_within_seconds(rows, seconds):
    random = np.random.default_rng(0)
    positive = random.random(rows)
    outputs = Outputs.from_scores(np.column_stack([1 - positive, positive]), (False, True))
    targets = random.random(rows) < positive
    metrics = [Metric(name=name) for name in ("roc_auc", "log_loss", "accuracy")]
    start = time.process_time()
    drawn = Resampler.for_rows(rows, None, resamples=500, seed=0).resample(
        [weighted_metric(metric, targets, outputs) for metric in metrics]
    )
    assert time.process_time() - start < 2 * seconds  # of a processor that others share
    assert np.isfinite(drawn).all()
