"""Fast decoders of JSON: which bodies they accept, which they leave to the full decoder, and any names of columns."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas.columns import Kind
from model_name.serving.dataplane import DataPlane, rows_to_columns
from model_name.serving.limits import Limits
from model_name.serving.protocols.fast_json import (
    MIN_COLUMNAR_ROWS,
    V2_DECODER,
    FastV1Decoder,
    V2TensorStruct,
    _try_decode,
)

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
TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters='":'), max_size=5)
LIMITS = Limits()


def decoder_of(kinds: dict[str, Kind]) -> FastV1Decoder:
    """Create a decoder of any columns, which no schema needs to accept."""
    return FastV1Decoder(cast(DataPlane, SimpleNamespace(inputs=tuple(kinds), kinds=kinds)))


@pytest.fixture(scope="module")
def decoder() -> FastV1Decoder:
    return decoder_of(KINDS)


@st.composite
def rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Generate rows with the columns in any order."""
    names = draw(st.permutations(list(KINDS)))
    row = st.fixed_dictionaries({name: VALUES.get(KINDS[name], TEXTS) for name in names})
    return draw(st.lists(row, min_size=1, max_size=5)) * draw(st.sampled_from([1, 1, MIN_COLUMNAR_ROWS]))


@given(rows())
def test_rows_are_decoded_as_the_generic_parser_decodes_them(decoder, rows) -> None:
    body = orjson.dumps({"instances": rows})
    decoded = decoder.try_decode(body, LIMITS)
    columns = decoded.to_columns(list(KINDS))
    expected = rows_to_columns(orjson.loads(body)["instances"], list(KINDS))
    assert {name: [*columns[name]] for name in KINDS if name != "size"} == {
        name: expected[name] for name in KINDS if name != "size"
    }
    np.testing.assert_array_equal(np.array(columns["size"], dtype=np.float64), np.array(expected["size"], dtype=float))


@pytest.mark.parametrize("count", [MIN_COLUMNAR_ROWS, 4096, 50_000])
def test_many_rows_are_decoded_to_columns(decoder, count: int) -> None:
    decoded = decoder.try_decode(orjson.dumps({"instances": [ROW | {"size": row} for row in range(count)]}), LIMITS)
    assert (decoded.rows, {name: len(values) for name, values in decoded.table.items()}) == (
        None,
        dict.fromkeys(KINDS, count),
    )
    assert decoded.table["size"].tolist() == [*range(count)]
    assert [*decoded.table["colour"]] == ["red"] * count


@pytest.mark.parametrize("count", [1, MIN_COLUMNAR_ROWS])
def test_a_table_may_have_no_numbers(count: int) -> None:
    body = orjson.dumps({"instances": [{"colour": "red"}, {"colour": None}] * count})
    decoded = decoder_of({"colour": "category"}).try_decode(body, LIMITS)
    assert decoded is not None
    assert [*decoded.to_columns(["colour"])["colour"]] == ["red", None] * count


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="an empty body"),
        pytest.param(b"[1]", id="no object"),
        pytest.param(orjson.dumps({"instances": []}), id="no row"),
        pytest.param(orjson.dumps({"instances": [ROW], "parameters": {}}), id="parameters"),
        pytest.param(orjson.dumps({"instances": [ROW | {"more": 1}]}), id="an extra column"),
        pytest.param(orjson.dumps({"instances": [ROW, {"size": 1}]}), id="missing columns"),
        pytest.param(orjson.dumps({"instances": [[*ROW.values()]]}), id="an array"),
        pytest.param(orjson.dumps({"instances": [ROW | {"size": True}]}), id="a boolean for a number"),
        pytest.param(orjson.dumps({"instances": [ROW | {"size": "1"}]}), id="a text for a number"),
        pytest.param(orjson.dumps({"instances": [ROW | {"is new": 1}]}), id="a number for a boolean"),
        pytest.param(orjson.dumps({"instances": [ROW | {"colour": 1}]}), id="a number for a text"),
        pytest.param(orjson.dumps({"instances": [ROW | {"colour": ["red"]}]}), id="a list for a text"),
        pytest.param(orjson.dumps({"instances": [ROW]})[:-1], id="truncated"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b"1.5", b"NaN"), id="NaN"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b"red", b"\xff"), id="no UTF-8"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b"red", b"\\ud800"), id="half a character"),
        pytest.param(orjson.dumps({"instances": [ROW]}).replace(b'"size":', b'"size":1,"size":'), id="a duplicate key"),
        pytest.param(
            orjson.dumps({"instances": [ROW | {"sold": "9:30"}]}).replace(b'"size":', b'"size" :'),
            id="a space before a colon, and a colon in a text",
        ),
    ],
)
def test_other_bodies_are_left_to_the_full_decoder(decoder, body: bytes) -> None:
    assert decoder.try_decode(body, LIMITS) is None


@pytest.mark.parametrize("name", ['a "b"', "a\\b", "a\nb", "größe", "", "a.b", "class", "field_1"])
def test_a_column_may_have_any_name(name: str) -> None:
    decoder = decoder_of({name: "category", "field_0": "numeric"})
    row = {name: "x", "field_0": 1}
    decoded_row, decoded_body = (
        decoder.try_decode_row(orjson.dumps(row)),
        decoder.try_decode(orjson.dumps({"instances": [row]}), LIMITS),
    )
    if any(character in name for character in '"\\\n'):
        assert (decoded_row, decoded_body) == (None, None)
    else:
        assert decoded_row is not None
        assert decoded_body is not None
        assert decoded_row.rows == decoded_body.rows == [["x", 1]]


def test_tensors_are_decoded() -> None:
    body = orjson.dumps({"id": "a", "inputs": [{"name": "x", "shape": [2], "datatype": "FP64", "data": [1, None]}]})
    decoded = _try_decode(V2_DECODER, body)
    assert decoded is not None
    assert (decoded.id, decoded.inputs) == ("a", [V2TensorStruct("x", [2], "FP64", [1, None])])


TENSOR = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"inputs": [TENSOR], "outputs": []}, id="requested outputs"),
        pytest.param({"inputs": [TENSOR | {"parameters": {}}]}, id="parameters"),
        pytest.param({"inputs": [TENSOR | {"data": [[1]]}]}, id="nested data"),
        pytest.param({"inputs": [TENSOR | {"shape": [1.0]}]}, id="no shape"),
        pytest.param({"inputs": [TENSOR | {"name": 1}]}, id="no name"),
        pytest.param({"inputs": {}}, id="no tensors"),
    ],
)
def test_other_tensors_are_left_to_the_full_decoder(document: Any) -> None:
    assert _try_decode(V2_DECODER, orjson.dumps(document)) is None


def test_deeply_nested_bodies_are_left_to_the_full_decoder() -> None:
    deep = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": ' + b"[" * 100_000 + b"]" * 100_000
    assert _try_decode(V2_DECODER, deep + b"}]}") is None
    body = b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    assert decoder_of(KINDS).try_decode(body, LIMITS) is None
