"""Budget of processor time: credit, its maximum, and pauses."""

import time

import pytest

from model_name.serving.prediction_log.cpu_budget import CpuBudget


@pytest.fixture
def clocks(monkeypatch):
    """Set the clocks by `clocks["wall"]` and `clocks["cpu"]`."""
    now = {"wall": 100.0, "cpu": 5.0}
    monkeypatch.setattr(time, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(time, "thread_time", lambda: now["cpu"])
    return now


def test_a_share_of_the_time_that_passes_may_be_used(clocks):
    budget = CpuBudget(0.1, 1.0)
    clocks["wall"] += 5.0
    clocks["cpu"] += 0.7
    assert budget.update() == pytest.approx(0.7)
    assert budget.credit_seconds == pytest.approx(1.0 + 0.5 - 0.7)
    assert budget.used_seconds == pytest.approx(5.7)
    assert budget.pause_seconds == 0


def test_the_pause_is_as_long_as_it_takes_to_pay_back(clocks):
    budget = CpuBudget(0.1, 1.0)
    clocks["cpu"] += 1.5
    budget.update()
    assert budget.pause_seconds == pytest.approx(5.0)
    clocks["wall"] += budget.pause_seconds
    budget.update()
    assert budget.pause_seconds == pytest.approx(0.0)


def test_the_credit_has_a_maximum(clocks):
    budget = CpuBudget(0.1, 1.0)
    clocks["wall"] += 1e6
    budget.update()
    assert budget.credit_seconds == 1.0
