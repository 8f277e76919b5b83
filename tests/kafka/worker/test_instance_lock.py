"""Names of worker instances."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from model_name.errors import ConfigError
from model_name.kafka.worker import instance_lock
from model_name.kafka.worker.instance_lock import InstanceLock

HOLD = """
import sys, time
from pathlib import Path
from model_name.kafka.worker.instance_lock import InstanceLock
lock = InstanceLock("scorers", Path(sys.argv[1]))
print(lock.name, flush=True)
time.sleep(60)
"""


def test_workers_of_a_group_have_different_names(tmp_path: Path) -> None:
    locks = [InstanceLock("scorers", tmp_path) for _ in range(3)]
    assert [lock.name for lock in locks] == [f"scorers-{socket.gethostname()}-{number}" for number in range(3)]


def test_groups_are_independent(tmp_path: Path) -> None:
    first, second = InstanceLock("a", tmp_path), InstanceLock("b", tmp_path)
    assert (first.name[-2:], second.name[-2:]) == ("-0", "-0")


def test_a_killed_worker_gets_its_name_again(tmp_path: Path) -> None:
    # Given a worker with the first name
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        other = InstanceLock("scorers", tmp_path)
        assert other.name != name
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # Then the name is free as soon as it is killed
    assert InstanceLock("scorers", tmp_path).name == name


def test_a_group_name_with_special_characters_has_a_lock_file(tmp_path: Path) -> None:
    lock = InstanceLock("../a b/ü", tmp_path)
    assert lock.name.startswith("../a b/ü-")
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        InstanceLock("scorers", tmp_path / "none")


def test_the_number_of_workers_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_lock, "MAX_WORKERS_PER_HOST", 2)
    locks = [InstanceLock("scorers", tmp_path) for _ in range(2)]
    with pytest.raises(ConfigError, match="2 workers of scorers run on this host"):
        InstanceLock("scorers", tmp_path)
    assert len({lock.name for lock in locks}) == 2
    assert str(os.getuid()) in next(tmp_path.iterdir()).name
