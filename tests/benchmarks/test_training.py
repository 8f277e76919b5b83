"""Training benchmark on few rows: measurements and limits. Its speed needs the full size."""

import json

import pytest

from benchmarks import training


def test_every_training_loop_is_timed(workplace):
    # when each batch size is measured on few rows
    rates = {size: training.measure(size, rows=2048, rounds=2) for size in training.BATCHES}
    training.report(rates)
    # then each loop has a rate per round, and the report holds them
    assert {name: len(values) for name, values in rates[1024].items()} == {"bare": 2, "ours": 2, "loaded": 2}
    written = json.loads((workplace / "build/benchmarks/training.json").read_text())
    assert written["ratios"]["8192"]["bare"] == 1
    assert all(rate > 0 for by_loop in written["rates"].values() for values in by_loop.values() for rate in values)


@pytest.mark.parametrize(
    ("ours", "code"),
    [pytest.param([86.0, 90.0, 10.0], 0, id="fast enough"), pytest.param([84.0] * 3, 1, id="too slow")],
)
def test_benchmark_fails_if_training_is_slow(workplace, ours, code):
    assert training.report({1024: {"bare": [100.0] * 3, "ours": ours, "loaded": [50.0] * 3}}) == code
