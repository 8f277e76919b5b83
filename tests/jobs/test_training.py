"""The training job: what it begins from."""

import mlflow
import pytest

from model_name.errors import ConfigError, NotFoundError
from model_name.settings import load_job
from tests import factories

NETWORK = {"KIND": "TabularNetwork", "hidden": 16, "bins": 8, "max_epochs": 3}


def run(confs, **changes):
    factories.write(confs / "training.yaml", {"job": {"KIND": "TrainingJob", "model": NETWORK} | changes})
    with load_job([confs / "training.yaml"]) as job:
        return job.run()


def test_a_version_begins_from_an_earlier_one_and_says_so(tmp_path):
    # given a registered network
    confs = factories.project(tmp_path)
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
        run(factories.project(tmp_path), warm_start="champion")
