"""The training job: what it begins from."""

from pathlib import Path

import mlflow
import pytest

from model_name.errors import ConfigError, NotFoundError
from model_name.serving.bundle import read_manifest
from model_name.settings import load_job
from tests.support import projects

NETWORK = {"KIND": "TabularNetwork", "hidden": 16, "bins": 8, "max_epochs": 3}


def run(confs, **changes):
    projects.write_yaml(confs / "training.yaml", {"job": {"KIND": "TrainingJob", "model": NETWORK} | changes})
    with load_job([confs / "training.yaml"]) as job:
        return job.run()


def test_a_version_begins_from_an_earlier_one_and_says_so(tmp_path):
    # given a registered network
    confs = projects.make_project(tmp_path)
    first = run(confs)
    # when the next one begins from it
    second = run(confs, warm_start="latest")
    # then its run names it, and its recipe on the same rows has another end
    logged = mlflow.get_run(second.run_id).data
    assert (logged.params["warm_start"], logged.tags["warm_start"]) == (first.semver, "orders 1.0.0 (version 1)")
    assert second.metrics != first.metrics
    # and trees cannot begin from it
    with pytest.raises(ConfigError, match="BoostedTrees cannot begin"):
        run(confs, model={"KIND": "BoostedTrees"}, warm_start="1")


def test_a_version_that_is_not_there_is_told_before_anything_else(tmp_path):
    with pytest.raises(NotFoundError, match="no version"):
        run(projects.make_project(tmp_path), warm_start="champion")


def test_a_version_that_began_from_another_answers_the_intervals_of_that_one(tmp_path):
    # given a network that saw enough epochs, and one that begins from it for one epoch, named by its number
    confs = projects.make_project(tmp_path)
    first = run(confs, model=NETWORK | {"max_epochs": 6})
    second = run(confs, model=NETWORK | {"max_epochs": 1}, warm_start=int(first.version))
    # then its intervals are not those of a copy that saw one epoch alone
    decisions = [read_manifest(Path(found.bundle)).decision for found in (first, second)]
    assert decisions[1] == decisions[0]
    assert decisions[0].intervals is not None
    # and its learning curve, of fits from scratch, is not drawn
    with load_job([confs / "evaluations.yaml"], ["job.ref=2"]) as job:
        assert "began from the weights" in job.run().learning_skipped


def test_costs_are_not_found_by_a_warm_start(tmp_path):
    confs = projects.make_project(tmp_path, "binary")
    run(confs)
    with pytest.raises(ConfigError, match="by a fit from scratch"):
        run(confs, warm_start="latest", costs={"false_positive": 1, "false_negative": 5})
