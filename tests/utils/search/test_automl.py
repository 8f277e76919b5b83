import json
import time
from typing import Any, Literal

import numpy as np
import pytest
from pydantic import ValidationError

from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import AutoModel, BoostedTrees, ConstantModel
from model_name.errors import ConfigError, DataError
from model_name.utils.search.automl import AutoSearcher
from model_name.utils.search.objective import SearchProblem
from model_name.utils.search.portfolio import Candidate, portfolio, trees_cost
from model_name.utils.splitters import RandomSplitter, TimeSplitter

SMALL = [
    Candidate({"KIND": "BoostedTrees"}, cost=1.0),
    Candidate({"KIND": "LinearModel"}),
    Candidate({"KIND": "BoostedTrees", "max_iter": 5}, cost=0.1),
    Candidate({"KIND": "LinearModel", "alpha": 9.0}),
]
DECIDING = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}


@pytest.fixture
def small_portfolio(monkeypatch):
    """Replace the portfolio by four configs that are fitted in no time."""
    monkeypatch.setattr("model_name.utils.search.automl.portfolio", lambda: SMALL)


@pytest.fixture
def validated(make_schema, make_table, task):
    return dataframes.check_frame(make_table(task, rows=300), make_schema(task)).frame


def searcher(**changes: Any) -> AutoSearcher:
    given = {"folds": 3, "kinds": ["BoostedTrees", "LinearModel"], "max_trials": 4}
    return AutoSearcher.model_validate(given | changes)


@pytest.fixture
def search(make_schema, make_table):
    def run(task="regression", rows=300, splitter=None, **changes):
        frame = dataframes.check_frame(make_table(task, rows=rows), make_schema(task)).frame
        journal, progress = changes.pop("journal", None), changes.pop("progress", None)
        metric = Metric(name=DECIDING[task])
        problem = SearchProblem(AutoModel(), make_schema(task), frame, metric, splitter or TimeSplitter())
        return searcher(**changes).search(problem, journal=journal, progress=progress)

    return run


def test_blend_is_made_of_the_best_configs(small_portfolio, search, validated, task, make_schema):
    result = search(task)
    # the default trees came first, and all were scored on the folds
    assert [trial.params for trial in result.trials] == [candidate.params for candidate in SMALL]
    assert all(len(trial.fold_scores) == 3 and not trial.reason for trial in result.trials)
    # the blend is no worse than any of them
    metric = Metric(name=DECIDING[task])
    assert not any(metric.is_better(trial.score, result.best.score * (1 + 1e-3)) for trial in result.trials[:1])
    # and its params build a model
    model = AutoModel().with_params(**result.best_params).fit(make_schema(task), validated)
    assert len(model.predict(validated)) == len(validated)
    assert json.loads(json.dumps(result.best_params)) == result.best_params


def test_configs_are_suggested_after_the_portfolio(small_portfolio, search):
    result = search(max_trials=7)
    params = [json.dumps(trial.params, sort_keys=True) for trial in result.trials]
    assert len(set(params)) == 7


@pytest.mark.parametrize("done", [1, 3])
def test_killed_search_is_resumed_to_the_same_result(small_portfolio, search, tmp_path, done):
    whole = search(max_trials=5)
    # given a search that was killed after some trials
    search(max_trials=done, journal=tmp_path / "s.jsonl")
    reports = []
    # when it is resumed
    resumed = search(max_trials=5, journal=tmp_path / "s.jsonl", progress=lambda *report: reports.append(report))
    # then only the missing trials are run, and the result is the same
    assert len(reports) == 5 - done
    assert resumed.trials == whole.trials
    assert resumed.best.params == whole.best.params


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:50]), id="truncated"),
    ],
)
def test_search_restarts_if_predictions_are_missing(small_portfolio, search, tmp_path, damage):
    first = search(journal=tmp_path / "s.jsonl")
    damage(next((tmp_path / "s").rglob("0001.npz")))
    reports = []
    again = search(journal=tmp_path / "s.jsonl", progress=lambda *report: reports.append(report))
    assert len(reports) == 4
    assert again.trials == first.trials


def test_default_trees_are_tried_with_any_budget(search):
    result = search(budget_seconds=0.001, kinds=["LinearModel"])
    assert [trial.params for trial in result.trials] == [{"KIND": "BoostedTrees"}]
    assert result.best_params == {"members": [{"KIND": "BoostedTrees"}], "weights": [1.0]}


class Sleeper(ConstantModel):
    """Fits in ten steps of one second, with progress after each."""

    KIND: Literal["TestSleeper"] = "TestSleeper"

    def fit_matrix(self, matrix, targets, context):
        for step in range(10):
            time.sleep(1)
            context.progress(step + 1, 10, "")
        super().fit_matrix(matrix, targets, context)


class Stumbler(ConstantModel):
    """Fails to fit."""

    KIND: Literal["TestStumbler"] = "TestStumbler"

    def fit_matrix(self, matrix, targets, context):
        raise DataError("there is a hole in the data")


def test_config_that_would_exceed_the_budget_is_aborted(monkeypatch, search):
    monkeypatch.setattr("model_name.utils.search.automl.portfolio", lambda: SMALL[:1])
    # given a budget that suffices for the default trees but not for three fits of ten seconds
    result = search(kinds=["TestSleeper"], budget_seconds=20, max_trials=2)
    slow = result.trials[1]
    assert "longer than the budget" in slow.reason
    assert slow.seconds < 3


def test_failing_kind_is_recorded_and_not_selected(small_portfolio, search):
    result = search(kinds=["BoostedTrees", "TestStumbler"], max_trials=3)
    failed = next(trial for trial in result.trials if trial.params["KIND"] == "TestStumbler")
    assert failed.reason == "fold 1: there is a hole in the data"
    assert all(member["KIND"] == "BoostedTrees" for member in result.best.params["members"])


def test_large_table_is_sampled_uniformly_and_in_order(make_schema, make_table):
    frame = dataframes.check_frame(make_table("regression", rows=1000), make_schema("regression")).frame
    sample = searcher(max_rows=100)._sample(frame)
    assert len(sample) == 100
    assert sample["moment"].is_monotonic_increasing
    assert np.ptp(sample.index) > 900


@pytest.mark.parametrize(("rows", "folds"), [(300, 5), (6000, 3)])
def test_small_table_has_more_folds(small_portfolio, search, rows, folds):
    result = search(rows=rows, folds=None, max_trials=1, splitter=RandomSplitter())
    assert len(result.trials[0].fold_scores) == folds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"kinds": ["Trees"]}, "kinds: Trees cannot be chosen", id="an unknown kind"),
        pytest.param({"kinds": ["AutoModel"]}, "kinds: AutoModel cannot be chosen", id="a blend in a blend"),
    ],
)
def test_unknown_kinds_are_refused(search, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        search(**changes)


def test_model_other_than_auto_model_is_refused(make_schema, make_table):
    frame = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    problem = SearchProblem(BoostedTrees(), make_schema("regression"), frame, Metric(name="rmse"), TimeSplitter())
    with pytest.raises(ConfigError, match="members of an AutoModel, not of BoostedTrees"):
        searcher().search(problem)


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [("30s", 30), ("10m", 600), ("1.5h", 5400), (12, 12), (0.5, 0.5)],
)
def test_budget_is_a_duration(budget, seconds):
    assert searcher(budget_seconds=budget).budget_seconds == seconds


@pytest.mark.parametrize("budget", [0, "0s", -3, "soon", float("inf"), float("nan"), None, True])
def test_invalid_budget_is_refused(budget):
    with pytest.raises(ValidationError):
        searcher(budget_seconds=budget)


def test_every_config_of_the_portfolio_builds_a_model(make_schema, validated, task):
    from model_name.core.models import build_model

    configs = [candidate.params for candidate in portfolio()]
    assert configs[0] == {"KIND": "BoostedTrees"}
    assert len({json.dumps(params, sort_keys=True) for params in configs}) == len(configs)
    for params in configs:
        assert params["KIND"] == build_model(params).KIND


def test_cost_grows_with_number_and_size_of_trees():
    costs = [trees_cost({}), trees_cost({"max_iter": 200}), trees_cost({"max_iter": 200, "max_leaf_nodes": 63})]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(1)
