"""What other releases have left behind is read as far as it is understood."""

import json

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Run, RunInputs

from model_name.reports.artifacts import Detail, Findings, evaluation_of

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


def test_an_older_evaluation_has_an_empty_detail():
    text = json.dumps(OLD)
    assert evaluation_of(text).metrics == {"rmse": 1.0}
    assert Detail.model_validate_json(text) == Detail()


def test_what_a_newer_release_has_added_is_skipped():
    text = json.dumps(OLD | {"novelty": 1, "curves": {"novelty": [], "roc": [{"x": 0, "y": 1, "novelty": 2}]}})
    assert evaluation_of(text).rows == 10
    assert [(point.x, point.y) for point in Detail.model_validate_json(text).curves.roc] == [(0, 1)]


@pytest.mark.parametrize(
    ("key", "found", "kept"),
    [
        pytest.param("intervals", {"a": {"low": None, "high": 1.0}, "b": {"low": 0.0, "high": 1.0}}, ["b"], id="ends"),
        pytest.param("intervals", {"a": None}, [], id="no interval"),
        pytest.param("learning", [{"rows": 5, "score": None}, {"rows": 9, "score": 1.0}], [(9, 1.0)], id="a score"),
        pytest.param(
            "differences",
            [{"against": "champion", "metric": "rmse", "value": 0.1, "low": None, "high": None}],
            [],
            id="a difference",
        ),
    ],
)
def test_what_is_not_defined_is_left_out(key, found, kept):
    read = getattr(Detail.model_validate_json(json.dumps({key: found})), key)
    assert (list(read) if key == "intervals" else [tuple(one.model_dump().values()) for one in read]) == kept


def test_the_held_out_rows_are_known_by_the_digest_of_their_part(findings):
    inputs = [
        DatasetInput(Dataset(name, digest, "local", "{}"), [InputTag("mlflow.data.context", context)])
        for name, digest, context in (("train", "aaa", "training"), ("test", "bbb", "testing"))
    ]
    run = Run(findings.run.info, findings.run.data, RunInputs(inputs))
    assert Findings(**{**vars(findings), "run": run}).held_out == "bbb"
    assert findings.held_out == ""
