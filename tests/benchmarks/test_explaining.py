"""The benchmark of explanations: what it holds against its limits; that it measures is told by running it."""

import json
from pathlib import Path

import pytest

from benchmarks import explaining

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_explainer_is_timed_and_the_two_of_the_network_agree(workplace):
    # given a folder of its own with the example
    for name in ("confs", "data"):
        (workplace / name).symlink_to(ROOT / name)
    # when few rows are explained
    seconds, correlation = explaining.measure(rows=50, rounds=1)
    # then all were timed
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys(
        (*explaining.KINDS, explaining.DEEP), 1
    )
    assert correlation > explaining.MIN_CORRELATION


@pytest.mark.parametrize(
    ("seconds", "correlation", "code"),
    [
        pytest.param(0.9, 0.995, 0, id="fast and right"),
        pytest.param(1.1, 0.995, 1, id="slow"),
        pytest.param(0.9, 0.9, 1, id="wrong"),
    ],
)
def test_the_benchmark_fails_when_a_limit_is_missed(workplace, seconds, correlation, code):
    rounds = {"TabularNetwork": [seconds] * 3, explaining.DEEP: [9.0] * 3}
    assert explaining.judge(1000, rounds, correlation) == code
    found = json.loads((workplace / "build/benchmarks/explaining.json").read_text())
    assert found["ratio"] == pytest.approx(9.0 / seconds)
