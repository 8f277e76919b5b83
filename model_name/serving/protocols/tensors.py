"""Tensors of V2, the Open Inference Protocol, whether they came as JSON, as raw bytes or in messages of gRPC."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_name.core.schemas import Label, Outputs, TableSchema
from model_name.core.schemas.columns import Kind, label_text
from model_name.core.schemas.decoding import RawValues
from model_name.errors import DataError
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane, RawColumns
from model_name.serving.limits import Limits

INTEGERS = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8")
NUMBERS = ("FP64", "FP32", "FP16", *INTEGERS)
DATATYPES: dict[Kind, tuple[str, ...]] = {
    "numeric": NUMBERS,
    "boolean": ("BOOL", *NUMBERS),
    "category": ("BYTES", "BOOL", *INTEGERS),
    "datetime": ("BYTES",),
    "text-id": ("BYTES", *INTEGERS),
}
"""What a tensor of each kind may hold. The first is what the metadata asks for."""

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in INTEGERS},
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
}
"""How the datatypes of one size lie in raw bytes; BYTES are texts of which each has its length before it."""

CONTENTS_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where the values of each datatype are in a message of gRPC; FP16 has no place there and comes as raw bytes alone."""

LABEL_DTYPES: dict[str, Any] = {"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64}
PLATFORM = "onnxruntime_onnx"
TEXT_LENGTH_PREFIX = struct.Struct("<I")  # of a text in raw bytes


@dataclass(slots=True)
class Tensor:
    """A tensor as it came, or as it goes.

    Attributes:
        name: Of a column, or of an output.
        datatype: As the protocol has it.
        shape: As many values as their product.
        values: Flat or nested as the client had them, or an array.
        raw: Its bytes, where it came as such.
        parameters: What else is said of it.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    values: Any = None
    raw: bytes | memoryview | None = None
    parameters: Mapping[str, Any] | None = None


def tensors_to_columns(tensors: Sequence[Tensor], plane: DataPlane, limits: Limits) -> RawColumns:
    """The columns that tensors hold.

    **One tensor a column**, of shape [n] or [n, 1] and one of the `DATATYPES` of its kind; a datetime is text in ISO
    8601. A missing value is `null` in JSON, and where tensors are binary what they have for it: NaN in FP64, FP32 and
    FP16 (also for booleans, as 0, 1 and NaN), the empty text in BYTES, unless the empty text is one of the column's
    categories. BOOL and integers have nothing for it in gRPC: send another datatype.

    **One matrix** of shape [n, d], under any name that no column has, with the d inputs in their order.

    Raises:
        DataError: A tensor comes twice, holds no row, or its shape, datatype or data do not fit its column.
        TooLargeError: There are too many rows.
    """
    if len(tensors) == 1 and len(tensors[0].shape) == 2 and tensors[0].name not in plane.schema.columns:
        return _decode_matrix(tensors[0], plane, limits)
    table: dict[str, RawValues] = {}
    for tensor in tensors:
        name = tensor.name
        if name in table:
            raise DataError(f"{name}: comes twice")
        kind = plane.kinds.get(name)
        values = tensor.values
        if (
            kind is not None
            and type(values) is list
            and tensor.shape == [len(values)]
            and tensor.datatype in DATATYPES[kind]
            and 0 < len(values) <= limits.rows
            and (tensor.datatype != "BYTES" or "" not in values)
        ):  # the usual case, in one look
            table[name] = values
            continue
        # What is not a column is named nevertheless, for the schema to refuse or ignore.
        table[name] = () if kind is None else _decode_column(tensor, kind, limits)
        if tensor.datatype == "BYTES" and name not in plane.empty_string_columns:
            table[name] = [None if value == "" else value for value in table[name]]
    return table if len(table) == len(plane.inputs) else _drop_unknown(table, plane.schema)


def _drop_unknown(table: RawColumns, schema: TableSchema) -> RawColumns:
    schema.check_names(table)
    return {name: values for name, values in table.items() if name in schema.columns}


def _decode_column(tensor: Tensor, kind: Kind, limits: Limits) -> Sequence[Any] | NDArray[Any]:
    """The n values of one column.

    Raises:
        DataError: There is none, or shape, datatype or data do not fit.
        TooLargeError: There are too many.
    """
    name, shape = tensor.name, tensor.shape
    if tensor.datatype not in DATATYPES[kind]:
        fitting = ", ".join(DATATYPES[kind])
        raise DataError(f"{name}: {tensor.datatype} is not a datatype of a {kind} column; these are: {fitting}")
    if not _is_shape(shape) or not shape or shape[1:] not in ([], [1]):
        raise DataError(f"{name}: has shape {list(shape)}, the shape of a column is [n] or [n, 1]")
    _check_rows(name, shape[0], limits)
    values = _flatten(tensor, shape[0])
    if len(shape) == 2:  # JSON may nest what it says is nested
        return [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
    return values


def _decode_matrix(tensor: Tensor, plane: DataPlane, limits: Limits) -> RawColumns:
    """The columns of one matrix, in the order of the inputs.

    Raises:
        DataError: It has another width, or its datatype or data do not fit.
        TooLargeError: It has too many rows.
    """
    name, shape, names = tensor.name, tensor.shape, plane.inputs
    if tensor.datatype != "BYTES" and tensor.datatype not in DTYPES:
        raise DataError(f"{name}: {tensor.datatype} is not a datatype; these are: {', '.join([*DTYPES, 'BYTES'])}")
    if not _is_shape(shape) or shape[1] != len(names):
        raise DataError(
            f"{name}: is no column and has shape {list(shape)}; a matrix of all inputs has shape [n, {len(names)}]",
            hint=", ".join(names),
        )
    _check_rows(name, shape[0], limits)
    flat = _flatten(tensor, shape[0] * shape[1], width=shape[1])
    texts = tensor.datatype == "BYTES"
    table = {}
    for position, column in enumerate(names):
        values = flat[position :: len(names)]
        is_missing = texts and column not in plane.empty_string_columns
        table[column] = [None if value == "" else value for value in values] if is_missing else values
    return table


def _is_shape(shape: Any) -> bool:
    return type(shape) is list and {int}.issuperset(map(type, shape)) and min(shape, default=0) >= 0


def _check_rows(name: str, rows: int, limits: Limits) -> None:
    if rows == 0:
        raise DataError(f"{name}: the request holds no row")
    limits.check_rows(rows)


def _flatten(tensor: Tensor, count: int, width: int | None = None) -> Sequence[Any] | NDArray[Any]:
    """The values of a tensor, in the order of their rows.

    Args:
        tensor: The tensor.
        count: How many they must be.
        width: Of a matrix, whose JSON may be nested by row.

    Raises:
        DataError: They are not as many as its shape says.
    """
    values = decode_raw(tensor, count) if tensor.raw is not None else tensor.values
    if width is not None and isinstance(values, list) and values and isinstance(values[0], list):
        if any(not isinstance(row, list) or len(row) != width for row in values):
            raise DataError(f"{tensor.name}: its rows do not have {width} values each")
        values = [value for row in values for value in row]
    if isinstance(values, list) and not values:
        raise DataError(f"{tensor.name}: the data are not {tensor.datatype} of shape {list(tensor.shape)}")
    if len(values) != count:
        raise DataError(f"{tensor.name}: has {len(values)} values where its shape {list(tensor.shape)} says {count}")
    return values


def decode_raw(tensor: Tensor, count: int) -> Sequence[Any] | NDArray[Any]:
    """The values of a tensor that came as bytes; texts as such.

    Raises:
        DataError: They are not as many as its shape says, or a text is not UTF-8.
    """
    raw = tensor.raw or b""
    wrong = f"{tensor.name}: the data are not {tensor.datatype} of shape {list(tensor.shape)}"
    if tensor.datatype != "BYTES":
        dtype = DTYPES[tensor.datatype]
        if len(raw) != count * dtype.itemsize:
            raise DataError(wrong)
        return np.frombuffer(raw, dtype=dtype).astype(dtype.newbyteorder("="))
    texts = []
    start = 0
    try:
        while start < len(raw):
            (length,) = TEXT_LENGTH_PREFIX.unpack_from(raw, start)
            start += TEXT_LENGTH_PREFIX.size + length
            texts.append(bytes(raw[start - length : start]).decode())
    except (struct.error, UnicodeDecodeError) as err:
        raise DataError(wrong) from err
    if start != len(raw) or len(texts) != count:
        raise DataError(wrong)
    return texts


def encode_raw(tensor: Tensor) -> bytes:
    """The bytes of a tensor."""
    if tensor.datatype != "BYTES":
        return np.ascontiguousarray(tensor.values, dtype=DTYPES[tensor.datatype]).tobytes()
    texts = [text.encode() for text in tensor.values]
    return b"".join(part for text in texts for part in (TEXT_LENGTH_PREFIX.pack(len(text)), text))


def outputs_to_tensors(outputs: Outputs, wanted: Sequence[str]) -> list[Tensor]:
    """The outputs that a request asks for, all where it names none.

    `prediction` holds numbers or labels, of shape [n]. Classes add `probabilities` (FP64, [n, k]) whose parameter
    `classes` is the JSON array of the labels in the order of its columns; an interval adds `lower` and `upper`.

    Raises:
        DataError: It asks for an output that there is not.
    """
    tensors = {"prediction": label_tensor(outputs)}
    if outputs.probabilities is not None:
        classes = {"classes": orjson.dumps(outputs.classes).decode()}
        tensors["probabilities"] = _tensor("probabilities", outputs.probabilities, classes)
    for name, ends in (("lower", outputs.lower), ("upper", outputs.upper)):
        if ends is not None:
            tensors[name] = _tensor(name, ends)
    for name in wanted:
        if name not in tensors:
            raise DataError(f"{name}: is not an output; these are: {', '.join(tensors)}")
    return [tensors[name] for name in dict.fromkeys(wanted)] if wanted else list(tensors.values())


def label_tensor(outputs: Outputs) -> Tensor:
    """The predictions as a tensor of their datatype."""
    datatype = label_datatype(outputs.classes)
    shape = [len(outputs.prediction)]
    if datatype == "BYTES":
        return Tensor("prediction", datatype, shape, [label_text(label) for label in outputs.prediction])
    return Tensor("prediction", datatype, shape, outputs.prediction.astype(LABEL_DTYPES[datatype]))


def _tensor(name: str, values: NDArray[Any], parameters: Mapping[str, Any] | None = None) -> Tensor:
    return Tensor(name, "FP64", values.shape, values.astype(np.float64), parameters=parameters)


def label_datatype(classes: Sequence[Label]) -> str:
    """The datatype of the predictions: labels keep theirs if all are of one."""
    if not classes:
        return "FP64"
    types = {type(label) for label in classes}
    return "BOOL" if types == {bool} else "INT64" if types == {int} else "BYTES"


def model_metadata(name: str, manifest: Manifest) -> dict[str, Any]:
    """What V2 tells of a model.

    Args:
        name: That it is served under.
        manifest: Of its bundle.
    """
    return {
        "name": name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": input_types(manifest.table),
        "outputs": output_types(manifest.table),
    }


def input_types(schema: TableSchema) -> list[dict[str, Any]]:
    """The inputs for the metadata of V2."""
    inputs = schema.inputs
    return [{"name": name, "datatype": DATATYPES[column.kind][0], "shape": [-1]} for name, column in inputs.items()]


def output_types(schema: TableSchema) -> list[dict[str, Any]]:
    """The outputs for the metadata of V2."""
    classes = schema.classes
    prediction = {"name": "prediction", "datatype": label_datatype(classes), "shape": [-1]}
    probabilities = {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(classes)]}
    return [prediction, probabilities] if classes else [prediction]
