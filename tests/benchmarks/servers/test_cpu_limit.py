"""CPU limit of a process by a control group."""

import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.servers import cpu_limit as module
from benchmarks.servers.cpu_limit import CGROUPS, cpu_limit


def can_limit():
    try:
        with subprocess.Popen(["sleep", "60"]) as process:
            try:
                with cpu_limit(process.pid, 1):
                    return True
            finally:
                process.kill()
    except SystemExit:
        return False


@pytest.mark.skipif(not can_limit(), reason="the control groups cannot be written")
def test_a_process_gets_no_more_processor_time_than_its_limit():
    command = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(command) as process:
        try:
            with cpu_limit(process.pid, 0.2):
                before, started = psutil.Process(process.pid).cpu_times().user, time.monotonic()
                time.sleep(2)
                share = (psutil.Process(process.pid).cpu_times().user - before) / (time.monotonic() - started)
        finally:
            process.kill()
    assert share < 0.3
    # and the group is removed
    assert not [*CGROUPS.glob(f"**/model-name-benchmark-{process.pid}")]


def test_control_groups_that_cannot_be_written_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CGROUPS", tmp_path / "missing")
    with (
        pytest.raises(SystemExit, match="cannot limit the processors: No such file or directory; it needs root"),
        cpu_limit(1, 1),
    ):
        pass
