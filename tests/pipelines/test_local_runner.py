"""Runs of compiled pipelines on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_name.settings import load_job
from tests.support import projects, tables

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


def pipelines(*arguments, cwd=ROOT):
    command = [sys.executable, "-m", "pipelines", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("running")
    confs = projects.make_project(folder)
    (confs / "tuning.yaml").unlink()
    return confs, pipelines("run", "training", "--confs", confs, "--json")


def test_the_result_describes_the_version(ran):
    _, finished = ran
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert list(result) == [
        "version",
        "semver",
        "alias",
        "metrics",
        "references",
        "gate",
        "bundle",
        "report",
        "seconds",
    ]
    assert (result["semver"], result["alias"], result["gate"]["accepted"]) == ("1.0.0", "champion", True)
    assert Path(result["report"]).is_file()
    assert (Path(result["bundle"]) / "bundle.json").is_file()


def test_the_start_and_end_of_each_step_are_logged(ran):
    _, finished = ran
    for line in ("step 1 of 7 preparation", "training done", "notification done", "is champion"):
        assert line in finished.stderr
    assert "executor_input" not in finished.stderr


def test_only_preparation_validates_the_table(ran):
    _, finished = ran
    assert finished.stderr.count("rows fit the schema orders") == 1
    assert finished.stderr.count("not validated again") == 3  # training, evaluations and explanations


def test_the_command_line_gives_the_same_metrics_to_1e9(ran):
    confs, finished = ran
    job = load_job([confs / "training.yaml"])
    with job:
        result = job.run()
    assert result.metrics == pytest.approx(json.loads(finished.stdout)["metrics"], abs=1e-9)


def test_the_inference_pipeline_predicts_with_the_champion(ran):
    confs, _ = ran
    finished = pipelines("run", "inference", "--confs", confs, "--json")
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["rows"], result["predicted"]) == (600, 600)
    assert list(Path(result["outputs"]).glob("part-*.parquet"))


def test_a_failed_step_gives_its_error_and_exit_code(tmp_path):
    # Given a table that does not fit its schema
    confs = projects.make_project(tmp_path, frame=tables.order_table().assign(size=900.0))
    # When the pipeline runs
    finished = pipelines("run", "training", "--confs", confs, "--json")
    # Then the exit code and the error are those of the job, and the notification is sent
    assert finished.returncode == 4
    assert "900.0 is above 100.0" in finished.stderr
    assert "ended: FAILED" in finished.stderr
    assert finished.stdout == ""


def test_an_invalid_config_is_reported_before_any_step_runs(tmp_path):
    confs = projects.make_project(tmp_path)
    finished = pipelines("run", "training", "--confs", confs, "--set", "job.metrics=[{name: f1}]")
    assert finished.returncode in {2, 4}
    assert "f1 does not fit a regression" in finished.stderr
