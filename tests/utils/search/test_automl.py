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
def few(monkeypatch):
    """Four configs to begin with, that take no time."""
    monkeypatch.setattr("model_name.utils.search.automl.portfolio", lambda: SMALL)


@pytest.fixture
def checked(make_schema, make_table, task):
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


def test_the_blend_is_a_model_of_the_best_configs(few, search, checked, task, make_schema):
    found = search(task)
    # the default trees came first, and all were judged on the folds
    assert [trial.params for trial in found.trials] == [candidate.params for candidate in SMALL]
    assert all(len(trial.fold_scores) == 3 and not trial.reason for trial in found.trials)
    # the blend is no worse than any of them there
    metric = Metric(name=DECIDING[task])
    assert not any(metric.is_better(trial.score, found.best.score * (1 + 1e-3)) for trial in found.trials[:1])
    # and its params make a model
    model = AutoModel().with_params(**found.best_params).fit(make_schema(task), checked)
    assert len(model.predict(checked)) == len(checked)
    assert json.loads(json.dumps(found.best_params)) == found.best_params


def test_proposals_follow_where_the_known_configs_end(few, search):
    found = search(max_trials=7)
    params = [json.dumps(trial.params, sort_keys=True) for trial in found.trials]
    assert len(set(params)) == 7


@pytest.mark.parametrize("done", [1, 3])
def test_a_killed_search_goes_on_to_the_same_end(few, search, tmp_path, done):
    whole = search(max_trials=5)
    # given a search that was killed after some trials
    search(max_trials=done, journal=tmp_path / "s.jsonl")
    told = []
    # when it is begun again
    resumed = search(max_trials=5, journal=tmp_path / "s.jsonl", progress=lambda *words: told.append(words))
    # then only what is missing is tried, and the end is the same
    assert len(told) == 5 - done
    assert resumed.trials == whole.trials
    assert resumed.best.params == whole.best.params


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:50]), id="cut off"),
    ],
)
def test_without_its_answers_a_search_begins_anew(few, search, tmp_path, spoil):
    first = search(journal=tmp_path / "s.jsonl")
    spoil(next((tmp_path / "s").rglob("0001.npz")))
    told = []
    again = search(journal=tmp_path / "s.jsonl", progress=lambda *words: told.append(words))
    assert len(told) == 4
    assert again.trials == first.trials


def test_the_least_budget_still_tries_the_default_trees(search):
    found = search(budget_seconds=0.001, kinds=["LinearModel"])
    assert [trial.params for trial in found.trials] == [{"KIND": "BoostedTrees"}]
    assert found.best_params == {"members": [{"KIND": "BoostedTrees"}], "weights": [1.0]}


class Sleeper(ConstantModel):
    """Takes ten steps of a second, and tells of each."""

    KIND: Literal["TestSleeper"] = "TestSleeper"

    def fit_matrix(self, matrix, targets, context):
        for step in range(10):
            time.sleep(1)
            context.progress(step + 1, 10, "")
        super().fit_matrix(matrix, targets, context)


class Stumbler(ConstantModel):
    """Cannot be fitted."""

    KIND: Literal["TestStumbler"] = "TestStumbler"

    def fit_matrix(self, matrix, targets, context):
        raise DataError("there is a hole in the data")


def test_what_would_take_too_long_is_given_up(monkeypatch, search):
    monkeypatch.setattr("model_name.utils.search.automl.portfolio", lambda: SMALL[:1])
    # given a budget that is enough for the default trees but not for three fits of ten seconds
    found = search(kinds=["TestSleeper"], budget_seconds=20, max_trials=2)
    slow = found.trials[1]
    assert "longer than the budget" in slow.reason
    assert slow.seconds < 3


def test_a_kind_that_fails_is_told_and_left_out(few, search):
    found = search(kinds=["BoostedTrees", "TestStumbler"], max_trials=3)
    stumbled = next(trial for trial in found.trials if trial.params["KIND"] == "TestStumbler")
    assert stumbled.reason == "fold 1: there is a hole in the data"
    assert all(member["KIND"] == "BoostedTrees" for member in found.best.params["members"])


def test_a_large_table_is_drawn_from_evenly_and_in_order(make_schema, make_table):
    frame = dataframes.check_frame(make_table("regression", rows=1000), make_schema("regression")).frame
    drawn = searcher(max_rows=100)._sample(frame)
    assert len(drawn) == 100
    assert drawn["moment"].is_monotonic_increasing
    assert np.ptp(drawn.index) > 900


@pytest.mark.parametrize(("rows", "folds"), [(300, 5), (6000, 3)])
def test_small_tables_have_more_folds(few, search, rows, folds):
    found = search(rows=rows, folds=None, max_trials=1, splitter=RandomSplitter())
    assert len(found.trials[0].fold_scores) == folds


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"kinds": ["Trees"]}, "kinds: Trees cannot be chosen", id="an unknown kind"),
        pytest.param({"kinds": ["AutoModel"]}, "kinds: AutoModel cannot be chosen", id="a blend in a blend"),
    ],
)
def test_kinds_must_be_such_as_there_are(search, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        search(**changes)


def test_it_chooses_for_an_auto_model_alone(make_schema, make_table):
    frame = dataframes.check_frame(make_table("regression"), make_schema("regression")).frame
    problem = SearchProblem(BoostedTrees(), make_schema("regression"), frame, Metric(name="rmse"), TimeSplitter())
    with pytest.raises(ConfigError, match="members of an AutoModel, not of BoostedTrees"):
        searcher().search(problem)


@pytest.mark.parametrize(
    ("budget", "seconds"),
    [("30s", 30), ("10m", 600), ("1.5h", 5400), (12, 12), (0.5, 0.5)],
)
def test_a_budget_is_a_duration(budget, seconds):
    assert searcher(budget_seconds=budget).budget_seconds == seconds


@pytest.mark.parametrize("budget", [0, "0s", -3, "soon", float("inf"), float("nan"), None, True])
def test_no_budget_is_no_search(budget):
    with pytest.raises(ValidationError):
        searcher(budget_seconds=budget)


def test_every_config_of_the_portfolio_is_one_of_its_kind(make_schema, checked, task):
    from model_name.core.models import build_model

    configs = [candidate.params for candidate in portfolio()]
    assert configs[0] == {"KIND": "BoostedTrees"}
    assert len({json.dumps(params, sort_keys=True) for params in configs}) == len(configs)
    for params in configs:
        assert params["KIND"] == build_model(params).KIND


def test_more_and_larger_trees_cost_more():
    costs = [trees_cost({}), trees_cost({"max_iter": 200}), trees_cost({"max_iter": 200, "max_leaf_nodes": 63})]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(1)
