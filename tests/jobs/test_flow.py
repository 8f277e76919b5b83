"""All jobs in order on one small table, as a user runs them; each test checks the result of one job."""

import json
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest

from model_name.io.audit import AuditTrail
from model_name.reports.search_run import load_search
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.settings import load_job
from tests.support import projects, tables

STEPS = ("preparation", "training", "evaluations", "explanations", "promotion", "reports")


def run(confs, step, *sets):
    job = load_job([confs / f"{step}.yaml"], sets)
    with job:
        return job.run()


@pytest.fixture(scope="module", params=["regression", "binary", "multiclass"])
def flow(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    confs = projects.make_project(folder, request.param)
    results = {step: run(confs, step) for step in STEPS}
    return SimpleNamespace(task=request.param, folder=folder, confs=confs, **results)


def test_preparation_keeps_every_row_of_a_good_table(flow):
    result = pd.read_parquet(flow.preparation.table)
    assert (len(result), flow.preparation.kept, flow.preparation.findings) == (600, 600, ())


def test_training_registers_the_first_version_with_its_scores(flow):
    assert (flow.training.version, flow.training.semver, flow.training.kind) == ("1", "1.0.0", "BoostedTrees")
    assert flow.training.test_rows == 120
    assert set(flow.training.metrics) == {metric["name"] for metric in projects.METRICS[flow.task]}


def test_the_bundle_predicts_like_the_registered_model(flow):
    # Given rows that were not trained on
    rows = tables.order_table(flow.task, seed=9).drop(columns="amount").head(50)
    # When both predict them
    job = load_job([flow.confs / "training.yaml"])
    with job:
        expected = mlflow.pyfunc.load_model("models:/orders/1").predict(rows)
    served = DataPlane(Bundle.load(flow.folder / "build/bundles/orders/1")).predict(
        {name: rows[name].to_numpy() for name in rows}
    )
    # Then they agree
    if flow.task == "regression":
        np.testing.assert_allclose(served.prediction, expected["prediction"], rtol=1e-4)
    else:
        assert list(served.prediction) == list(expected["prediction"])
        np.testing.assert_allclose(served.probabilities, expected.iloc[:, 1:], atol=1e-4)


def test_the_manifest_names_the_version(flow):
    manifest = Bundle.load(flow.folder / "build/bundles/orders/1").manifest
    assert (manifest.semver, manifest.version, manifest.run_id) == ("1.0.0", "1", flow.training.run_id)
    assert set(manifest.profile) == {"moment", "region", "size", "is_open"}


def test_evaluation_measures_both_references_and_every_slice(flow):
    first = flow.evaluations.measures[0]
    constant, trees = (flow.evaluations.references[name][first.name] for name in ("constant", "default trees"))
    assert first.is_better(flow.evaluations.metrics[first.name], constant)
    assert first.is_better(trees, constant)
    assert {part.value for part in flow.evaluations.slices} == {"north", "south", "west"}
    assert sum(part.rows for part in flow.evaluations.slices) == flow.evaluations.rows
    assert flow.evaluations.champion is None


def test_evaluation_agrees_with_training(flow):
    assert flow.evaluations.metrics == pytest.approx(flow.training.metrics, abs=1e-12)


def test_explanations_add_up_and_find_the_signal(flow):
    samples = pd.read_parquet(flow.explanations.samples)
    assert len(samples) == flow.explanations.rows == 30
    assert flow.explanations.additivity_error < 1e-6
    assert set(list(flow.explanations.importances)[:2]) == {"size", "region"}


def test_promotion_makes_the_first_good_version_champion(flow):
    assert (flow.promotion.accepted, flow.promotion.alias, flow.promotion.entry) == (True, "champion", 1)
    assert AuditTrail(str(flow.folder / "audit")).verify() == 1


def test_the_report_is_one_file_with_every_section(flow):
    page = (flow.folder / "build/reports/orders-1.html").read_text(encoding="utf-8")
    for title in (
        "Metrics on held-out rows",
        "Gate decision",
        "Configured slices",
        "Feature importance",
        "Data",
        "Lineage",
    ):
        assert title in page
    assert "http://" not in page
    assert "https://" not in page
    assert "orders 1.0.0 is the champion" in page


def test_the_run_has_every_artifact_of_the_version(flow):
    job = load_job([flow.confs / "training.yaml"])
    with job:
        result = {file.path for file in mlflow.MlflowClient().list_artifacts(flow.training.run_id)}
    assert {"bundle", "evaluation.json", "explanation.json", "gate.json", "report.html", "config.json"} <= result


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """Return the results of a champion and of a worse version after it."""
    folder = tmp_path_factory.mktemp("history")
    confs = projects.make_project(folder, metrics=[{"name": "rmse"}])
    for step in ("training", "evaluations", "promotion"):
        run(confs, step)
    worse = run(confs, "training", "job.model={KIND: BoostedTrees, max_iter: 1}")
    evaluated = run(confs, "evaluations")
    refused = run(confs, "promotion")
    return SimpleNamespace(folder=folder, confs=confs, worse=worse, evaluated=evaluated, refused=refused)


def test_other_hyperparameters_are_a_minor_version(history):
    assert history.worse.semver == "1.1.0"


def test_a_worse_version_is_compared_with_the_champion_on_the_same_rows(history):
    assert history.evaluated.champion.version == "1"
    assert history.evaluated.metrics["rmse"] > history.evaluated.champion.metrics["rmse"]
    assert all(part.champion for part in history.evaluated.slices)


def test_a_worse_version_is_refused_and_the_refusal_recorded(history):
    assert not history.refused.accepted
    failed = [check.name for check in history.refused.checks if not check.passed]
    assert "rmse against the champion" in failed
    assert "rmse against the champion where region is north" in failed
    entry = AuditTrail(str(history.folder / "audit")).entries()[1]
    assert (entry.event, entry.details["version"]) == ("refused", "2")


def test_a_refusal_does_not_move_the_champion(history):
    job = load_job([history.confs / "promotion.yaml"])
    with job:
        assert job.registry.resolve("champion").version == "1"


def test_lime_explains_a_version_without_adding_up(history):
    result = run(history.confs, "explanations", "job.method=lime", "job.rows=3")
    assert (result.method, result.additivity_error, result.rows) == ("lime", None, 3)
    assert result.fidelity is not None
    assert len(pd.read_parquet(result.samples)) == 3


def test_force_needs_an_actor_and_a_reason(history):
    with pytest.raises(ValueError, match="needs an actor and a reason"):
        run(history.confs, "promotion", "job.force=true")


def test_a_forced_promotion_sets_the_previous_champion_and_is_recorded(tmp_path_factory, history):
    # When the refused version is forced
    forced = run(history.confs, "promotion", "job.force=true", "job.actor=ann", "job.reason=an incident")
    # Then it is the champion, the previous one has its alias, and the audit trail names actor and reason
    assert (forced.accepted, forced.forced, forced.alias) == (True, True, "champion")
    job = load_job([history.confs / "promotion.yaml"])
    with job:
        assert job.registry.resolve("previous-champion").version == "1"
    entry = AuditTrail(str(history.folder / "audit")).entries()[-1]
    assert (entry.actor, entry.event, entry.details["reason"]) == ("ann", "forced", "an incident")


def test_the_same_recipe_on_the_same_rows_is_a_patch_with_equal_scores(tmp_path):
    confs = projects.make_project(tmp_path)
    first, second = run(confs, "training"), run(confs, "training")
    assert (first.semver, second.semver) == ("1.0.0", "1.0.1")
    assert first.metrics == second.metrics


def test_training_uses_the_parameters_of_tuning(tmp_path):
    confs = projects.make_project(tmp_path)
    result = run(confs, "tuning")
    trained = run(confs, "training", f"job.params={json.dumps(result.params)}")
    assert result.trials == 3
    assert result.score <= result.default_score
    assert trained.params["max_iter"] == result.params["max_iter"]
    # And the search is loaded for that version, but not for a version with other hyperparameters
    other = run(confs, "training", "job.model={KIND: BoostedTrees, max_iter: 7}")
    searches = [load_search(mlflow.get_run(each.run_id)) for each in (trained, other)]
    assert (searches[0].run_id, searches[0].metric, len(searches[0].trials)) == (result.run_id, "rmse", 3)
    assert searches[1] is None


def test_a_version_whose_files_cannot_be_stored_is_deleted(tmp_path, monkeypatch):
    # Given a file in place of the build folder, so that the bundle cannot be stored
    confs = projects.make_project(tmp_path)
    (tmp_path / "build").write_text("in the way")
    # When training runs
    with pytest.raises(OSError, match="build"):
        run(confs, "training")
    # Then the registry holds no version
    job = load_job([confs / "training.yaml"])
    with job:
        assert job.registry.versions() == []


def test_a_champion_of_another_schema_is_recorded_and_does_not_stop_the_evaluation(tmp_path):
    confs = projects.make_project(tmp_path)
    for step in ("training", "evaluations", "promotion"):
        run(confs, step)
    # Given a new version that needs no `size`, and a table without it
    smaller = tables.order_schema()
    del smaller["columns"]["size"]
    projects.write_yaml(confs / "schema.yaml", smaller)
    tables.order_table().drop(columns="size").to_parquet(tmp_path / "orders.parquet")
    trained = run(confs, "training")
    # When it is evaluated
    result = run(confs, "evaluations")
    # Then it is a major version, and the champion's problem is recorded
    assert trained.semver == "2.0.0"
    assert "size" in result.champion.problem


def test_a_version_no_better_than_a_constant_is_refused_without_a_threshold(tmp_path):
    # Given a target that is independent of all columns
    noise = tables.order_table().assign(amount=np.random.default_rng(1).normal(0, 1, 600))
    confs = projects.make_project(tmp_path, frame=noise, metrics=[{"name": "rmse"}])
    for step in ("training", "evaluations"):
        run(confs, step)
    # When it is put through the gate
    refused = run(confs, "promotion")
    # Then a constant beats it
    assert not refused.accepted
    assert [check.name for check in refused.checks if not check.passed] == ["rmse against a constant"]
