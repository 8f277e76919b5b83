"""Jobs with an `AutoModel`: its members are searched once, by training or by tuning."""

import json
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest

from model_name.errors import ConfigError
from model_name.reports.search_run import load_search
from model_name.runner import build_step_job
from model_name.scripts import main
from model_name.settings import load_job, load_step_config
from model_name.utils.search.automl_objective import AutoMLObjective
from pipelines.__main__ import main as pipelines
from tests.support import projects

SEARCHER = {"kinds": ["BoostedTrees", "LinearModel"], "max_trials": 3, "folds": 2}
TRAINING = {"KIND": "TrainingJob", "model": {"KIND": "AutoModel"}, "searcher": SEARCHER}
TUNING = {"KIND": "TuningJob", "model": {"KIND": "AutoModel"}, "searcher": SEARCHER}


def project(folder):
    confs = projects.make_project(folder)
    projects.write_yaml(confs / "training.yaml", {"job": TRAINING})
    projects.write_yaml(confs / "tuning.yaml", {"job": TUNING})
    return confs


def run(confs, step, *sets):
    with load_job([confs / f"{step}.yaml"], sets) as job:
        return job.run()


@pytest.fixture
def trials(monkeypatch):
    """Record the configs of trials in order."""
    evaluate, configs = AutoMLObjective.evaluate, []

    def record(objective, number, params, seconds):
        configs.append(params)
        return evaluate(objective, number, params, seconds)

    monkeypatch.setattr(AutoMLObjective, "evaluate", record)
    return configs


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model_search")
    confs = project(folder)
    steps = ("training", "evaluations", "explanations", "promotion", "reports")
    return SimpleNamespace(folder=folder, confs=confs, **{step: run(confs, step) for step in steps})


def test_training_searches_the_members_and_registers_one_model(flow):
    assert (flow.training.kind, flow.training.semver) == ("AutoModel", "1.0.0")
    assert {member["KIND"] for member in flow.training.params["members"]} <= {"BoostedTrees", "LinearModel"}
    assert sum(flow.training.params["weights"]) == pytest.approx(1)


def test_a_blend_passes_through_every_job(flow):
    assert flow.evaluations.metrics == pytest.approx(flow.training.metrics, abs=1e-9)
    assert set(list(flow.explanations.importances)[:2]) == {"size", "region"}
    assert flow.explanations.additivity_error < 1e-6
    assert flow.promotion.accepted


def test_the_report_shows_the_search_of_a_training(flow):
    with load_job([flow.confs / "reports.yaml"]):
        search = load_search(mlflow.get_run(flow.training.run_id))
    assert (search.run_id, search.metric, len(search.trials)) == (flow.training.run_id, "rmse", 3)
    assert search.best.params["weights"] == list(flow.training.params["weights"])
    page = Path(flow.reports.report).read_text(encoding="utf-8")
    section = page[page.index('<h2 id="search">') : page.index('<h2 id="explanation">')]
    for text in ("Selected model", "Trials by kind", "BoostedTrees", "LinearModel", "Default trees", "Selected"):
        assert text in section


def test_a_finished_search_is_not_repeated(flow, trials):
    again = run(flow.confs, "training")
    assert trials == []
    assert again.params == flow.training.params


def test_a_killed_search_resumes_after_its_last_trial(tmp_path, flow, trials):
    # given a search with two finished trials and a truncated journal entry of the third
    confs = project(tmp_path)
    run(confs, "training")
    journal = tmp_path / "build/searches/orders.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    trials.clear()
    # when the same training is run again, then only the third trial is run, with the same result
    again = run(confs, "training")
    assert len(trials) == 1
    assert again.params == flow.training.params


def test_the_result_of_tuning_is_trained_without_another_search(tmp_path, flow, trials):
    confs = project(tmp_path)
    result = run(confs, "tuning")
    trials.clear()
    overrides = json.loads(result.training_overrides)
    trained = run(confs, "training", f"job={json.dumps(overrides)}")
    assert (result.trials, result.failed, trials) == (3, 0, [])
    assert list(trained.params["members"]) == result.params["members"]
    assert result.params["weights"] == list(flow.training.params["weights"])
    # and the version names the run of its search, as long as that run exists
    with load_job([confs / "training.yaml"]):
        assert load_search(mlflow.get_run(trained.run_id)).run_id == result.run_id == overrides["tuning_run"]
        mlflow.MlflowClient().set_tag(trained.run_id, "tuning_run", "0" * 32)
        assert load_search(mlflow.get_run(trained.run_id)) is None


def test_a_step_applies_the_overrides_of_the_step_before(tmp_path):
    raw, _ = load_step_config(str(project(tmp_path)), "training")
    overrides = {"params": {"members": [{"KIND": "LinearModel"}], "weights": [1.0]}, "tuning_run": "abc"}
    job = build_step_job(json.dumps(raw), {"tuned": json.dumps(overrides), "table": ""})
    assert (job.params, job.tuning_run) == (overrides["params"], "abc")
    assert build_step_job(json.dumps(raw), {"tuned": "", "table": ""}).params == {}


@pytest.mark.parametrize(
    ("job", "text"),
    [
        pytest.param(
            {"model": {"KIND": "BoostedTrees"}, "searcher": SEARCHER},
            "AutoSearcher chooses the members of an AutoModel, not of BoostedTrees",
            id="AutoSearcher for one kind",
        ),
        pytest.param({"model": {"KIND": "BoostedTrees"}}, "searcher.KIND: OptunaSearcher", id="missing searcher"),
        pytest.param(
            {"searcher": {"KIND": "OptunaSearcher", "space": {"weights": [1]}}},
            "OptunaSearcher searches one kind of model; an AutoModel needs searcher.KIND: AutoSearcher",
            id="a space of a blend",
        ),
        pytest.param({"searcher": {"KIND": "AutoSearch"}}, "AutoSearch", id="a misspelt searcher"),
        pytest.param({"searcher": {"kinds": ["Trees"]}}, "Trees cannot be chosen", id="an unknown kind"),
    ],
)
def test_a_searcher_that_does_not_fit_the_model_is_refused(tmp_path, job, text):
    confs = projects.make_project(tmp_path)
    projects.write_yaml(confs / "tuning.yaml", {"job": {"KIND": "TuningJob"} | job})
    with pytest.raises(ConfigError, match=text):
        run(confs, "tuning")


def test_a_search_by_several_processes_is_refused(tmp_path, monkeypatch):
    confs = project(tmp_path)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="cannot be searched by several processes") as caught:
        run(confs, "training")
    assert "TuningJob" in caught.value.hint


@pytest.mark.parametrize(
    "budget",
    [
        pytest.param("0", id="zero"),
        pytest.param("0s", id="zero seconds"),
        pytest.param("-5s", id="negative"),
        pytest.param("soon", id="not a duration"),
        pytest.param("10 parsecs", id="unknown unit"),
    ],
)
def test_an_invalid_budget_is_refused_by_both_command_lines(tmp_path, capfd, monkeypatch, budget):
    confs = project(tmp_path)
    assert main(["run", str(confs / "training.yaml"), "--budget", budget]) == 2
    assert "job.searcher.budget_seconds" in capfd.readouterr().err
    monkeypatch.setattr("sys.argv", ["pipelines", "run", "training", "--confs", str(confs), "--budget", budget])
    assert pipelines() == 2
    assert "job.searcher.budget_seconds" in capfd.readouterr().err


def test_a_budget_ends_the_search_of_a_training(tmp_path, capfd, trials):
    confs = project(tmp_path)
    assert main(["run", str(confs / "training.yaml"), "--budget", "0.01s", "--json"]) == 0
    result = json.loads(capfd.readouterr().out)
    assert trials == [{"KIND": "BoostedTrees"}]
    assert result["params"]["weights"] == [1.0]


def test_a_budget_is_refused_for_a_job_without_a_search(tmp_path, capfd):
    confs = project(tmp_path)
    assert main(["run", str(confs / "evaluations.yaml"), "--budget", "10s"]) == 2
    assert "searcher is not a key of EvaluationsJob" in capfd.readouterr().err
