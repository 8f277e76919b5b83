"""Search spaces."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from model_name.utils.search.spaces import Dimension
from model_name.utils.searchers import GridSearcher


def dimension(raw: Any) -> Any:
    return TypeAdapter(Dimension).validate_python(raw)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param([], "the list of choices is empty", id="no choice"),
        pytest.param([1, 2, 1], "1 is among the choices twice", id="a duplicate choice"),
        pytest.param({"low": 2, "high": 2}, "low 2 is not below high 2", id="an empty range"),
        pytest.param({"low": 2.5, "high": 1}, "low 2.5 is not below high 1", id="a reversed range"),
        pytest.param(
            {"low": 0.0, "high": 1.0, "log": True}, "log needs a low above 0, not 0.0", id="the logarithm of 0"
        ),
        pytest.param(
            {"low": -1, "high": 1, "log": True},
            "log needs a low above 0, not -1",
            id="the logarithm of a negative number",
        ),
        pytest.param(
            {"low": 1, "high": 9, "log": True, "step": 2}, "log and step exclude each other", id="a step in a log range"
        ),
        pytest.param(
            {"low": 1, "high": 9, "step": 0}, "step 0 is not between 0 and the width of the range, 8", id="a step of 0"
        ),
        pytest.param(
            {"low": 1, "high": 9, "step": 9}, "step 9 is not between 0 and the width", id="a step that is too wide"
        ),
        pytest.param({"low": "1e-3", "high": 1}, "'1e-3' is not a finite number", id="text"),
        pytest.param({"low": math.nan, "high": 1}, "nan is not a finite number", id="not a number"),
        pytest.param({"low": 1, "high": math.inf}, "inf is not a finite number", id="infinite"),
        pytest.param({"low": False, "high": True}, "False is not a finite number", id="booleans"),
        pytest.param({"low": 1, "hihg": 2}, "hihg is not a key of Range; did you mean high", id="a misspelt key"),
        pytest.param(3, "A dimension is a list of choices, or a range with low and high", id="neither list nor range"),
    ],
)
def test_invalid_dimension_is_refused_with_its_reason(raw, reason):
    with pytest.raises(ValidationError, match=reason):
        GridSearcher.model_validate({"space": {"slope": raw}})


@pytest.mark.parametrize(
    ("raw", "points", "values"),
    [
        pytest.param(["b", "a", None, True, 1], 2, ["b", "a", None, True, 1], id="all choices in order"),
        pytest.param({"low": 1, "high": 9}, 3, [1, 5, 9], id="integers"),
        pytest.param({"low": 1, "high": 3}, 5, [1, 2, 3], id="integers without duplicates"),
        pytest.param({"low": 0.0, "high": 1}, 3, [0.0, 0.5, 1.0], id="floats"),
        pytest.param(
            {"low": 1e-3, "high": 10.0, "log": True}, 5, [0.001, 0.01, 0.1, 1.0, 10.0], id="orders of magnitude"
        ),
        pytest.param({"low": 1, "high": 100, "log": True}, 3, [1, 10, 100], id="integer orders of magnitude"),
        pytest.param({"low": 0.0, "high": 0.3, "step": 0.1}, 9, [0.0, 0.1, 0.2, 0.3], id="steps that meet the end"),
        pytest.param({"low": 0.1, "high": 0.3, "step": 0.2}, 3, [0.1, 0.3], id="one step with exact decimals"),
        pytest.param({"low": 10, "high": 35, "step": 10}, 9, [10, 20, 30], id="steps that miss the end"),
        pytest.param({"low": 0, "high": 100, "step": 10}, 3, [0, 50, 100], id="fewer points than steps"),
        pytest.param({"low": 0, "high": 1, "step": 0.5}, 3, [0.0, 0.5, 1.0], id="floats because of the step"),
    ],
)
def test_grid_of_a_dimension(raw, points, values):
    # when
    grid = dimension(raw).grid(points)
    # then
    assert grid == values
    assert [type(value) for value in grid] == [type(value) for value in values]


@settings(deadline=None)
@given(
    low=st.floats(1e-6, 1e3),
    width=st.floats(1e-3, 1e3),
    log=st.booleans(),
    steps=st.none() | st.floats(1.01, 50),
    points=st.integers(2, 9),
)
def test_grid_is_within_its_range_and_includes_its_ends(low, width, log, steps, points):
    # given
    high = low + width
    step = (high - low) / steps if steps and not log else None
    searched = dimension({"low": low, "high": high, "log": log, "step": step})
    # when
    values = searched.grid(points)
    # then
    assert len(values) <= points
    assert values == sorted(values)
    assert all(searched.contains(value) for value in values)
    assert (values[0], values[-1]) == searched.extremes
