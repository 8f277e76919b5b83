"""Adaptive sampling: the probability by what waits, and the rows of a simulated log that cannot keep up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.serving.prediction_log.adaptive_sampling import MAX_HALVINGS, AdaptiveSampling

MAX_BYTES = 1000
STEP = 0.01  # seconds of the simulation


def sampling_of(rows_per_second, *, sampling=1.0, backlog_seconds=1.0, credit=0.0, share=0.04):
    """Create the sampling of a log that can write a number of rows per second with its share of a processor."""
    adaptive = AdaptiveSampling(sampling, backlog_seconds=backlog_seconds, max_bytes=MAX_BYTES)
    used = 1000 * share / rows_per_second
    for _ in range(50):
        adaptive.record_block(1000, used, used, credit=credit, share=share)
    return adaptive


def test_the_first_rows_are_logged_with_the_usual_probability():
    assert AdaptiveSampling(0.25, backlog_seconds=1.0, max_bytes=MAX_BYTES).probability(10**6, 0) == 0.25


@pytest.mark.parametrize(
    ("rows", "halvings"),
    [
        pytest.param(0, 0, id="an empty buffer"),
        pytest.param(300, 0, id="a third of what may wait"),
        pytest.param(350, 1, id="a twentieth more"),
        pytest.param(550, 5, id="half of what may wait"),
        pytest.param(10**9, MAX_HALVINGS, id="far too much"),
    ],
)
@pytest.mark.parametrize("sampling", [1.0, 0.5, 0.0])
def test_the_probability_falls_with_the_rows_that_wait(rows, halvings, sampling):
    adaptive = sampling_of(1000, sampling=sampling)
    assert adaptive.probability(rows, 0) == pytest.approx(sampling * 0.5**halvings)


@pytest.mark.parametrize(
    ("share", "halvings"), [(0.5, 0), (0.75, MAX_HALVINGS / 2), (1.0, MAX_HALVINGS), (9.0, MAX_HALVINGS)]
)
def test_the_probability_falls_with_the_memory_of_the_buffer(share, halvings):
    assert sampling_of(1000).probability(0, int(MAX_BYTES * share)) == pytest.approx(0.5**halvings)


def test_processor_time_that_was_saved_allows_more_rows_to_wait():
    # Given a log whose rows take 40 us of the processor, and 0.1 s that it has saved
    adaptive = sampling_of(1000, credit=0.1)
    # Then the rows that this time is for may wait, too: 0.1 s / 40 us
    assert adaptive.probability(300 + 2500, 0) == 1.0
    assert adaptive.probability(300 + 2550, 0) == pytest.approx(0.5)


def test_a_slow_disk_lowers_the_probability_as_a_slow_processor_does():
    adaptive = AdaptiveSampling(1.0, backlog_seconds=1.0, max_bytes=MAX_BYTES)
    for _ in range(50):
        adaptive.record_block(1000, 1.0, 1e-6, credit=1.0, share=0.04)
    assert adaptive.probability(350, 0) == pytest.approx(0.5)


@given(
    offered=st.floats(500, 50_000), capacity=st.floats(2000, 20_000), sampling=st.sampled_from([1.0, 0.5]),
)  # fmt: skip
def test_rows_wait_for_less_than_they_may_at_up_to_thirty_times_the_rate_that_can_be_written(
    offered, capacity, sampling
):
    # Given a log that writes `capacity` rows per second, and `offered` rows per second
    adaptive = sampling_of(capacity, sampling=sampling)
    waiting, written, waited = 0.0, 0.0, []
    for step in range(3000):
        arrived = offered * STEP * adaptive.probability(int(waiting), 0)
        done = min(waiting, capacity * STEP)
        waiting += arrived - done
        if step >= 1500:
            written += done
            waited.append(waiting / capacity)
    # Then it writes what it can, or all, and no row waits much longer than it may
    assert written / (1500 * STEP) == pytest.approx(min(offered * sampling, capacity), rel=0.01)
    assert max(waited) < 0.7
