"""Runs of single jobs as steps of a pipeline: artifacts, results for the local runner, exit codes."""

import json
from types import SimpleNamespace

import pytest

from model_name.results import ReportResult
from model_name.runner import ERROR, RESULTS_DIR_VARIABLE, run_component, table_reader, write_artifacts
from tests.support import projects


@pytest.fixture
def config(tmp_path):
    """Return the config of a preparation, in JSON as the compiler puts it into a pipeline."""
    from model_name.settings import load_step_config

    raw, _ = load_step_config(str(projects.make_project(tmp_path)), "preparation")
    return json.dumps(raw)


@pytest.fixture
def results_dir(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setenv(RESULTS_DIR_VARIABLE, str(folder))
    return folder


def test_a_step_returns_its_result_and_writes_it_for_the_local_runner(config, results_dir):
    result = run_component(config, overrides={"table": ""})
    assert result.kept == 600
    assert json.loads((results_dir / "PreparationJob.json").read_text()) == result.model_dump(mode="json")


def test_an_error_of_a_step_sets_the_exit_code_and_is_written_for_the_local_runner(config, results_dir, capsys):
    with pytest.raises(SystemExit) as ended:
        run_component(config, overrides={"table": "nowhere.parquet"})
    document = json.loads((results_dir / f"{ERROR}.json").read_text())
    assert document["type"] == "NotFoundError"
    assert ended.value.code not in (0, None)
    assert document["message"] in capsys.readouterr().err.replace("\n", " ")


def test_metrics_and_report_become_artifacts(tmp_path):
    # Given the result of a report, with a metric that is not defined
    (tmp_path / "report.html").write_text("<html></html>")
    result = ReportResult(
        version="1", semver="1.0.0", alias="", metrics={"rmse": 1.5, "r2": None}, references={}, gate={}, bundle="b",
        report=str(tmp_path / "report.html"),
    )  # fmt: skip
    logged = {}
    artifacts = {
        "metrics": SimpleNamespace(log_metric=logged.__setitem__),
        "html": SimpleNamespace(path=str(tmp_path / "copy.html")),
    }
    # When its artifacts are written
    write_artifacts(result, artifacts)
    # Then defined metrics are logged, and the page is copied
    assert logged == {"rmse": 1.5}
    assert (tmp_path / "copy.html").read_text() == "<html></html>"


def test_the_configured_table_keeps_its_reader_options():
    reader = {"KIND": "CsvReader", "path": "a.csv", "limit": 5}
    assert table_reader({"table": reader}, "a.csv") == reader
    assert table_reader({"table": reader}, "b.parquet")["KIND"] == "ParquetReader"
