"""Evaluations: intervals, differences, curves, slices and learning curve; decisions that training fits."""

import json
import math

import mlflow
import numpy as np
import pandas as pd
import pytest

from model_name.core.decisions.conformal import SplitConformal
from model_name.core.decisions.decision import Decision
from model_name.errors import ConfigError, DataError
from model_name.results import EvaluationResult
from model_name.runner import run_job
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.settings import load_job
from model_name.training.export import check_parity, parity_rows
from tests.support import projects, tables

COSTLY = "job.costs={false_positive: 1, false_negative: 5}"
OPTIONS = [
    pytest.param("regression", [], id="intervals"),
    pytest.param("binary", ["job.calibration=sigmoid"], id="sigmoid"),
    pytest.param("binary", ["job.calibration=isotonic"], id="isotonic"),
    pytest.param("binary", [COSTLY], id="costs"),
    pytest.param("binary", [COSTLY, "job.calibration=isotonic"], id="costs and isotonic"),
    pytest.param("multiclass", ["job.calibration=temperature"], id="temperature"),
]


def run(confs, step, *sets):
    job = load_job([confs / f"{step}.yaml"], sets)
    with job:
        return job.run()


def loaded(confs, version="1"):
    job = load_job([confs / "training.yaml"])
    with job:
        return job.registry.load(version)


def numbers(document):
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        return [number for part in document for number in numbers(part)]
    return [document] if isinstance(document, float) else []


@pytest.mark.parametrize(("task", "sets"), OPTIONS)
def test_pyfunc_bundle_and_batch_give_equal_predictions(tmp_path, task, sets):
    # given a version with the option
    confs = projects.make_project(tmp_path, task)
    run(confs, "training", *sets)
    rows = tables.order_table(task, seed=9).drop(columns="amount")
    bundle = Bundle.load(tmp_path / "build/bundles/orders/1")
    # when all three predict the same rows
    job = load_job([confs / "training.yaml"])
    with job:
        expected = mlflow.pyfunc.load_model("models:/orders/1").predict(rows)
        model = job.registry.load("1")
    served = DataPlane(bundle).predict({name: rows[name].to_numpy() for name in rows})
    rows.to_parquet(tmp_path / "new.parquet")
    table = f"job.table={{KIND: ParquetReader, path: {tmp_path}/new.parquet}}"
    folder = run(confs, "inference", "job.ref=latest", table).outputs
    batch = pd.read_parquet(folder)
    # then their predictions are equal, by the same decision
    assert bundle.manifest.decision == model.decision != Decision()
    assert check_parity(model, bundle, parity_rows(model.schema_, rows)) <= 1e-4
    if task == "regression":
        np.testing.assert_allclose(served.prediction, expected["prediction"], rtol=1e-4)
        np.testing.assert_allclose(batch["prediction"], served.prediction, rtol=1e-6)
    else:
        assert np.mean(served.prediction == expected["prediction"]) > 0.99
        np.testing.assert_allclose(served.probabilities, expected.iloc[:, 1:], atol=1e-3)
        assert batch["prediction"].tolist() == served.prediction.tolist()


@pytest.fixture(scope="module", params=["regression", "binary", "multiclass"])
def evaluated(request, tmp_path_factory):
    """Evaluate a second version against a champion, with all options of its task."""
    task = request.param
    confs = projects.make_project(tmp_path_factory.mktemp(task), task, tables.order_table(task, rows=2400))
    sets = {"regression": [], "binary": [COSTLY, "job.calibration=isotonic"], "multiclass": []}[task]
    for step in ("training", "evaluations", "promotion"):
        run(confs, step)
    run(confs, "training", "job.model={KIND: BoostedTrees, max_iter: 5}", *sets)
    return task, run(confs, "evaluations")


def test_a_result_is_json_without_nan(evaluated):
    _, result = evaluated
    document = result.model_dump_json()
    assert EvaluationResult.model_validate_json(document) == result
    assert all(map(math.isfinite, numbers(json.loads(document))))


def test_every_metric_lies_in_its_interval(evaluated):
    _, result = evaluated
    assert list(result.intervals) == list(result.metrics)
    for name, value in result.metrics.items():
        assert result.intervals[name].low < value < result.intervals[name].high
    assert result.resampled == "20 days, drawn 500 times"


def test_the_version_is_compared_with_champion_and_references(evaluated):
    _, result = evaluated
    first = result.measures[0]
    others = {"champion": result.champion.metrics} | result.references
    assert [each.against for each in result.differences] == ["champion", "constant", "default trees"]
    for each in result.differences:
        assert each.metric == first.name
        assert each.value == pytest.approx(result.metrics[first.name] - others[each.against][first.name])
        assert each.low <= each.value <= each.high
    # Five trees are significantly better than a constant, and worse than thirty.
    champion, constant, _ = (
        each if first.greater_is_better else each.model_copy(update={"low": -each.high, "high": -each.low})
        for each in result.differences
    )
    assert champion.high < 0 < constant.low


def test_the_curves_are_those_of_the_task(evaluated):
    task, result = evaluated
    present = {name for name, value in result.curves if value}
    assert (
        present
        == {
            "regression": {"predicted", "residuals", "coverage"},
            "binary": {"roc", "precision_recall", "calibration", "confusion"},
            "multiclass": {"calibration", "confusion"},
        }[task]
    )
    assert (result.calibration_error is None) == (task == "regression")
    assert sum(map(sum, result.curves.confusion)) == (0 if task == "regression" else result.rows)


def test_the_learning_curve_ends_with_all_rows(evaluated):
    _, result = evaluated
    assert [point.rows for point in result.learning] == [192, 480, 960, 1920]
    assert result.learning_skipped == ""


def test_costs_are_reported_at_the_threshold_and_at_one_half(evaluated):
    task, result = evaluated
    if task != "binary":
        assert result.threshold is None
        return
    assert result.threshold.cost <= result.threshold.cost_at_half
    assert result.threshold.costs.false_negative == 5
    assert result.calibration_error_before is not None


def test_intervals_have_their_nominal_coverage(tmp_path):
    # given noise that grows with the prediction, on rows without a time order
    random = np.random.default_rng(0)
    frame = tables.order_table(rows=9000)
    frame["amount"] = frame["size"].fillna(10) + random.normal(0, 1, 9000) * frame["size"].fillna(10).clip(0) / 5
    confs = projects.make_project(tmp_path, frame=frame, splitter={"KIND": "RandomSplitter"})
    # when
    run(confs, "training")
    result = run(confs, "evaluations")
    # then
    assert [each.level for each in result.curves.coverage] == [0.8, 0.9, 0.95]
    for each in result.curves.coverage:
        assert each.observed == pytest.approx(each.level, abs=0.03)
    halves = np.array(loaded(confs).decision.intervals.halves)
    assert (halves[:, -1] > 2 * halves[:, 0]).all()


def test_a_slice_with_larger_errors_is_found(tmp_path):
    frame = tables.order_table(rows=3000)
    is_bad = (frame["region"] == "south") & frame["moment"].dt.hour.isin([22, 23])
    frame["amount"] += np.where(is_bad, np.random.default_rng(0).choice([-20, 20], 3000), 0)
    confs = projects.make_project(tmp_path, frame=frame)
    run(confs, "training")
    worst = run(confs, "evaluations").worst_slices[0]
    assert {"region is south", "moment hour 22 to 23"} == set(worst.words.split(" and "))
    assert worst.share > 0.5
    assert worst.ratio > 10
    assert worst.metrics["rmse"] > 10


@pytest.mark.parametrize(
    ("task", "sets", "reason"),
    [
        pytest.param(
            "regression", [COSTLY], "job.costs choose the threshold of a binary target", id="costs of numbers"
        ),
        pytest.param("multiclass", [COSTLY], "this one is a multiclass", id="costs of many classes"),
        pytest.param("multiclass", ["job.calibration=isotonic"], "does not fit a multiclass target", id="isotonic"),
        pytest.param("regression", ["job.calibration=sigmoid"], "does not fit a regression target", id="sigmoid"),
    ],
)
def test_an_option_that_does_not_fit_the_task_is_refused_before_the_fit(tmp_path, task, sets, reason):
    confs = projects.make_project(tmp_path, task)
    with pytest.raises(ConfigError, match=reason):
        run(confs, "training", *sets)


def test_intervals_can_be_disabled(tmp_path):
    confs = projects.make_project(tmp_path)
    run(confs, "training", "job.interval=null")
    result = run(confs, "evaluations", "job.learning_curve_seconds=0")
    assert loaded(confs).decision == Decision()
    assert (result.curves.coverage, result.learning) == ((), ())
    assert result.learning_skipped == "job.learning_curve_seconds is 0"


def test_a_learning_curve_that_would_take_too_long_is_skipped_with_the_reason(tmp_path):
    confs = projects.make_project(tmp_path)
    run(confs, "training")
    result = run(confs, "evaluations", "job.learning_curve_seconds=0.000001")
    assert result.learning == ()
    assert "more than job.learning_curve_seconds (1e-06)" in result.learning_skipped


def test_sixty_rows_of_which_twelve_are_held_out_are_evaluated(tmp_path):
    confs = projects.make_project(tmp_path, frame=tables.order_table(rows=60), metrics=[{"name": "rmse"}])
    run(confs, "training")
    result = run(confs, "evaluations")
    assert result.rows == 12
    assert result.resampled == "12 rows, drawn 500 times"
    assert result.worst_slices == ()
    assert len(result.curves.residuals) == 1


def test_points_of_curves_are_printed_as_json_only(tmp_path, capsys):
    confs = projects.make_project(tmp_path, frame=tables.order_table(rows=60))
    run(confs, "training")
    shown = {}
    for as_json in (False, True):
        capsys.readouterr()
        run_job(load_job([confs / "evaluations.yaml"]), as_json=as_json)
        shown[as_json] = capsys.readouterr().out
    assert "curves" not in shown[False]
    assert len(json.loads(shown[True])["curves"]["predicted"]) == 12


def test_a_training_part_of_one_day_is_trained_without_intervals(tmp_path, capsys):
    frame = tables.order_table(rows=30)  # the training part is the first of two days
    confs = projects.make_project(tmp_path, frame=frame, metrics=[{"name": "rmse"}])
    run(confs, "training")
    assert loaded(confs).decision == Decision()
    assert "no prediction intervals: moment: the table holds a single day" in capsys.readouterr().err


def test_a_calibration_that_cannot_be_fitted_stops_the_training(tmp_path):
    # given a class that is only seen on the last day of the training part
    frame = tables.order_table("binary", rows=600)
    frame["amount"] = np.where(frame.index < 470, "low", frame["amount"])
    confs = projects.make_project(tmp_path, "binary", frame)
    with pytest.raises(DataError, match="costs and calibration need a training part to split"):
        run(confs, "training", "job.calibration=sigmoid")


def test_costs_and_calibration_are_part_of_the_recipe(tmp_path):
    confs = projects.make_project(tmp_path, "binary")
    versions = [run(confs, "training", *sets).semver for sets in ([], [COSTLY], [COSTLY], ["job.calibration=sigmoid"])]
    assert versions == ["1.0.0", "1.1.0", "1.1.1", "1.2.0"]


def test_an_evaluation_of_an_older_release_can_be_read():
    old = {
        "accepted": True, "version": "1", "semver": "1.0.0", "rows": 5, "measures": [], "metrics": {},
        "references": {}, "champion": None, "slices": [],
    }  # fmt: skip
    assert EvaluationResult.model_validate_json(json.dumps(old)).intervals == {}


def test_the_intervals_of_a_training_job_are_configured_by_level():
    assert SplitConformal.model_validate({"levels": [0.5]}).levels == (0.5,)
