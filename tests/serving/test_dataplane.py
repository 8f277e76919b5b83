"""The data plane without a server: rows and columns, transposing, and numbers beyond float32."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas.row_validation import typed_rows_to_columns
from model_name.errors import DataError
from model_name.serving import dataplane
from model_name.serving.dataplane import DataPlane, rows_to_columns, try_transpose

Row = dict[str, Any]


def test_objects_arrays_and_columns_have_the_same_predictions(
    planes: dict[str, DataPlane], task: str, rows: list[Row]
) -> None:
    plane = planes[task]
    expected = plane.predict_rows(rows)
    by_arrays = plane.predict_rows([list(row.values()) for row in rows])
    by_columns = plane.predict({name: [row[name] for row in rows] for name in reversed(rows[0])})
    singly = [plane.predict_rows([row]) for row in rows]
    for position, outputs in enumerate((by_arrays, by_columns)):
        assert outputs.prediction.tolist() == expected.prediction.tolist(), position
    assert [outputs.prediction[0] for outputs in singly] == expected.prediction.tolist()
    if expected.probabilities is not None:
        np.testing.assert_allclose(expected.probabilities.sum(axis=1), 1, atol=1e-6)


def test_the_warm_up_predicts_the_example(planes: dict[str, DataPlane], task: str) -> None:
    assert len(planes[task].warm_up().prediction) == 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        pytest.param([], "the request holds no row", id="no row"),
        pytest.param([5], "the row is neither an object nor an array", id="a number as row"),
        pytest.param(["ab"], "the row is neither an object nor an array", id="a text as row"),
        pytest.param([[1, 2], [1]], "row 1 has 1 values, the model has 2 inputs", id="a short array"),
        pytest.param([{"a": 1, "b": 2}, {"a": 1}], "b: column is missing in row 1", id="an object with a column less"),
        pytest.param([{"a": 1}, {"a": 1, "b": 2}], "b: is only in row 1", id="an object with a column more"),
    ],
)
def test_rows_that_cannot_be_transposed_are_rejected(rows: list[Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        rows_to_columns(rows, ["a", "b"])


def test_objects_and_arrays_may_be_mixed() -> None:
    assert rows_to_columns([{"b": 2, "a": 1}, [3, 4]], ["a", "b"]) == {"b": [2, 4], "a": [1, 3]}


NAMES = ["a", "b", "c"]
VALUES = st.none() | st.integers(0, 9) | st.just("x")
OBJECTS = st.permutations(NAMES).flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, VALUES)))
ARRAYS = st.lists(VALUES, min_size=3, max_size=3)
OTHERS = st.dictionaries(st.sampled_from([*NAMES, "d"]), VALUES) | st.lists(VALUES, max_size=4)


@given(
    st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES)), max_size=6)
    | st.lists(OBJECTS, max_size=6)
    | st.lists(ARRAYS, max_size=6)
    | st.lists(OBJECTS | ARRAYS | OTHERS, max_size=6)
)
def test_try_transpose_agrees_with_the_transposition_row_by_row(rows: list[Any]) -> None:
    columns = try_transpose(rows, NAMES)
    if columns is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataplane, "try_transpose", lambda *_: None)
        assert columns == rows_to_columns(rows, NAMES)


@pytest.mark.parametrize("row", [{"c": 3, "a": 1, "b": 2}, [1, 2, 3]], ids=["objects", "arrays"])
@pytest.mark.parametrize("count", [1, 2, dataplane.CHUNK_ROWS + 1])
def test_regular_rows_are_transposed_at_once(row: Any, count: int) -> None:
    assert try_transpose([row] * count, NAMES) == {"a": [1] * count, "b": [2] * count, "c": [3] * count}


def test_a_number_beyond_float32_is_rejected_and_not_predicted_as_infinite(
    planes: dict[str, DataPlane], rows: list[Row]
) -> None:
    with pytest.raises(DataError, match="age, row 1: 1e\\+300 is too large for float32"):
        planes["regression"].predict_rows([rows[0], rows[0] | {"age": 1e300}])


@pytest.mark.parametrize("count", [1, 5])
def test_encoded_rows_agree_with_columns(planes: dict[str, DataPlane], task: str, rows: list[Row], count: int) -> None:
    plane = planes[task]
    # Given the rows that are accepted one by one: those without a missing time
    raw = [[row[name] for name in plane.inputs] for row in rows]
    accepted = [row for row in raw if plane.try_encode_rows([row]) is not None]
    assert accepted
    # When they are encoded together
    encoded = plane.try_encode_rows(accepted * count)
    # Then the features and the typed values are those of the same rows as columns
    table = rows_to_columns(accepted * count, plane.inputs)
    assert encoded is not None
    np.testing.assert_array_equal(encoded.matrix, plane.matrix(table))
    for name, values in plane.check(table).items():
        np.testing.assert_array_equal(typed_rows_to_columns(encoded.typed_rows)[name], values)


def test_rows_with_a_number_beyond_float32_are_not_encoded(planes: dict[str, DataPlane], rows: list[Row]) -> None:
    plane = planes["regression"]
    raw = [(rows[0] | {"age": 1e300})[name] for name in plane.inputs]
    assert plane.try_encode_rows([raw]) is None
