"""Explanation benchmark: measurements and limits."""

import json
from pathlib import Path

import pytest

from benchmarks import explaining

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_explainers_are_timed_and_those_of_the_network_agree(workplace):
    # given a working directory with the example
    for name in ("confs", "data"):
        (workplace / name).symlink_to(ROOT / name)
    # when few rows are explained
    seconds, correlation = explaining.measure(rows=50, rounds=1)
    # then all explainers are timed
    assert {name: len(times) for name, times in seconds.items()} == dict.fromkeys(
        (*explaining.KINDS, explaining.DEEP), 1
    )
    assert correlation > explaining.MIN_CORRELATION


@pytest.mark.parametrize(
    ("seconds", "correlation", "code"),
    [
        pytest.param(0.9, 0.995, 0, id="fast and accurate"),
        pytest.param(1.1, 0.995, 1, id="slow"),
        pytest.param(0.9, 0.9, 1, id="inaccurate"),
    ],
)
def test_benchmark_fails_if_a_limit_is_missed(workplace, seconds, correlation, code):
    rounds = {"TabularNetwork": [seconds] * 3, explaining.DEEP: [9.0] * 3}
    assert explaining.report(1000, rounds, correlation) == code
    report = json.loads((workplace / "build/benchmarks/explaining.json").read_text())
    assert report["ratio"] == pytest.approx(9.0 / seconds)
