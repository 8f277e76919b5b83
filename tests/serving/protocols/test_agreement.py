"""Agreement: of all protocols, of a batch with its requests alone, and of the fast validator with the schema."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.core.schemas import TableSchema
from model_name.core.schemas.fast_validation import FastValidator
from model_name.errors import DataError, ModelNameError
from model_name.serving.batching.requests import InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.cloudevents import EventRequest
from model_name.serving.protocols.tensors import DATATYPES, encode_raw
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import BinaryResponse, V2Request
from model_name.serving.protocols.v2_grpc import GrpcRequest
from tests.support.fuzz_requests import ANYTHING, dump_json, mutate_document, raw_tensors, row, tensor_of
from tests.support.manifests import COLUMNS, EXAMPLE, manifest_of, plane_of, table_of

MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
TASKS = ("regression", "binary", "multiclass")
EVENT = {"specversion": "1.0", "id": "1", "source": "here", "type": "t"}
Row = dict[str, Any]
RequestFactory = Callable[[], InferenceRequest]


# Requests of every protocol


def v1(document: Any) -> RequestFactory:
    return lambda: V1Request(dump_json(document), "1")


def v2(document: Any) -> RequestFactory:
    return lambda: V2Request(dump_json(document), "1", name="flats")


def event(document: Any) -> RequestFactory:
    headers = {b"content-type": b"application/cloudevents+json"}
    return lambda: EventRequest(dump_json(document), "1", headers=headers, name="flats")


def grpc(message: Any) -> RequestFactory:
    content = message if isinstance(message, bytes) else message.SerializeToString()
    return lambda: GrpcRequest(content, "1", name="flats")


def by_column(rows: Sequence[Row], table: TableSchema, *, is_nested: bool = False) -> Any:
    inputs = [tensor_of(column, name, [row[name] for row in rows]) for name, column in table.inputs.items()]
    if is_nested:
        inputs = [item | {"shape": [len(rows), 1], "data": [[value] for value in item["data"]]} for item in inputs]
    return {"inputs": inputs}


def binary(rows: Sequence[Row], table: TableSchema) -> RequestFactory:
    tensors = raw_tensors(table, list(rows))
    parts = [encode_raw(tensor) for tensor in tensors]
    inputs = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(part)},
        }
        for tensor, part in zip(tensors, parts, strict=True)
    ]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    return lambda: V2Request(text + b"".join(parts), "1", name="flats", json_length=len(text))


def message(rows: Sequence[Row], table: TableSchema, *, is_raw: bool) -> Any:
    request = pb.ModelInferRequest(model_name="flats")
    for tensor in raw_tensors(table, list(rows)):
        item = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if is_raw:
            request.raw_input_contents.append(encode_raw(tensor))
        elif tensor.datatype == "BYTES":
            item.contents.bytes_contents.extend(text.encode() for text in tensor.values)
        else:
            item.contents.fp64_contents.extend(tensor.values.tolist())
    return request


def requests_of(rows: Sequence[Row], table: TableSchema) -> dict[str, RequestFactory]:
    """Create the requests of every protocol for the same rows."""
    objects, arrays = {"instances": [*rows]}, {"instances": [[*one.values()] for one in rows]}
    return {
        "V1 objects": v1(objects),
        "V1 objects in another order": v1({"instances": [dict([*one.items()][::-1]) for one in rows]}),
        "V1 arrays": v1(arrays),
        "an event": event(EVENT | {"data": objects}),
        "an event with a text": event(EVENT | {"data": json.dumps(arrays)}),
        "V2 by column": v2(by_column(rows, table)),
        "V2 nested": v2(by_column(rows, table, is_nested=True)),
        "V2 binary": binary(rows, table),
        "gRPC typed": grpc(message(rows, table, is_raw=False)),
        "gRPC raw": grpc(message(rows, table, is_raw=True)),
    }


# Responses


def predictions(response: Any) -> Any:
    """Extract the predictions of a response of any protocol."""
    if isinstance(response, ModelNameError):
        return type(response), response.message.split(" not JSON")[0]  # the parsers word the rest differently
    if isinstance(response, BinaryResponse):
        document, tail = json.loads(response.content[: response.json_length]), response.content[response.json_length :]
        first = document["outputs"][0]
        return from_raw(first["datatype"], tail[: first["parameters"]["binary_data_size"]])
    if not isinstance(response, bytes):
        return predictions(response.body)
    if not response.startswith(b"{"):
        result = pb.ModelInferResponse.FromString(response)
        first, raw = result.outputs[0], result.raw_output_contents
        if raw:
            return from_raw(first.datatype, raw[0])
        contents = {"FP64": "fp64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}
        return [as_text(value) for value in getattr(first.contents, contents[first.datatype])]
    document = json.loads(response)
    if "outputs" in document:
        return document["outputs"][0]["data"]
    return document.get("data", document)["predictions"]


def as_text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def from_raw(datatype: str, raw: bytes) -> list[Any]:
    if datatype != "BYTES":
        return np.frombuffer(raw, dtype={"FP64": "<f8", "BOOL": "?"}[datatype]).tolist()
    texts = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


def alone(plane: DataPlane, factory: RequestFactory) -> Any:
    return infer_batch(plane, [factory()], Limits()).responses[0]


@pytest.mark.parametrize("task", TASKS)
def test_every_protocol_has_the_same_predictions(planes: dict[str, DataPlane], task: str) -> None:
    plane = planes[task]

    @settings(MANY, max_examples=100)
    @given(st.lists(row(plane.schema), min_size=1, max_size=5))
    def check(rows: list[Row]) -> None:
        expected = plane.predict_rows(rows).prediction.tolist()
        assert {
            name: predictions(alone(plane, factory)) for name, factory in requests_of(rows, plane.schema).items()
        } == dict.fromkeys(requests_of(rows, plane.schema), expected)

    check()


@pytest.mark.parametrize("datatype", ["FP64", "FP32", "INT16", "BYTES"])
def test_a_matrix_has_the_predictions_of_its_columns(datatype: str) -> None:
    # Given a table of which all columns are of one kind, and a graph that tells rows and columns apart
    column = {"kind": "category"} if datatype == "BYTES" else {"kind": "numeric", "nullable": datatype != "INT16"}
    table = table_of(columns=dict.fromkeys("abc", column))
    plane = plane_of(manifest_of(table, {}))
    plane.bundle.session.run = lambda _, feeds: [np.nan_to_num(feeds["features"], nan=-7.0) @ [[1.0], [3.0], [9.0]]]  # type: ignore[method-assign]
    values: dict[str, st.SearchStrategy[Any]] = {
        "FP64": st.floats(-1e6, 1e6) | st.none(),
        "FP32": st.floats(-1e6, 1e6, width=32) | st.none(),
        "INT16": st.integers(-(2**15), 2**15 - 1),
        "BYTES": st.sampled_from(["Elm", "Oak", "größe"]),
    }

    @settings(MANY, max_examples=75)
    @given(st.lists(st.fixed_dictionaries(dict.fromkeys("abc", values[datatype])), min_size=1, max_size=5))
    def check(rows: list[Row]) -> None:
        cells = [[one[name] for name in "abc"] for one in rows]
        flat = [value for one in cells for value in one]
        matrix = {"name": "rows", "shape": [len(rows), 3], "datatype": datatype}
        columns = [
            {"name": name, "shape": [len(rows)], "datatype": datatype, "data": [one[name] for one in rows]}
            for name in "abc"
        ]
        factories = {
            "by column": v2({"inputs": columns}),
            "flat": v2({"inputs": [matrix | {"data": flat}]}),
            "nested": v2({"inputs": [matrix | {"data": cells}]}),
        }
        expected = plane.predict_rows([{name: one[name] for name in "abc"} for one in rows]).prediction.tolist()
        assert {name: predictions(alone(plane, factory)) for name, factory in factories.items()} == dict.fromkeys(
            factories, expected
        )

    check()


@MANY
@given(data=st.data())
def test_an_invalid_value_has_the_same_error_in_objects_and_arrays(
    planes: dict[str, DataPlane], data: st.DataObject
) -> None:
    plane = planes["regression"]
    rows = data.draw(st.lists(row(plane.schema), min_size=1, max_size=3))
    one = data.draw(st.sampled_from(rows))
    one[data.draw(st.sampled_from(plane.inputs))] = data.draw(ANYTHING)
    factories = json_requests(rows, plane.schema)
    outcomes = [predictions(alone(plane, factory)) for factory in factories]
    assert outcomes[0] == outcomes[1]
    # V2 has datatypes and other missing values, so that only what both accept is compared
    if isinstance(outcomes[0], list) and isinstance(outcomes[2], list):
        assert outcomes[0] == outcomes[2]


def json_requests(rows: Sequence[Row], table: TableSchema) -> list[RequestFactory]:
    return [v1({"instances": rows}), v1({"instances": [[*o.values()] for o in rows]}), v2(by_column(rows, table))]


# A batch


@st.composite
def requests(draw: st.DrawFn, table: TableSchema) -> RequestFactory:
    """Generate a request of any protocol, about half of them invalid."""
    rows = draw(st.lists(row(table), min_size=1, max_size=3))
    level = draw(st.sampled_from([{}, {}, {"parameters": {"interval": draw(st.sampled_from([0.8, 0.9, 0.5, "nan"]))}}]))
    requested = draw(
        st.sampled_from([{}, {}, {"outputs": [{"name": "prediction"}]}, {"outputs": [{"name": "margin"}]}])
    )
    if draw(st.integers(0, 3)) == 0:
        one = draw(st.sampled_from(rows))
        one[draw(st.sampled_from([*one]))] = draw(ANYTHING)
        documents = [(v1, {"instances": rows} | level), (v2, by_column(rows, table) | level | requested)]
        make, document = draw(st.sampled_from(documents))
        return make(document)
    match draw(st.integers(0, 4)):
        case 0:
            make, document = v1, {"instances": rows} | level
        case 1:
            make, document = v1, {"instances": [[*one.values()] for one in rows]} | level
        case 2:
            make, document = v2, by_column(rows, table) | level | requested
        case 3:
            return binary(rows, table)
        case _:
            content = message(rows, table, is_raw=draw(st.booleans())).SerializeToString()
            return grpc(content[: draw(st.sampled_from([len(content), len(content), len(content) // 2]))])
    return make(draw(mutate_document(document)) if draw(st.booleans()) else document)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_a_request_in_a_batch_has_the_same_response_as_alone(planes: dict[str, DataPlane], task: str) -> None:
    plane = planes[task]

    @MANY
    @given(st.lists(requests(plane.schema), min_size=2, max_size=8))
    def check(factories: list[RequestFactory]) -> None:
        result = infer_batch(plane, [factory() for factory in factories], Limits())
        assert [content(response) for response in result.responses] == [
            content(alone(plane, factory)) for factory in factories
        ]
        logged = sum(len(group.requests) for group in result.groups)
        assert logged == sum(not isinstance(response, ModelNameError) for response in result.responses)
        for group in result.groups:
            ends = [part.stop for part in group.rows]
            assert [part.start for part in group.rows] == [0, *ends[:-1]]
            assert {len(values) for values in group.columns.values()} == {ends[-1]} == {len(group.outputs.prediction)}

    check()


def content(response: Any) -> Any:
    """Return a response, or the type and the message of an error."""
    return (type(response), response.message) if isinstance(response, ModelNameError) else response


# The fast validator

COMMON_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "numeric": st.floats()
    | st.integers(-10, 600)
    | st.integers()
    | st.none()
    | st.sampled_from([3.4e38, 3.5e38, True]),
    "boolean": st.booleans() | st.none() | st.sampled_from([0, 1, 1.0, np.True_]),
    "category": st.sampled_from(["", "east", "north", "3", "true", "gas", "Elm", "west", None, 3, True, b"east"]),
    "datetime": st.datetimes().map(lambda moment: moment.isoformat())
    | st.sampled_from(["2025-03-07", "2025-03-07T09:30Z", "20250307", "2025-W10-5", "", "soon", None, "2025-02-30", 5]),
}
ARRAYS: dict[str, Sequence[Any]] = {
    "numeric": [np.float64, np.float32, np.float16, np.int64, np.uint64, np.int8, np.bool_],
    "boolean": [np.bool_, np.float64, np.int8],
    "category": [],
    "datetime": ["datetime64[us]", "datetime64[D]"],
}


@st.composite
def tables(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a table of which most values are valid."""
    rows = draw(st.integers(1, 3))
    table = table_of()
    columns: dict[str, Any] = {}
    for name, column in table.inputs.items():
        strategy = st.just(EXAMPLE[name]) if draw(st.integers(0, 2)) else COMMON_VALUES[column.kind]
        columns[name] = draw(st.lists(strategy, min_size=rows, max_size=rows))
        if ARRAYS[column.kind] and draw(st.integers(0, 3)) == 0:
            try:
                columns[name] = np.array(columns[name]).astype(draw(st.sampled_from(ARRAYS[column.kind])))
            except (TypeError, ValueError, OverflowError):
                continue
    if draw(st.integers(0, 9)) == 0:
        columns[draw(st.sampled_from([*columns]))] = [1.0] * draw(st.integers(0, 4))
    return columns


@settings(MANY, max_examples=1000)
@given(tables())
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_the_fast_validator_accepts_the_schema_accepts_equally(table: dict[str, Any]) -> None:
    schema = table_of()
    accepted = FastValidator(schema).validate(table)
    if accepted is None:
        return
    checked = schema.check_request(table)
    assert [*accepted] == [*checked] or accepted.keys() == checked.keys()
    for name, values in checked.items():
        assert (accepted[name].dtype, len(accepted[name])) == (values.dtype, len(values)), name
        assert accepted[name].tolist() == values.tolist() or np.array_equal(accepted[name], values, equal_nan=True), (
            name
        )


def test_the_fast_validator_accepts_valid_tables() -> None:
    for task in TASKS:
        schema = table_of(task)
        assert (
            FastValidator(schema).validate({name: [value] * 3 for name, value in EXAMPLE.items() if name != "seen"})
            is None
        )
        table = {name: [value] * 3 for name, value in (EXAMPLE | {"seen": EXAMPLE["sold"]}).items()}
        assert FastValidator(schema).validate(table) is not None
    assert {column["kind"] for column in COLUMNS.values()} >= {*DATATYPES} - {"text-id"}
    with pytest.raises(DataError):
        table_of().check_request({"area": [1.0]})
