"""What a worker is called."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from model_name.errors import ConfigError
from model_name.kafka.worker import instance_lock
from model_name.kafka.worker.instance_lock import Claim

HOLD = """
import sys, time
from pathlib import Path
from model_name.kafka.worker.instance_lock import Claim
claim = Claim("scorers", Path(sys.argv[1]))
print(claim.name, flush=True)
time.sleep(60)
"""


def test_each_worker_of_a_group_has_a_name_of_its_own(tmp_path: Path) -> None:
    claims = [Claim("scorers", tmp_path) for _ in range(3)]
    assert [claim.name for claim in claims] == [f"scorers-{socket.gethostname()}-{number}" for number in range(3)]


def test_groups_do_not_know_of_each_other(tmp_path: Path) -> None:
    first, second = Claim("a", tmp_path), Claim("b", tmp_path)
    assert (first.name[-2:], second.name[-2:]) == ("-0", "-0")


def test_a_killed_worker_has_its_name_again_after_a_restart(tmp_path: Path) -> None:
    # Given a worker that has the first name
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        name = process.stdout.readline().strip()
        other = Claim("scorers", tmp_path)
        assert other.name != name
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    # Then it is free as soon as that is killed
    assert Claim("scorers", tmp_path).name == name


def test_a_group_of_any_name_has_a_lock(tmp_path: Path) -> None:
    claim = Claim("../a b/ü", tmp_path)
    assert claim.name.startswith("../a b/ü-")
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Claim("scorers", tmp_path / "none")


def test_there_is_an_end_to_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instance_lock, "MOST", 2)
    claims = [Claim("scorers", tmp_path) for _ in range(2)]
    with pytest.raises(ConfigError, match="2 workers of scorers run on this host"):
        Claim("scorers", tmp_path)
    assert len({claim.name for claim in claims}) == 2
    assert str(os.getuid()) in next(tmp_path.iterdir()).name
