"""Artifacts of other releases: missing and unknown keys are accepted."""

import json

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Run, RunInputs

from model_name.reports.artifacts import VersionArtifacts
from model_name.reports.curve_figures import curve_figures
from model_name.reports.figures import difference_figure, learning_curve_figure
from model_name.results import EvaluationResult, ExplanationResult, PromotionResult

OLD = {
    "accepted": True,
    "version": "1",
    "semver": "1.0.0",
    "rows": 10,
    "measures": [{"name": "rmse", "threshold": None}],
    "metrics": {"rmse": 1.0},
    "references": {"constant": {"rmse": 2.0}},
    "champion": None,
    "slices": [],
}


def parse(**changes):
    return EvaluationResult.model_validate_json(json.dumps(OLD | changes))


def test_an_evaluation_of_an_older_release_lacks_the_newer_fields():
    evaluation = parse()
    assert evaluation.metrics == {"rmse": 1.0}
    defaults = {name: field.default for name, field in EvaluationResult.model_fields.items() if name not in OLD}
    assert {name: getattr(evaluation, name) for name in defaults} == defaults
    assert {"intervals", "differences", "worst_slices", "curves", "threshold", "learning"} <= defaults.keys()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"novelty": 1}, id="a field"),
        pytest.param({"curves": {"novelty": [], "roc": [{"x": 0, "y": 1, "novelty": 2}]}}, id="in curves"),
        pytest.param({"champion": {"version": "1", "semver": "1.0.0", "novelty": 2}}, id="of the champion"),
        pytest.param(
            {"worst_slices": [{"words": "a is b", "rows": 3, "metrics": {}, "novelty": 1}]}, id="of a worst slice"
        ),
        pytest.param(
            {
                "threshold": {
                    "value": 0.3,
                    "cost": 0.2,
                    "cost_at_half": 0.3,
                    "novelty": 1,
                    "costs": {"false_positive": 1.0, "false_negative": 4.0, "novelty": 1},
                }
            },
            id="of a threshold and its costs",
        ),
        pytest.param({"threshold": {"value": 0.3, "cost": 0.2, "cost_at_half": 0.3}}, id="without costs"),
    ],
)
def test_keys_of_a_newer_release_are_ignored(changes):
    evaluation = parse(**changes)
    assert evaluation.rows == 10
    assert [(point.x, point.y) for point in evaluation.curves.roc] == ([(0, 1)] if "curves" in changes else [])
    assert "novelty" not in evaluation.model_dump_json()


def test_explanations_and_decisions_of_a_newer_release_are_read():
    explanation = {"version": "1", "semver": "1.0.0", "rows": 5, "scale": "prediction", "additivity_error": 0.0}
    explanation |= {"importances": {"x": 1.0}, "samples": "a.parquet", "novelty": 1}
    assert ExplanationResult.model_validate_json(json.dumps(explanation)).method == "shap"
    check = {"name": "a", "passed": True, "value": 1.0, "limit": None, "words": "", "novelty": 1}
    gate = {"version": "1", "semver": "1.0.0", "alias": "champion", "forced": False, "actor": "ann", "reason": ""}
    gate |= {"checks": [check], "previous": "", "entry": 1, "novelty": 1}
    assert PromotionResult.model_validate_json(json.dumps(gate)).checks[0].passed


@pytest.mark.parametrize(
    ("intervals", "known"),
    [
        pytest.param({"a": {"low": None, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}, ["b"], id="an end is null"),
        pytest.param({"a": None}, [], id="an interval is null"),
    ],
)
def test_undefined_intervals_are_left_out(intervals, known):
    evaluation = parse(intervals=intervals)
    assert [name for name in ("a", "b", "c") if evaluation.interval_bounds(name) is not None] == known


def test_undefined_scores_of_the_learning_curve_are_left_out():
    points = [{"rows": 5, "score": None}, {"rows": 7, "score": 2.0}, {"rows": 9, "score": 1.0}]
    assert learning_curve_figure(parse(learning=points)).svg.count("h0") == 2
    assert learning_curve_figure(parse(learning=points[:2])) is None


def test_undefined_differences_are_left_out():
    evaluation = parse(differences=[{"against": "champion", "metric": "rmse", "value": 0.1, "low": None, "high": None}])
    assert evaluation.difference_bounds("champion", "rmse") is None
    assert difference_figure(evaluation) is None


def test_an_evaluation_of_an_older_release_has_no_curves(artifacts):
    assert curve_figures(artifacts.manifest.table, parse()) == []
    assert difference_figure(parse()) is None
    assert learning_curve_figure(parse()) is None


def test_the_held_out_digest_is_that_of_the_testing_dataset(artifacts):
    inputs = [
        DatasetInput(Dataset(name, digest, "local", "{}"), [InputTag("mlflow.data.context", context)])
        for name, digest, context in (("train", "aaa", "training"), ("test", "bbb", "testing"))
    ]
    run = Run(artifacts.run.info, artifacts.run.data, RunInputs(inputs))
    assert VersionArtifacts(**{**vars(artifacts), "run": run}).held_out_digest == "bbb"
    assert artifacts.held_out_digest == ""
