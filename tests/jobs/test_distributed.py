"""Training by several processes under torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import projects

ROOT = Path(__file__).parents[2]
# Without dropout, whose random draws differ between processes, several processes take the same steps as one.
NETWORK = {"KIND": "TabularNetwork", "hidden": 16, "bins": 8, "max_epochs": 4, "batch_size": 50, "dropout": 0.0}
BROKEN = """
import os
from typing import Literal
from model_name.core.models import TabularNetwork
from model_name.errors import DataError

class Broken(TabularNetwork):
    KIND: Literal["Broken"] = "Broken"

    def fit_matrix(self, *args):
        if os.environ["RANK"] == "1":
            raise DataError("the second process fails")
        super().fit_matrix(*args)
"""


def start(folder: Path, *command: str) -> subprocess.CompletedProcess:
    # Passive OpenMP threads, because the processes share the cores; the timeout ends a broken test.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MODEL_NAME", "MLFLOW_"))}
    env |= {"PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def write_training(folder: Path, **model: object) -> str:
    confs = projects.make_project(folder)
    plugins = {"plugins": ["broken"]} if model else {}
    projects.write_yaml(confs / "training.yaml", {"job": {"KIND": "TrainingJob", "model": NETWORK | model} | plugins})
    return str(confs / "training.yaml")


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one_and_register_it_once(tmp_path):
    # given a project, when two processes train together, and then one alone
    conf = write_training(tmp_path)
    together = start(tmp_path, *TORCHRUN, "-m", "model_name", "run", conf, "--json")
    alone = start(tmp_path, "-m", "model_name", "run", conf, "--json")
    # then both succeed, and one of the two processes logs
    assert (together.returncode, alone.returncode) == (0, 0), together.stderr + alone.stderr
    results = [json.loads(finished.stdout) for finished in (together, alone)]
    assert together.stderr.count("registered orders") == together.stderr.count("training rows, ") == 1
    # and registers the same model, up to the order of sums
    assert [result["version"] for result in results] == ["1", "2"]
    assert results[0]["metrics"] == pytest.approx(results[1]["metrics"], rel=1e-3)
    assert not list((tmp_path / "build/checkpoints").iterdir())


@pytest.mark.slow
def test_a_failing_process_ends_the_others(tmp_path):
    (tmp_path / "broken.py").write_text(BROKEN)
    conf = write_training(tmp_path, KIND="Broken")
    finished = start(tmp_path, *TORCHRUN, "-m", "model_name", "run", conf)
    assert finished.returncode != 0
    assert "the second process fails" in finished.stderr
    assert "registered" not in finished.stderr
