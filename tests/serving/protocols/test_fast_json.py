"""Bodies that are read the quick way, and those that are not."""

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas.columns import Kind
from model_name.serving.dataplane import rows_to_columns
from model_name.serving.protocols.fast_json import FastV1Decoder, V2TensorStruct, read_tensors

KINDS: dict[str, Kind] = {
    "size": "numeric",
    "is new": "boolean",
    "colour": "category",
    "sold": "datetime",
    "id": "text-id",
}
ROW = {"size": 1.5, "is new": True, "colour": "red", "sold": "2024-01-01", "id": "a"}
VALUES: dict[str, Any] = {
    "numeric": st.none() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.none() | st.booleans(),
}
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@pytest.fixture(scope="module")
def bodies() -> FastV1Decoder:
    return FastV1Decoder(KINDS)


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows with the columns in any order."""
    names = draw(st.permutations(list(KINDS)))
    row = st.fixed_dictionaries({name: VALUES.get(KINDS[name], TEXTS) for name in names})
    return draw(st.lists(row, min_size=1, max_size=5))


@given(rows())
def test_usual_rows_are_read_as_they_are_the_other_way(bodies, rows) -> None:
    body = orjson.dumps({"instances": rows})
    found = bodies.read(body)
    expected = rows_to_columns(orjson.loads(body)["instances"], list(KINDS))
    assert {name: [*found[name]] for name in KINDS if name != "size"} == {
        name: expected[name] for name in KINDS if name != "size"
    }
    np.testing.assert_array_equal(found["size"], np.array(expected["size"], dtype=np.float64))


def test_a_table_may_have_no_numbers() -> None:
    body = orjson.dumps({"instances": [{"colour": "red"}, {"colour": None}]})
    assert FastV1Decoder({"colour": "category"}).read(body) == {"colour": ("red", None)}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[1]", id="no object"),
        pytest.param(orjson.dumps({"instances": []}), id="no row"),
        pytest.param(orjson.dumps({"instances": [ROW], "parameters": {}}), id="parameters"),
        pytest.param(orjson.dumps({"instances": [ROW | {"more": 1}]}), id="a column more"),
        pytest.param(orjson.dumps({"instances": [ROW, {"size": 1}]}), id="columns less"),
        pytest.param(orjson.dumps({"instances": [[*ROW.values()]]}), id="an array"),
        pytest.param(orjson.dumps({"instances": [ROW | {"size": True}]}), id="a boolean for a number"),
        pytest.param(orjson.dumps({"instances": [ROW | {"size": "1"}]}), id="a text for a number"),
        pytest.param(orjson.dumps({"instances": [ROW | {"is new": 1}]}), id="a number for a boolean"),
        pytest.param(orjson.dumps({"instances": [ROW | {"colour": 1}]}), id="a number for a text"),
        pytest.param(orjson.dumps({"instances": [ROW | {"colour": ["red"]}]}), id="a list for a text"),
        pytest.param(orjson.dumps({"instances": [ROW]})[:-1], id="cut off"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b"1.5", b"NaN"), id="NaN"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b"red", b"\xff"), id="no UTF-8"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b"red", b"\\ud800"), id="half a character"),
    ],
)
def test_what_is_not_usual_is_left_to_others(bodies, body: bytes) -> None:
    assert bodies.read(body) is None


@pytest.mark.parametrize("name", ['a "b"', "a\\b", "a\nb", "größe", "", "a.b", "class", "column_1"])
def test_a_column_may_have_any_name(name: str) -> None:
    bodies = FastV1Decoder({name: "category", "column_0": "numeric"})
    row = {name: "x", "column_0": 1}
    assert bodies.read(orjson.dumps({"instances": [row]})) in (None, {name: ("x",), "column_0": [1]})
    assert bodies.read_row(orjson.dumps(row)) in (None, ["x", 1])
    assert (bodies.read_row(orjson.dumps(row)) is None) == any(letter in name for letter in '"\\\n')


def test_tensors_are_read() -> None:
    body = orjson.dumps({"id": "a", "inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, None]}]})
    found = read_tensors(body)
    assert found is not None
    assert (found.id, found.inputs) == ("a", [V2TensorStruct("x", [2], "FP64", [1, None])])


TENSOR = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"inputs": [TENSOR], "outputs": []}, id="wishes"),
        pytest.param({"inputs": [TENSOR | {"parameters": {}}]}, id="parameters"),
        pytest.param({"inputs": [TENSOR | {"data": [[1]]}]}, id="nested data"),
        pytest.param({"inputs": [TENSOR | {"shape": [1.0]}]}, id="no shape"),
        pytest.param({"inputs": [TENSOR | {"name": 1}]}, id="no name"),
        pytest.param({"inputs": {}}, id="no tensors"),
    ],
)
def test_other_tensors_are_left_to_others(document: Any) -> None:
    assert read_tensors(orjson.dumps(document)) is None


def test_no_depth_of_a_body_is_too_much() -> None:
    deep = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 100_000 + b"]" * 100_000
    assert read_tensors(deep + b"}]}") is None
    assert FastV1Decoder(KINDS).read(b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}") is None
