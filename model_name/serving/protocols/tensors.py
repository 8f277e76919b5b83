"""Tensors of V2, the Open Inference Protocol, in JSON, as raw bytes or in gRPC messages."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from model_name.core.schemas import Label, Outputs, TableSchema
from model_name.core.schemas.columns import Column, Kind, display_value, label_text
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
"""Datatypes that a tensor may have by the kind of its column; the metadata name the first."""

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{name: np.dtype(name.lower()).newbyteorder("<") for name in INTEGERS},
    "FP64": np.dtype("<f8"),
    "FP32": np.dtype("<f4"),
    "FP16": np.dtype("<f2"),
}
"""Layout of the datatypes of fixed size in raw bytes; BYTES are texts, each preceded by its length."""

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
"""Field of a gRPC message for the values of each datatype; FP16 has none and is sent as raw bytes only."""

LABEL_DTYPES: dict[str, Any] = {"BOOL": np.bool_, "INT64": np.int64, "FP64": np.float64}
CHECKED_BLOCK = 256  # values that are checked one by one if not all of them are plain
MAX_QUOTED_CHARACTERS = 100  # of a text in a message
PLATFORM = "onnxruntime_onnx"
INTEGER_BOUNDS: dict[str, tuple[int, int]] = {
    name: (int(np.iinfo(name.lower()).min), int(np.iinfo(name.lower()).max)) for name in INTEGERS
}
"""Smallest and largest number of each datatype of integers."""
NARROW_FLOATS = ("FP16", "FP32")
"""Datatypes of floats that a number in JSON may exceed."""
STRUCT_FORMATS = dict(zip((*INTEGERS, *NARROW_FLOATS), "qihbQIHBef", strict=True))
"""Format character of each datatype whose range `struct` checks."""
CHECKED_DATATYPES = frozenset({"BOOL", *STRUCT_FORMATS})
"""Datatypes that values in JSON or in a message may contradict; the schema checks texts and FP64."""
TEXT_LENGTH_PREFIX = struct.Struct("<I")  # precedes each text in raw bytes


@dataclass(slots=True)
class Tensor:
    """A tensor of a request or of a response.

    Attributes:
        name: Name of a column, or of an output.
        datatype: Datatype as the protocol spells it, such as FP64.
        shape: Sizes of the dimensions, whose product is the number of values.
        values: Values, flat or nested as the client sent them, or an array.
        raw: Bytes of the values if the tensor is binary.
        parameters: Parameters of the tensor.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    values: Any = None
    raw: bytes | memoryview | None = None
    parameters: Mapping[str, Any] | None = None


def tensors_to_columns(tensors: Sequence[Tensor], plane: DataPlane, limits: Limits) -> RawColumns:
    """Convert the tensors of a request to columns.

    **One tensor per column**, of shape [n] or [n, 1] and one of the `DATATYPES` of its kind; a datetime is text in ISO
    8601. A missing value is `null` in JSON. In binary tensors it is NaN in FP64, FP32 and FP16 (also for booleans, as
    0, 1 and NaN), and the empty text in BYTES, unless the empty text is one of the column's categories. BOOL and
    integers cannot express it in gRPC: send another datatype.

    **One matrix** of shape [n, d], under any name that no column has, with the d inputs in their order.

    Raises:
        DataError: A tensor comes twice or has no rows, or its shape, datatype or data do not fit its column.
        TooLargeError: The request has more rows than `limits.rows`.
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
            and fits_datatype(values, tensor.datatype, kind)
        ):  # the common case, in one check
            table[name] = values
            continue
        # A tensor that is not a column keeps its name, so that the schema can reject or ignore it.
        table[name] = () if kind is None else _decode_column(tensor, plane.schema.columns[name], limits)
        if tensor.datatype == "BYTES" and name not in plane.empty_string_columns:
            table[name] = [None if value == "" else value for value in table[name]]
    return table if len(table) == len(plane.inputs) else _drop_unknown(table, plane.schema)


def check_tensor_names(names: Iterable[str], schema: TableSchema) -> None:
    """Check that no tensor comes twice, and that the schema takes each of them.

    Raises:
        DataError: A name comes twice, is the target, or no column of a schema that refuses extra columns.
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{name}: comes twice")
        seen.add(name)
        schema.check_names([name])


def _drop_unknown(table: RawColumns, schema: TableSchema) -> RawColumns:
    schema.check_names(table)
    return {name: values for name, values in table.items() if name in schema.columns}


def fits_datatype(values: RawValues, datatype: str, kind: Kind) -> bool:
    """Report whether no value of a column contradicts the datatype of its tensor, as 300 and 1.5 contradict INT8.

    Args:
        values: Values in JSON or of a message; those of an array, which was binary, cannot contradict their datatype.
        datatype: Datatype of the tensor.
        kind: Kind of the column.
    """
    return find_contradiction(values, datatype, kind) is None


def find_contradiction(values: RawValues, datatype: str, kind: Kind) -> int | None:
    """Find the first value that contradicts a datatype; None if there is none. See `fits_datatype`."""
    if datatype not in CHECKED_DATATYPES or isinstance(values, np.ndarray):
        return None
    is_packable = kind in ("numeric", "boolean") and datatype in STRUCT_FORMATS
    if is_packable and _fits_struct(values, datatype):
        return None  # the common case; null or an integer as a float may be valid as well
    for start in range(0, len(values), CHECKED_BLOCK):
        block = values[start : start + CHECKED_BLOCK]
        if is_packable and _fits_struct(block, datatype):
            continue
        for row, value in enumerate(block, start):
            if _contradicts(value, datatype, kind):
                return row
    return None


def _fits_struct(values: Sequence[Any], datatype: str) -> bool:
    """Report whether all values are numbers in the range of a datatype of `STRUCT_FORMATS`."""
    try:
        struct.pack(f"<{len(values)}{STRUCT_FORMATS[datatype]}", *values)
    except (struct.error, OverflowError):
        return False
    return True


def _contradicts(value: Any, datatype: str, kind: Kind) -> bool:
    """Report whether a value contradicts a datatype of `CHECKED_DATATYPES`.

    Values that the column takes in no datatype are left to the schema, such as texts for a number.
    """
    if isinstance(value, str | bool) or datatype == "BOOL":
        takes_texts = kind not in ("numeric", "boolean")
        is_fitting = type(value) is bool and datatype == "BOOL"
        return takes_texts and datatype not in NARROW_FLOATS and not is_fitting and value is not None
    if not isinstance(value, int | float):
        return False
    if datatype in NARROW_FLOATS:
        return not _fits_struct([value], datatype)
    lowest, highest = INTEGER_BOUNDS[datatype]
    return not lowest <= value <= highest or value != int(value)


def check_datatype(tensor: Tensor, values: RawValues, name: str, column: Column) -> None:
    """Check that no value contradicts the datatype of its tensor.

    Args:
        tensor: Tensor of the column, or of all inputs.
        values: Values of the column.
        name: Name of the column.
        column: Definition of the column.

    Raises:
        DataError: A value contradicts the datatype; the message names column, row and value.
    """
    datatype, kind = tensor.datatype, column.kind
    if (row := find_contradiction(values, datatype, kind)) is None:
        return
    value = values[row][:MAX_QUOTED_CHARACTERS] if isinstance(values[row], str) else values[row]
    where = f"{name}, row {row}" if len(values) > 1 else name
    raise DataError(f"{where}: {display_value(column, value)} is not {datatype}")


def _decode_column(tensor: Tensor, column: Column, limits: Limits) -> Sequence[Any] | NDArray[Any]:
    """Decode the n values of one column.

    Raises:
        DataError: The tensor has no rows, or its shape, datatype or data do not fit the column.
        TooLargeError: The tensor has more rows than `limits.rows`.
    """
    name, shape, kind = tensor.name, tensor.shape, column.kind
    if tensor.datatype not in DATATYPES[kind]:
        supported = ", ".join(DATATYPES[kind])
        raise DataError(f"{name}: {tensor.datatype} is not a datatype of a {kind} column; these are: {supported}")
    if not _is_shape(shape) or not shape or shape[1:] not in ([], [1]):
        raise DataError(f"{name}: has shape {list(shape)}, the shape of a column is [n] or [n, 1]")
    _check_rows(name, shape[0], limits)
    values = _flatten(tensor, shape[0])
    if len(shape) == 2:  # JSON may nest the values of shape [n, 1]
        values = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in values]
    check_datatype(tensor, values, name, column)
    return values


def _decode_matrix(tensor: Tensor, plane: DataPlane, limits: Limits) -> RawColumns:
    """Split one matrix into columns, in the order of the inputs.

    Raises:
        DataError: The matrix has another width than the inputs, or its datatype or data do not fit.
        TooLargeError: The matrix has more rows than `limits.rows`.
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
    is_text = tensor.datatype == "BYTES"
    table = {}
    for position, column in enumerate(names):
        values = flat[position :: len(names)]
        check_datatype(tensor, values, column, plane.schema.columns[column])
        may_be_missing = is_text and column not in plane.empty_string_columns
        table[column] = [None if value == "" else value for value in values] if may_be_missing else values
    return table


def _is_shape(shape: Any) -> bool:
    return type(shape) is list and {int}.issuperset(map(type, shape)) and min(shape, default=0) >= 0


def _check_rows(name: str, rows: int, limits: Limits) -> None:
    if rows == 0:
        raise DataError(f"{name}: the request holds no row")
    limits.check_rows(rows)


def _flatten(tensor: Tensor, count: int, width: int | None = None) -> Sequence[Any] | NDArray[Any]:
    """Flatten the values of a tensor, row by row.

    Args:
        tensor: Tensor of a request.
        count: Number of values according to the shape.
        width: Number of columns of a matrix, whose JSON may be nested by row.

    Raises:
        DataError: The number of values is not the one of the shape.
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
    """Decode the values of a binary tensor: BYTES to texts, other datatypes to an array.

    Raises:
        DataError: The number of values is not the one of the shape, or a text is not UTF-8.
    """
    raw = tensor.raw or b""
    mismatch = f"{tensor.name}: the data are not {tensor.datatype} of shape {list(tensor.shape)}"
    if tensor.datatype != "BYTES":
        dtype = DTYPES[tensor.datatype]
        if len(raw) != count * dtype.itemsize:
            raise DataError(mismatch)
        if tensor.datatype == "BOOL" and np.frombuffer(raw, np.uint8).max(initial=0) > 1:
            raise DataError(f"{tensor.name}: a byte of the data is neither 0 nor 1, as BOOL is")
        return np.frombuffer(raw, dtype=dtype).astype(dtype.newbyteorder("="))
    texts = []
    start = 0
    try:
        while start < len(raw):
            (length,) = TEXT_LENGTH_PREFIX.unpack_from(raw, start)
            start += TEXT_LENGTH_PREFIX.size + length
            texts.append(bytes(raw[start - length : start]).decode())
    except (struct.error, UnicodeDecodeError) as err:
        raise DataError(mismatch) from err
    if start != len(raw) or len(texts) != count:
        raise DataError(mismatch)
    return texts


def encode_raw(tensor: Tensor) -> bytes:
    """Encode the values of a tensor as raw bytes."""
    if tensor.datatype != "BYTES":
        return np.ascontiguousarray(tensor.values, dtype=DTYPES[tensor.datatype]).tobytes()
    texts = [text.encode() for text in tensor.values]
    return b"".join(part for text in texts for part in (TEXT_LENGTH_PREFIX.pack(len(text)), text))


def outputs_to_tensors(outputs: Outputs, requested: Sequence[str]) -> list[Tensor]:
    """Convert outputs to tensors.

    `prediction` has numbers or labels, of shape [n]. Classes add `probabilities` (FP64, [n, k]) whose parameter
    `classes` is the JSON array of the labels in the order of its columns; an interval adds `lower` and `upper`.

    Args:
        outputs: Outputs of a request.
        requested: Names of the requested outputs; all if empty.

    Raises:
        DataError: A requested output does not exist.
    """
    tensors = {"prediction": label_tensor(outputs)}
    if outputs.probabilities is not None:
        classes = {"classes": orjson.dumps(outputs.classes).decode()}
        tensors["probabilities"] = _tensor("probabilities", outputs.probabilities, classes)
    for name, bounds in (("lower", outputs.lower), ("upper", outputs.upper)):
        if bounds is not None:
            tensors[name] = _tensor(name, bounds)
    for name in requested:
        if name not in tensors:
            raise DataError(f"{name}: is not an output; these are: {', '.join(tensors)}")
    return [tensors[name] for name in dict.fromkeys(requested)] if requested else list(tensors.values())


def label_tensor(outputs: Outputs) -> Tensor:
    """Convert the predictions to a tensor of their datatype."""
    datatype = label_datatype(outputs.classes)
    shape = [len(outputs.prediction)]
    if datatype == "BYTES":
        return Tensor("prediction", datatype, shape, [label_text(label) for label in outputs.prediction])
    return Tensor("prediction", datatype, shape, outputs.prediction.astype(LABEL_DTYPES[datatype]))


def _tensor(name: str, values: NDArray[Any], parameters: Mapping[str, Any] | None = None) -> Tensor:
    return Tensor(name, "FP64", values.shape, values.astype(np.float64), parameters=parameters)


def label_datatype(classes: Sequence[Label]) -> str:
    """Select the datatype of the predictions: that of the labels if they share one, or BYTES."""
    if not classes:
        return "FP64"
    types = {type(label) for label in classes}
    return "BOOL" if types == {bool} else "INT64" if types == {int} else "BYTES"


def model_metadata(name: str, manifest: Manifest) -> dict[str, Any]:
    """Build the metadata of a model.

    Args:
        name: Name under which the model is served.
        manifest: Manifest of its bundle.
    """
    return {
        "name": name,
        "versions": [manifest.version],
        "platform": PLATFORM,
        "inputs": input_types(manifest.table),
        "outputs": output_types(manifest.table),
    }


def input_types(schema: TableSchema) -> list[dict[str, Any]]:
    """List the inputs for the metadata."""
    inputs = schema.inputs
    return [{"name": name, "datatype": DATATYPES[column.kind][0], "shape": [-1]} for name, column in inputs.items()]


def output_types(schema: TableSchema) -> list[dict[str, Any]]:
    """List the outputs for the metadata."""
    classes = schema.classes
    prediction = {"name": "prediction", "datatype": label_datatype(classes), "shape": [-1]}
    probabilities = {"name": "probabilities", "datatype": "FP64", "shape": [-1, len(classes)]}
    return [prediction, probabilities] if classes else [prediction]
