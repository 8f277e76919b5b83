"""Batch benchmark on few rows: predictions, memory and limits. Its speed needs the full size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import batch, harness

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_stream_and_pyfunc_predict_the_same_in_bounded_memory(workplace):
    # Given a working directory with the example
    for name in ("confs", "data"):
        (workplace / name).symlink_to(ROOT / name)
    # When the benchmark runs on few rows
    command = [sys.executable, "-m", "benchmarks.batch", "--rows", "60000", "--pyfunc-rows", "30000", "--rounds", "1"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    # Then all rows were predicted, and the limits hold except for the speed, which needs more rows
    report = json.loads((workplace / "build/benchmarks/batch.json").read_text())
    assert [step["found"]["rows"] for step in (*report["streamed"], *report["pyfunc"])] == [60_000, 30_000]
    assert report["difference"] <= batch.TOLERANCE
    assert report["peak_mb"] < batch.MAX_PEAK_MB
    assert report["ratio"] > 0
    assert "Batch inference" in process.stdout
    assert process.returncode == (0 if all(report["limits"].values()) else 1)


def test_benchmark_fails_if_a_limit_is_missed(workplace):
    def step(rows, seconds, peak_mb):
        return harness.Step({"rows": rows, "seconds": seconds, "predict_seconds": seconds}, seconds, peak_mb)

    pyfunc = [step(100, 1.0, 900.0)] * 3
    fast = [step(1000, seconds, 400.0) for seconds in (1.0, 1.5, 9.0)]
    assert batch.report(fast, pyfunc, 1e-6) == 0
    assert batch.report(fast, pyfunc, 1e-3) == 1
    assert batch.report([step(1000, 1.0, 1600.0)] * 3, pyfunc, 1e-6) == 1
    assert batch.report([step(120, 1.0, 400.0)] * 3, pyfunc, 1e-6) == 1


def test_failing_step_ends_the_benchmark():
    with pytest.raises(SystemExit, match="exit code 2"):
        harness.run_step("benchmarks.batch", ["--nothing"])
