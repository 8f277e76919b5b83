"""The benchmark of training, on few rows: that it measures; what it measures is told at its full size."""

import json

import pytest

from benchmarks import training


def test_every_way_of_training_is_timed(workplace):
    # when each batch size is measured on few rows
    found = {size: training.measure(size, rows=2048, rounds=2) for size in training.BATCHES}
    training.judge(found)
    # then there is a rate a round for each way, and the file holds them
    assert {way: len(rates) for way, rates in found[1024].items()} == {"bare": 2, "ours": 2, "loaded": 2}
    written = json.loads((workplace / "build/benchmarks/training.json").read_text())
    assert written["ratios"]["8192"]["bare"] == 1
    assert all(rate > 0 for ways in written["rates"].values() for rates in ways.values() for rate in rates)


@pytest.mark.parametrize(
    ("ours", "code"),
    [pytest.param([86.0, 90.0, 10.0], 0, id="fast enough"), pytest.param([84.0] * 3, 1, id="too slow")],
)
def test_the_benchmark_fails_when_ours_is_slow(workplace, ours, code):
    assert training.judge({1024: {"bare": [100.0] * 3, "ours": ours, "loaded": [50.0] * 3}}) == code
