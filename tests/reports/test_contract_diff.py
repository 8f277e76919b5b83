"""Changes of the contract between two schemas."""

import pytest

from model_name.core.decisions.decision import Decision, PredictionIntervals, Sigmoid
from model_name.core.schemas import TableSchema
from model_name.reports.contract_diff import contract_changes, decision_changes

COLUMN = {"kind": "numeric", "min": 0, "max": 10}
GROUP = {"kind": "category", "values": ["a", "b"]}


def schema(columns, **changes):
    target = {"name": "y", "task": "regression"}
    return TableSchema.model_validate({"name": "t", "target": target, "columns": {"x": COLUMN} | columns} | changes)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({}, {}, [], id="no change"),
        pytest.param({}, {"z": {"kind": "boolean"}}, [("z", "added", "a boolean input")], id="an added input"),
        pytest.param({"z": {"kind": "boolean"}}, {}, [("z", "removed", "no longer used")], id="a removed input"),
        pytest.param({}, {"x": COLUMN | {"max": 20}}, [("x", "changed", "max 10 → 20")], id="a bound"),
        pytest.param({}, {"x": {"kind": "numeric", "min": 0}}, [("x", "changed", "max 10 → none")], id="no bound"),
        pytest.param({}, {"x": COLUMN | {"nullable": True}}, [("x", "changed", "nullable no → yes")], id="nullable"),
        pytest.param(
            {"g": GROUP}, {"g": {"kind": "boolean"}}, [("g", "changed", "kind category → boolean")], id="kind"
        ),
        pytest.param(
            {"g": GROUP},
            {"g": GROUP | {"values": ["b", "c"]}},
            [("g", "changed", "categories added: c; categories removed: a")],
            id="categories",
        ),
        pytest.param(
            {"g": GROUP}, {"g": GROUP | {"values": ["b", "a"]}}, [("g", "changed", "another order")], id="their order"
        ),
        pytest.param(
            {"z": {"kind": "boolean"}},
            {"z": {"kind": "boolean", "feature": False}},
            [("z", "removed", "")],
            id="no feature",
        ),
    ],
)
def test_changes_of_columns_are_changes_of_the_contract(before, after, expected):
    result = list(contract_changes(schema(before), schema(after)))
    assert [(change.name, change.what) for change in result] == [(name, what) for name, what, _ in expected]
    assert all(text in change.words for change, (_, _, text) in zip(result, expected, strict=True))


def test_another_target_is_a_change_of_the_contract():
    other = schema({}, target={"name": "y", "task": "binary", "classes": ["no", "yes"]})
    result = {change.name: change.words for change in contract_changes(schema({}), other)}
    assert result == {"task": "regression → binary", "classes": "none → no, yes"}


INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(), halves=((1.0,), (2.0,)), rows=100)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        pytest.param(None, {}, id="no change"),
        pytest.param(Decision(threshold=0.2), {"labels": "the most probable → positive from 0.2 on"}, id="a threshold"),
        pytest.param(
            Decision(calibrator=Sigmoid(slope=1.0, intercept=0.0)),
            {"probabilities": "not calibrated → calibrated (sigmoid)"},
            id="a calibration",
        ),
        pytest.param(Decision(intervals=INTERVALS), {"prediction intervals": "none → of 0.8, 0.9"}, id="intervals"),
    ],
)
def test_changes_of_threshold_calibration_and_intervals_are_listed(after, expected):
    assert {change.name: change.words for change in decision_changes(None, after)} == expected
