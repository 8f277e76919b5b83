"""Search with Ray Tune: results of Optuna, early stopping of unpromising trials, and resumption after a kill."""

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
FAILING_ALPHA = 13.0


def start_search(directory, fit_log="fits.jsonl", **changes):
    """Start a search in a process of its own, which logs each fit; its worker processes may outlive it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MLFLOW_"))}
    env = inherited | {
        "PYTHONPATH": f"{ROOT}:{SCRIPT.parent}",
        "FIT_LOG": str(directory / fit_log),
        "OMP_NUM_THREADS": "1",
        # as torchrun sets them for its processes
        "TORCHELASTIC_RUN_ID": "none",
        "WORLD_SIZE": "1",
        "RANK": "0",
    }
    command = [sys.executable, "-c", "import ray_counting; ray_counting.main()", directory / "result.json"]
    with (directory / "err").open("a") as err:
        return subprocess.Popen(
            [*map(str, command), json.dumps(changes)], env=env, cwd=directory, stdout=subprocess.PIPE, stderr=err
        )


def logged_fits(path):
    """Return hyperparameter, number of rows and torchrun environment of each logged fit."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    assert condition()


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """Kill a search when some of its trials are done, run it again to its end, and return its result."""
    directory = tmp_path_factory.mktemp("ray")
    killed_log, resumed_log = directory / "killed.jsonl", directory / "resumed.jsonl"
    first = start_search(directory, killed_log.name)

    def is_half_done():
        assert first.poll() is None, (directory / "err").read_text()
        return len(logged_fits(killed_log)) >= 2 + 5  # those of the model itself, and of two or three trials

    wait_until(is_half_done, 120)
    time.sleep(1.0)  # Ray saves its state with a delay
    children = psutil.Process(first.pid).children(recursive=True)
    first.kill()
    first.wait()
    second = start_search(directory, resumed_log.name)
    out, _ = second.communicate(timeout=180)
    assert second.returncode == 0, (directory / "err").read_text()
    result = json.loads((directory / "result.json").read_text())
    orphans = psutil.wait_procs(children, timeout=90)[1]
    return SimpleNamespace(
        directory=directory,
        fits=logged_fits(resumed_log),
        out=out,
        orphans=orphans,
        **result,
    )


@pytest.mark.slow
def test_best_trial_is_selected(resumed):
    done = {trial["alpha"]: trial["score"] for trial in resumed.trials if not trial["reason"]}
    assert len(resumed.trials) == 8
    assert resumed.best["alpha"] == min(done, key=done.get)
    assert resumed.best["alpha"] in (0.1, 1.0)
    assert resumed.trials[0]["alpha"] == 1.0  # the model's own hyperparameter


@pytest.mark.slow
def test_unpromising_trials_are_stopped_with_a_reason(resumed):
    stopped = [trial for trial in resumed.trials if "not promising" in trial["reason"]]
    assert stopped
    for trial in stopped:
        assert trial["reason"] == "stopped after fold 1: not promising"
        assert (len(trial["folds"]), math.isnan(trial["score"])) == (1, True)
        assert trial["alpha"] > 1.0


@pytest.mark.slow
def test_failed_trial_is_recorded_and_others_continue(resumed):
    failed = [trial for trial in resumed.trials if trial["alpha"] == FAILING_ALPHA]
    assert failed
    for trial in failed:
        assert trial["reason"] == "fold 1: alpha 13 fails"
    assert sum(not trial["reason"] for trial in resumed.trials) >= 2


@pytest.mark.slow
def test_killed_search_is_resumed_from_completed_trials(resumed):
    # then completed folds were not repeated, except those that Ray had not saved yet
    trials_by_folds = Counter(len(trial["folds"]) for trial in resumed.trials)
    needed = sum(folds * trials for folds, trials in trials_by_folds.items())
    own = 2  # folds of the model itself, which is evaluated in each process
    assert len(resumed.fits) < needed + own


@pytest.mark.slow
def test_progress_is_reported_after_each_trial(resumed):
    numbers = [number for number, _, _ in resumed.reports]
    assert numbers == sorted(numbers)
    assert all(total == 8 for _, total, _ in resumed.reports)
    assert any("rmse" in message for _, _, message in resumed.reports)


@pytest.mark.slow
def test_stdout_is_empty_and_no_process_is_left_over(resumed):
    assert resumed.out == b""
    assert (resumed.children, resumed.orphans) == ([], [])


@pytest.mark.slow
def test_ray_listens_on_localhost_only(resumed):
    assert {address for _, address in resumed.listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


@pytest.mark.slow
def test_trials_do_not_inherit_the_torchrun_environment(resumed):
    assert {is_torchrun for _, _, is_torchrun in resumed.fits[2:]} == {False}


@pytest.mark.slow
def test_budget_ends_the_search(tmp_path):
    process = start_search(tmp_path, trials=500, budget_seconds=4)
    process.communicate(timeout=180)
    result = json.loads((tmp_path / "result.json").read_text())
    assert 1 <= len(result["trials"]) < 100


def test_missing_ray_is_an_error_with_an_installation_hint(monkeypatch):
    monkeypatch.setattr(ray_search, "find_spec", lambda name: None)
    searcher = RaySearcher(space={"alpha": Choice(root=(1.0, 2.0))})
    with pytest.raises(ConfigError, match="RaySearcher needs") as caught:
        searcher.search(None)
    assert caught.value.hint == "pip install 'model-name[tuning]'"


@pytest.mark.parametrize(
    ("address", "options"),
    [
        pytest.param(
            "", {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}, id="no address, so on this machine"
        ),
        pytest.param("10.0.0.1:6379", {}, id="a cluster"),
    ],
)
def test_address_of_the_cluster_comes_from_the_environment(monkeypatch, address, options):
    import ray

    calls = []
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("down"))
    with ray_search._ray():
        pass
    assert {name: value for name, value in calls[0].items() if "log" not in name} == options
    assert calls[1:] == ["down"]


def test_unreachable_cluster_is_an_error(monkeypatch):
    import ray

    def init(**_):
        raise ConnectionError("no")

    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(DependencyError, match=r"no Ray at 10\.0\.0\.1:6379"), ray_search._ray():
        pass
