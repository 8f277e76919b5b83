"""Search by Ray: what Optuna would find, with hopeless trials stopped, and nothing lost by a kill."""

import json
import math
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from model_name.errors import ConfigError, DependencyError
from model_name.utils.search import ray_search
from model_name.utils.search.ray_search import RaySearcher
from model_name.utils.search.spaces import Choice

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).parents[2] / "support/ray_counting.py"
UNLUCKY = 13.0


def start(folder, **changes):
    """A search in a process of its own, which leaves a mark for each fit."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    env = keep | {
        "PYTHONPATH": f"{ROOT}:{SCRIPT.parent}",
        "MARKS": str(folder / "marks"),
        "OMP_NUM_THREADS": "1",
        # as torchrun sets it for all that it starts
        "TORCHELASTIC_RUN_ID": "none",
        "WORLD_SIZE": "1",
        "RANK": "0",
    }
    command = [sys.executable, "-c", "import ray_counting; ray_counting.main()", folder / "found.json"]
    with (folder / "err").open("a") as err:
        return subprocess.Popen(
            [*map(str, command), json.dumps(changes)], env=env, cwd=folder, stdout=subprocess.PIPE, stderr=err
        )


def marks(folder):
    """The hyperparameter and rows of each fit that was done in a process of Ray's."""
    path = folder / "marks"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A search that is killed when some of its trials are done, and then run again to its end."""
    folder = tmp_path_factory.mktemp("ray")
    first = start(folder)
    family = []

    def is_half_done():
        assert first.poll() is None, (folder / "err").read_text()
        return len(marks(folder)) >= 2 + 5  # those of the model itself, and of two or three trials

    wait(is_half_done, 120)
    time.sleep(1.0)  # Ray writes down what is done some time after it is
    family = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    before = marks(folder)
    second = start(folder)
    out, _ = second.communicate(timeout=180)
    assert second.returncode == 0, (folder / "err").read_text()
    found = json.loads((folder / "found.json").read_text())
    orphans = psutil.wait_procs(family, timeout=90)[1]
    return SimpleNamespace(
        folder=folder, before=before, after=marks(folder)[len(before) :], out=out, orphans=orphans, **found
    )


@pytest.mark.slow
def test_the_best_is_what_any_search_would_find(killed):
    done = {trial["alpha"]: trial["score"] for trial in killed.trials if not trial["reason"]}
    assert len(killed.trials) == 8
    assert killed.best["alpha"] == min(done, key=done.get)
    assert killed.best["alpha"] in (0.1, 1.0)
    assert killed.trials[0]["alpha"] == 1.0  # the model's own


@pytest.mark.slow
def test_what_is_not_promising_is_stopped_and_says_so(killed):
    stopped = [trial for trial in killed.trials if "not promising" in trial["reason"]]
    assert stopped
    for trial in stopped:
        assert trial["reason"] == "stopped after fold 1: not promising"
        assert (len(trial["folds"]), math.isnan(trial["score"])) == (1, True)
        assert trial["alpha"] > 1.0


@pytest.mark.slow
def test_a_trial_that_fails_is_told_and_the_others_go_on(killed):
    failed = [trial for trial in killed.trials if trial["alpha"] == UNLUCKY]
    assert failed
    for trial in failed:
        assert trial["reason"] == "fold 1: thirteen has no luck"
    assert sum(not trial["reason"] for trial in killed.trials) >= 2


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_trials_that_were_done(killed):
    # then what had been done was not done again, but for what Ray had not written down yet
    whole = Counter(len(trial["folds"]) for trial in killed.trials)
    needed = sum(folds * trials for folds, trials in whole.items())
    own = 2  # folds of the model itself, which is judged each time
    assert len(killed.after) < needed + own


@pytest.mark.slow
def test_each_trial_that_ends_is_told(killed):
    numbers = [number for number, _, _ in killed.told]
    assert numbers == sorted(numbers)
    assert all(total == 8 for _, total, _ in killed.told)
    assert any("rmse" in words for _, _, words in killed.told)


@pytest.mark.slow
def test_stdout_holds_nothing_and_no_process_is_left_behind(killed):
    assert killed.out == b""
    assert (killed.children, killed.orphans) == ([], [])


@pytest.mark.slow
def test_it_listens_on_this_machine_alone(killed):
    assert {place for _, place in killed.listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_trials_do_not_take_themselves_for_processes_of_torchrun(killed):
    assert {is_torchrun for _, _, is_torchrun in killed.after[2:]} == {False}


@pytest.mark.slow
def test_a_budget_ends_a_search(tmp_path):
    process = start(tmp_path, trials=500, budget_seconds=4)
    process.communicate(timeout=180)
    found = json.loads((tmp_path / "found.json").read_text())
    assert 1 <= len(found["trials"]) < 100


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(ray_search, "find_spec", lambda name: None)
    searcher = RaySearcher(space={"alpha": Choice(root=(1.0, 2.0))})
    with pytest.raises(ConfigError, match="RaySearcher needs") as caught:
        searcher.search(None)
    assert caught.value.hint == "pip install 'model-name[tuning]'"


@pytest.mark.parametrize(
    ("address", "options"),
    [
        pytest.param("", {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}, id="none, so on this machine"),
        pytest.param("10.0.0.1:6379", {}, id="a cluster"),
    ],
)
def test_the_address_of_a_cluster_comes_from_the_environment(monkeypatch, address, options):
    import ray

    given = []
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda **options: given.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: given.append("down"))
    with ray_search._ray():
        pass
    assert {name: value for name, value in given[0].items() if "log" not in name} == options
    assert given[1:] == ["down"]


def test_a_cluster_that_is_not_there_is_told(monkeypatch):
    import ray

    def init(**_):
        raise ConnectionError("no")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(DependencyError, match=r"no Ray at 10\.0\.0\.1:6379"), ray_search._ray():
        pass
