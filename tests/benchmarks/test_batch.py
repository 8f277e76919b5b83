"""The benchmark of batch inference, on few rows: that it measures; what it measures is told at its full size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import batch, measuring

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_ways_predict_the_same_in_bounded_memory(workplace):
    # Given a folder of its own with the example
    for name in ("confs", "data"):
        (workplace / name).symlink_to(ROOT / name)
    # When the benchmark runs on few rows
    command = [sys.executable, "-m", "benchmarks.batch", "--rows", "60000", "--pyfunc-rows", "30000", "--rounds", "1"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    # Then all rows were predicted, and but for the speed, which so few rows do not tell, the limits hold
    found = json.loads((workplace / "build/benchmarks/batch.json").read_text())
    assert [step["found"]["rows"] for step in (*found["streamed"], *found["pyfunc"])] == [60_000, 30_000]
    assert found["difference"] <= batch.TOLERANCE
    assert found["peak_mb"] < batch.MAX_PEAK_MB
    assert found["ratio"] > 0
    assert "Batch inference" in finished.stdout
    assert finished.returncode == (0 if all(found["limits"].values()) else 1)


def test_the_benchmark_fails_when_a_limit_is_missed(workplace):
    def step(rows, seconds, peak_mb):
        return measuring.Step({"rows": rows, "seconds": seconds, "predict_seconds": seconds}, seconds, peak_mb)

    pyfunc = [step(100, 1.0, 900.0)] * 3
    fast = [step(1000, seconds, 400.0) for seconds in (1.0, 1.5, 9.0)]
    assert batch.judge(fast, pyfunc, 1e-6) == 0
    assert batch.judge(fast, pyfunc, 1e-3) == 1
    assert batch.judge([step(1000, 1.0, 1600.0)] * 3, pyfunc, 1e-6) == 1
    assert batch.judge([step(120, 1.0, 400.0)] * 3, pyfunc, 1e-6) == 1


def test_a_step_that_fails_ends_the_benchmark():
    with pytest.raises(SystemExit, match="exit code 2"):
        measuring.run_step("benchmarks.batch", ["--nothing"])
