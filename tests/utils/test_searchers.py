"""Searchers of hyperparameters. Run as a script, this module is a slow search that a test kills."""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter

from model_name.core.features import Matrix
from model_name.core.metrics import Metric
from model_name.core.models import BoostedTrees, FitContext, Model
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError, StorageError
from model_name.utils.search.objective import SearchProblem
from model_name.utils.search.trials import SearchResult, Trial
from model_name.utils.searchers import GridSearcher, OptunaSearcher, Searcher
from model_name.utils.splitters import RandomSplitter, TimeSplitter

ROOT = Path(__file__).parents[2]
RMSE = Metric(name="rmse")
SPACE = {"slope": {"low": 0.5, "high": 4.0}, "offset": {"low": -3, "high": 3}, "shape": ["line", "bend", None]}


class Line(Model):
    """Model without a fit, so that trials take no time; it fails above a slope that a test sets."""

    # A factory instead of a default, so that the kind is not registered for other tests.
    KIND: str = Field(default_factory=lambda: "Line")
    slope: float = Field(1.0, gt=0)
    offset: int = 0
    shape: str | None = "line"
    failing_above: float = 99.0
    failure: str = ""

    def fit_matrix(self, matrix: Matrix, targets: Any, context: FitContext) -> None:
        if self.slope > self.failing_above and self.failure == "data":
            raise DataError("there is a hole in the data", hint="repair it")
        if self.slope > self.failing_above and self.failure == "bug":
            raise ZeroDivisionError("a bug of the model")

    def score_matrix(self, matrix: Matrix) -> Any:
        if self.slope > self.failing_above and self.failure == "nan":
            return np.full(len(matrix), np.nan)
        numbers = matrix[:, 0].astype(np.float64)
        return self.slope * (numbers if self.shape == "line" else abs(numbers)) + self.offset

    def to_onnx(self) -> onnx.ModelProto:
        raise NotImplementedError


def schema() -> TableSchema:
    columns = {"x": {"kind": "numeric"}, "when": {"kind": "datetime", "feature": False}}
    target = {"name": "y", "task": "regression"}
    return TableSchema.model_validate({"name": "table", "target": target, "time": "when", "columns": columns})


def table(*, slope: float = 2.0) -> pd.DataFrame:
    numbers = np.random.default_rng(1).normal(size=60)
    moments = np.datetime64("2024-01-01", "us") + np.arange(60) * np.timedelta64(6, "h")
    return pd.DataFrame({"x": numbers, "when": moments, "y": slope * numbers + 1})


def grid(**changes: Any) -> GridSearcher:
    return GridSearcher.model_validate({"space": SPACE, "folds": 2} | changes)


def optuna(**changes: Any) -> OptunaSearcher:
    return OptunaSearcher.model_validate({"space": SPACE, "folds": 2, "trials": 16} | changes)


def search(
    searcher: Searcher, model: Model | None = None, frame: pd.DataFrame | None = None, **changes: Any
) -> SearchResult:
    problem = SearchProblem(
        model or Line(),
        schema(),
        table() if frame is None else frame,
        changes.pop("metric", RMSE),
        changes.pop("splitter", TimeSplitter()),
    )
    return searcher.search(problem, **changes)


# The space


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        pytest.param(
            {"slpoe": [1.0]}, "slpoe is not a hyperparameter of Line; did you mean slope", id="a misspelt name"
        ),
        pytest.param({"KIND": ["Line"]}, "KIND is not a hyperparameter", id="the kind"),
        pytest.param(
            {"slope": [1.0, -1.0]},
            "space.slope: Line does not accept -1.0: Input should be greater",
            id="a choice that the model rejects",
        ),
        pytest.param(
            {"slope": {"low": 0.0, "high": 1.0}},
            "space.slope: Line does not accept 0.0",
            id="a bound that the model rejects",
        ),
        pytest.param(
            {"offset": {"low": 0.0, "high": 1.0}}, "space.offset: Line does not accept 0.0", id="floats for an integer"
        ),
        pytest.param({"shape": ["line", 3]}, "space.shape: Line does not accept 3", id="a choice of the wrong type"),
        pytest.param({}, "the space of the search is empty", id="an empty space"),
    ],
)
@pytest.mark.parametrize("make", [grid, optuna])
def test_space_that_does_not_fit_the_model_is_refused_before_the_search(make, space, reason, tmp_path):
    # given
    journal = tmp_path / "journal.jsonl"
    # then
    with pytest.raises(ConfigError, match=reason) as caught:
        search(make(space=space), journal=journal)
    assert caught.value.hint
    assert not journal.exists()


@pytest.mark.parametrize("searcher", [grid(points=4), optuna(seed=3)], ids=lambda searcher: searcher.KIND)
def test_searcher_survives_serialization(searcher):
    adapter = TypeAdapter(GridSearcher | OptunaSearcher)
    assert adapter.validate_json(adapter.dump_json(searcher)) == searcher
    assert searcher.model_dump()["space"]["shape"] == ("line", "bend", None)


# The trials


def test_grid_is_searched_in_order():
    # given
    space = {"slope": {"low": 1.0, "high": 3.0}, "shape": ["line", "bend"]}
    # when
    result = search(grid(space=space))
    # then
    assert [tuple(trial.params.values()) for trial in result.trials] == [
        (1.0, "line"),  # the model's own hyperparameters
        (1.0, "line"),
        (1.0, "bend"),
        (2.0, "line"),
        (2.0, "bend"),
        (3.0, "line"),
        (3.0, "bend"),
    ]
    assert result.best.number == 3
    assert result.best_params == {"slope": 2.0, "shape": "line"}


def test_too_large_grid_is_refused_with_its_size():
    with pytest.raises(ConfigError, match=r"the grid has 63 points, more than max_trials: 62") as caught:
        search(
            grid(
                max_trials=62,
                points=7,
                space=SPACE | {"shape": ["line", "bend", None], "slope": {"low": 1.0, "high": 2.0, "step": 0.5}},
            )
        )
    assert "OptunaSearcher" in caught.value.hint


def test_score_is_the_mean_over_the_folds():
    # given
    frame, folds = table(), list(TimeSplitter().folds(table(), schema(), 3))
    # when
    trial = search(grid(folds=3, space={"slope": [2.0]})).trials[1]
    # then: with the true slope, the error is the offset of 1
    assert trial.fold_scores == pytest.approx((1.0, 1.0, 1.0))
    own = search(grid(folds=3, space={"slope": [2.0]})).trials[0]
    assert own.fold_scores == pytest.approx(
        [RMSE.score(frame["y"].iloc[test], Line().fit(schema(), frame).outputs(frame.iloc[test])) for _, test in folds]
    )
    assert own.score == pytest.approx(sum(own.fold_scores) / 3)


@pytest.mark.parametrize("make", [grid, optuna])
def test_own_hyperparameters_are_tried_first_and_may_be_best(make):
    # given: no better model is in the space
    model = Line(slope=2.0, offset=1)
    # when
    result = search(make(space={"slope": {"low": 3.0, "high": 4.0}}), model)
    # then
    assert result.trials[0].params == {"slope": 2.0}
    assert result.best is result.trials[0]
    assert result.best.score == pytest.approx(0.0, abs=1e-6)
    assert result.best_params == {}
    assert model == Line(slope=2.0, offset=1), "the model itself is unchanged"


def test_highest_score_is_best_for_a_metric_to_maximise():
    # when
    result = search(optuna(), metric=Metric(name="r2"))
    # then
    assert result.best.score == max(trial.score for trial in result.trials)
    assert result.metric == "r2"


def test_trials_depend_on_the_seed():
    # when
    once, again, other = (search(optuna(seed=seed)) for seed in (7, 7, 8))
    # then
    assert once.trials == again.trials
    assert once.trials[0] == other.trials[0]
    assert once.trials != other.trials


def test_sampled_trials_are_in_the_space():
    # given
    searcher = optuna(trials=40, space=SPACE | {"slope": {"low": 0.5, "high": 4.0, "step": 0.25}})
    # when
    result = search(searcher)
    # then
    assert [trial.number for trial in result.trials] == list(range(40))
    for trial in result.trials:
        assert searcher.space["slope"].contains(trial.params["slope"])
        assert searcher.space["offset"].contains(trial.params["offset"])
        assert trial.params["shape"] in ("line", "bend", None)
    assert result.best.score < result.trials[0].score


@pytest.mark.parametrize(
    ("metric", "best_slope"),
    [
        pytest.param(RMSE, 1.0, id="a metric to minimise"),
        pytest.param(Metric(name="r2"), 4.0, id="a metric to maximise"),
    ],
)
def test_sampler_learns_from_earlier_trials(metric, best_slope):
    # given: the score grows with the slope
    searcher = optuna(space={"slope": {"low": 1.0, "high": 4.0}})
    slopes = np.linspace(1.0, 4.0, 21).tolist()
    before = [Trial(number, {"slope": slope}, slope, (slope,), 1.0) for number, slope in enumerate(slopes)]
    # when
    suggested = [searcher.suggest(number, before, metric)["slope"] for number in range(21, 31)]
    # then
    assert abs(np.median(suggested) - best_slope) < 0.5


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        pytest.param("data", "fold 1: there is a hole in the data", id="data that cannot be fitted"),
        pytest.param("nan", "fold 1: rmse is nan on its held-out rows", id="a score of NaN"),
    ],
)
@pytest.mark.parametrize("make", [grid, optuna])
def test_failed_trial_is_recorded_and_never_best(make, failure, reason, tmp_path):
    # given: the trials that would be best fail
    model = Line(failure=failure, failing_above=1.5)
    journal = tmp_path / "journal.jsonl"
    # when
    result = search(make(), model, journal=journal)
    again = search(make(), model, journal=journal)
    # then
    failed = [trial for trial in result.trials if trial.params["slope"] > 1.5]
    assert failed
    assert {trial.reason for trial in failed} == {reason}
    assert all(math.isnan(trial.score) and trial.fold_scores == () for trial in failed)
    assert result.best not in failed
    assert again == result


def test_unexpected_error_of_a_model_ends_the_search():
    with pytest.raises(ZeroDivisionError, match="a bug of the model"):
        search(grid(), Line(failure="bug", failing_above=1.5))


def test_search_fails_if_all_trials_fail():
    with pytest.raises(DataError, match="all 4 trials failed; the first one: fold 1: there is a hole"):
        search(grid(space={"slope": [1.0, 2.0, 3.0]}), Line(failure="data", failing_above=0.1))


def test_metric_of_another_task_is_refused():
    with pytest.raises(ConfigError, match="roc_auc does not fit a regression target"):
        search(grid(), metric=Metric(name="roc_auc"))


def test_search_fails_if_the_table_is_too_small_for_the_folds():
    with pytest.raises(DataError, match="too few"):
        search(grid(), frame=table().iloc[[0, 59]])


def test_hyperparameters_of_boosted_trees_are_searched():
    # given
    space = {"learning_rate": {"low": 0.05, "high": 0.5, "log": True}, "max_depth": [2, None]}
    # when
    result = search(grid(space=space, points=2), BoostedTrees(max_iter=3, min_samples_leaf=5))
    # then
    assert result.best_params["learning_rate"] == 0.5
    assert result.best.score < result.trials[0].score


def test_progress_is_reported_after_each_trial():
    # given
    reports: list[tuple[int, int, str]] = []
    # when
    search(
        grid(space={"slope": [1.5, 3.0, 2.0]}),
        Line(failure="data", failing_above=2.5),
        progress=lambda *report: reports.append(report),
    )
    # then
    assert [(done, total) for done, total, _ in reports] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    scores = [message.split(",")[0] for _, _, message in reports]
    assert reports[0][2].startswith("rmse ")
    assert reports[2][2] == f"failed (fold 1: there is a hole in the data), best {scores[1].removeprefix('rmse ')}"
    assert reports[3][2] == "rmse 1, best 1"


def test_frame_has_one_row_per_trial():
    # when
    result = search(grid(space={"slope": [2.0, 3.0]}), Line(failure="data", failing_above=2.5))
    frame = result.to_frame()
    # then
    assert list(frame) == ["number", "param_slope", "score", "fold_1", "fold_2", "seconds", "reason"]
    assert frame["number"].tolist() == [0, 1, 2]
    assert frame["param_slope"].tolist() == [1.0, 2.0, 3.0]
    assert frame["score"].isna().tolist() == [False, False, True]
    assert frame["fold_2"].isna().tolist() == [False, False, True]


def test_no_trial_begins_once_the_budget_is_spent(tmp_path):
    # given: the journal of a search whose first trials took a day
    journal = tmp_path / "journal.jsonl"
    search(optuna(trials=3), journal=journal)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text(
        "".join(json.dumps(line | ({"seconds": 86_400.0} if "seconds" in line else {})) + "\n" for line in lines)
    )
    # when
    result = search(optuna(trials=9, budget_seconds=3_600.0), journal=journal)
    # then
    assert len(result.trials) == 3


# The journal


@pytest.mark.parametrize("make", [grid, optuna])
def test_finished_search_is_loaded_from_its_journal(make, tmp_path):
    # given
    journal = tmp_path / "deep" / "journal.jsonl"
    result = search(make(), journal=journal)
    written = journal.read_bytes()
    reports: list[Any] = []
    # when
    again = search(make(), journal=journal, progress=lambda *report: reports.append(report))
    # then
    assert again == result
    assert [trial.seconds for trial in again.trials] == [trial.seconds for trial in result.trials]
    assert not reports
    assert journal.read_bytes() == written


def test_search_with_more_trials_is_resumed_from_the_journal(tmp_path):
    # given
    journal = tmp_path / "journal.jsonl"
    search(optuna(trials=5), journal=journal)
    done_counts: list[int] = []
    # when
    result = search(optuna(trials=16), journal=journal, progress=lambda done, total, message: done_counts.append(done))
    # then
    assert done_counts == list(range(6, 17))
    assert result.trials == search(optuna(trials=16)).trials
    assert search(optuna(trials=5), journal=journal).trials == result.trials[:5]


@pytest.mark.parametrize(
    ("searcher", "changes"),
    [
        pytest.param(optuna(trials=3, seed=1), {}, id="another seed"),
        pytest.param(optuna(trials=3, folds=3), {}, id="other folds"),
        pytest.param(optuna(trials=3, space={"slope": [1.0, 2.0]}), {}, id="another space"),
        pytest.param(grid(space={"slope": [1.0, 2.0]}), {}, id="another searcher"),
        pytest.param(optuna(trials=3), {"model": Line(failing_above=98.0)}, id="another model"),
        pytest.param(optuna(trials=3), {"frame": table(slope=2.5)}, id="other data"),
        pytest.param(optuna(trials=3), {"frame": table()[::-1]}, id="another order of the rows"),
        pytest.param(optuna(trials=3), {"metric": Metric(name="mae")}, id="another metric"),
        pytest.param(optuna(trials=3), {"splitter": RandomSplitter()}, id="another splitter"),
    ],
)
def test_journal_of_another_search_is_replaced(searcher, changes, tmp_path):
    # given
    journal = tmp_path / "journal.jsonl"
    search(optuna(trials=3), journal=journal)
    before = journal.read_text().splitlines()
    # when
    result = search(searcher, journal=journal, **changes)
    # then
    after = journal.read_text().splitlines()
    assert after[0] != before[0]
    assert len(after) == 1 + len(result.trials)


@settings(max_examples=15, deadline=None)
@given(share=st.floats(0, 1))
def test_truncated_journal_leads_to_the_same_trials(share):
    # given
    searcher = grid(space={"slope": [1.5, 2.0, 3.0]})
    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory) / "journal.jsonl"
        result = search(searcher, journal=journal)
        whole = journal.read_bytes()
        # when
        journal.write_bytes(whole[: round(share * len(whole))])
        again = search(searcher, journal=journal)
        # then
        assert again == result
        assert len(journal.read_bytes().splitlines()) == len(whole.splitlines())


@pytest.mark.parametrize(
    "corruption",
    [
        pytest.param(b"\0" * 80 + b"\n", id="zeros of a disk that lost power"),
        pytest.param(b'{"number": 2}\n', id="a trial without scores"),
        pytest.param(b"[]\n", id="another JSON document"),
        pytest.param(
            b'{"number": 7, "params": {}, "score": 1.0, "fold_scores": [1.0], "seconds": 1.0}\n', id="another number"
        ),
    ],
)
def test_corrupt_line_of_the_journal_is_overwritten(corruption, tmp_path):
    # given
    journal = tmp_path / "journal.jsonl"
    searcher = grid(space={"slope": [1.5, 2.0, 3.0]})
    result = search(searcher, journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:3]) + corruption + b"".join(lines[3:]))
    # when
    again = search(searcher, journal=journal)
    # then
    assert again == result
    assert corruption not in journal.read_bytes()


def test_journal_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match="the journal of the search cannot be kept"):
        search(grid(), journal=tmp_path / "file" / "journal.jsonl")


def interrupted_search() -> OptunaSearcher:
    # More than the ten random trials after which Optuna begins to learn.
    return optuna(trials=30)


def test_killed_search_is_resumed_to_the_same_result(tmp_path):
    # given: a search process that is killed halfway
    journal = tmp_path / "journal.jsonl"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"}
    process = subprocess.Popen([sys.executable, __file__, str(journal)], env=environment)
    try:
        deadline = time.monotonic() + 180
        while not journal.exists() or journal.read_bytes().count(b"\n") < 6:
            assert process.poll() is None, "the process ended by itself"
            assert time.monotonic() < deadline, "the search makes no progress"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    done_counts: list[int] = []
    # when
    result = search(
        interrupted_search(), journal=journal, progress=lambda done, total, message: done_counts.append(done)
    )
    # then
    assert 6 <= done_counts[0] < 30
    assert result.trials == search(interrupted_search()).trials


if __name__ == "__main__":
    search(interrupted_search(), journal=Path(sys.argv[1]), progress=lambda done, total, message: time.sleep(0.1))
