"""Fast decoders of JSON bodies in the common form: msgspec decodes them by type in half the time of a generic parser.

The package docstring has the rules that all fast decoders follow.
"""

import re
from collections.abc import Callable, Sequence
from itertools import chain
from struct import error, pack
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import Kind
from model_name.core.schemas.decoding import RawValues
from model_name.errors import DataError
from model_name.serving.batching.requests import DecodedRequest
from model_name.serving.column_structs import define_struct
from model_name.serving.dataplane import DataPlane, RawColumns
from model_name.serving.limits import Limits
from model_name.serving.protocols.long_lists import (
    MAX_PART_BYTES,
    MIN_LONG_BYTES,
    NotJsonError,
    find_cut_behind_object,
    list_head,
    parse_long_list,
)
from model_name.serving.protocols.strict_json import may_have_duplicate_keys
from model_name.serving.protocols.tensors import CHECKED_DATATYPES, DATATYPES, fits_datatype

MSGSPEC_TYPES: dict[Kind, Any] = {"numeric": float | None, "boolean": bool | None}
"""Type of a value by the kind of its column; `str | None` for all other kinds."""
MIN_COLUMNAR_ROWS = 16  # fewer rows are concatenated with those of other requests in less time than columns are
MAX_HEAD_BYTES = 64  # from the start of a body, within which the first row has to begin
MIN_ARRAY_VALUES = 16  # values of a tensor from which an array is faster than a list


class V2TensorStruct(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A tensor of V2 in JSON without parameters."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | bool | int | float | None]


class V2BodyStruct(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A body of V2 without parameters and requested outputs."""

    inputs: list[V2TensorStruct]
    id: str = ""


V2_DECODER = msgspec.json.Decoder(V2BodyStruct)
V2_TENSORS_DECODER = msgspec.json.Decoder(list[V2TensorStruct])
MAX_TENSORS = 2**16  # of a long body
match_instances, match_inputs = list_head("instances"), list_head("inputs")


class FastV1Decoder:
    """Decodes rows that are objects with one value of its column's type per input and no other keys."""

    def __init__(self, plane: DataPlane) -> None:
        """Prepare the decoders for the inputs of a data plane."""
        self._names = plane.inputs
        self._numeric = [position for position, name in enumerate(self._names) if plane.kinds[name] == "numeric"]
        self._row: msgspec.json.Decoder[Any] | None = None
        self._body: msgspec.json.Decoder[Any] | None = None
        self._rows: msgspec.json.Decoder[Any] | None = None
        types = {name: MSGSPEC_TYPES.get(plane.kinds[name], str | None) for name in self._names}
        row: Any = define_struct("Row", types, forbid_unknown_fields=True)
        if row is not None:
            body: Any = define_struct("Body", {"instances": list[row]}, forbid_unknown_fields=True)
            self._row, self._body = msgspec.json.Decoder(row), msgspec.json.Decoder(body)
            self._rows = msgspec.json.Decoder(list[row])

    def try_decode_row(self, body: bytes) -> DecodedRequest | None:
        """Decode a body that is one row, or return None."""
        row = _try_decode(self._row, body)
        if row is None or may_have_duplicate_keys(body, keys=len(self._names)):
            return None
        return DecodedRequest(rows=[[*msgspec.structs.astuple(row)]])

    def try_decode(self, body: bytes, limits: Limits) -> DecodedRequest | None:
        """Decode a body `{"instances": [ROW, ...]}`, or return None."""
        if body.find(b"{", 1, MAX_HEAD_BYTES) < 0:  # rows are arrays, which msgspec would take longer to detect
            return None
        if len(body) >= MIN_LONG_BYTES and (head := match_instances(body)) is not None:
            return self._try_decode_long(body, head, limits)
        decoded = _try_decode(self._body, body)
        if decoded is None:
            return None
        rows: list[Any] = decoded.field_0
        is_valid = 0 < len(rows) <= limits.rows
        if not is_valid or may_have_duplicate_keys(body, keys=1 + len(rows) * len(self._names)):
            return None
        if len(rows) < MIN_COLUMNAR_ROWS:
            return DecodedRequest(rows=[[*msgspec.structs.astuple(row)] for row in rows])
        return DecodedRequest(table=self._to_columns([self._chunk_to_columns(rows)]))

    def _try_decode_long(self, body: bytes, head: re.Match[bytes], limits: Limits) -> DecodedRequest | None:
        """Decode a long body in parts, or return None."""
        if self._rows is None:
            return None
        chunks: list[list[RawValues]] = []

        def parse(part: bytes, _: int) -> int:
            rows = self._rows.decode(part)  # type: ignore[union-attr]  # checked above
            chunks.append(self._chunk_to_columns(rows))
            return len(rows)

        try:
            end, count = parse_long_list(
                body, head, _not_json(parse), max_items=limits.rows, max_part_bytes=MAX_PART_BYTES
            )
        except (DataError, msgspec.MsgspecError):
            return None
        decoded = _try_decode(self._body, end)
        if decoded is None or not decoded.field_0:
            return None
        count += len(decoded.field_0)
        if count > limits.rows or may_have_duplicate_keys(body, keys=1 + count * len(self._names)):
            return None
        chunks.append(self._chunk_to_columns(decoded.field_0))
        return DecodedRequest(table=self._to_columns(chunks))

    def _to_columns(self, chunks: Sequence[Sequence[RawValues]]) -> RawColumns:
        """Concatenate the columns of chunks."""
        if len(chunks) == 1:
            return dict(zip(self._names, chunks[0], strict=True))
        numeric = {*self._numeric}
        return {
            name: np.concatenate(parts) if position in numeric else [*chain.from_iterable(parts)]
            for position, (name, parts) in enumerate(zip(self._names, zip(*chunks, strict=True), strict=True))
        }

    def _chunk_to_columns(self, rows: Sequence[Any]) -> list[RawValues]:
        """Transpose rows: numeric columns become float64 arrays with NaN for null, others lists."""
        columns: list[Any] = [*zip(*map(msgspec.structs.astuple, rows), strict=True)]
        if self._numeric:
            numbers = [*chain.from_iterable(columns[position] for position in self._numeric)]
            block = floats_to_array(numbers).reshape(len(self._numeric), -1)
            for position, values in zip(self._numeric, block, strict=True):
                columns[position] = values
        return columns


def try_decode_v1(body: bytes, plane: DataPlane, limits: Limits) -> DecodedRequest | None:
    """Decode a body of V1 whose rows are objects with exactly the inputs, or return None."""
    return plane.cached(FastV1Decoder).try_decode(body, limits)


def try_decode_row(body: bytes, plane: DataPlane, limits: Limits) -> DecodedRequest | None:  # noqa: ARG001  one signature
    """Decode a body that is one row as an object with exactly the inputs, or return None."""
    return plane.cached(FastV1Decoder).try_decode_row(body)


def try_decode_v2(body: bytes, plane: DataPlane, limits: Limits) -> DecodedRequest | None:
    """Decode a body of V2 with one tensor of shape [n] per input and no parameters, or return None."""
    decoded = _try_decode_v2_body(body)
    if decoded is None or len(decoded.id) > limits.text_length:
        return None
    tensors = decoded.inputs
    table: dict[str, RawValues] = {tensor.name: tensor.data for tensor in tensors}
    if len(tensors) != len(plane.inputs) or table.keys() != plane.names:
        return None
    rows = len(tensors[0].data)
    if not 0 < rows <= limits.rows:
        return None
    for tensor in tensors:
        kind = plane.kinds[tensor.name]
        if not _is_simple_column(tensor, kind, rows):
            return None
        if rows >= MIN_ARRAY_VALUES and kind == "numeric":
            table[tensor.name] = _numbers_to_array(tensor.data)
    if rows == 1:  # rows are concatenated with those of other requests in less time than columns are
        return DecodedRequest(rows=[[table[name][0] for name in plane.inputs]], id=decoded.id)
    return DecodedRequest(table=table, id=decoded.id)


def _try_decode_v2_body(body: bytes) -> V2BodyStruct | None:
    """Decode a body of V2 without parameters, in parts if it is long, or return None."""
    if len(body) < MIN_LONG_BYTES or (head := match_inputs(body)) is None:
        return _try_decode(V2_DECODER, body)  # type: ignore[no-any-return]  # what the decoder returns
    tensors: list[V2TensorStruct] = []

    def parse(part: bytes, _: int) -> int:
        parsed = V2_TENSORS_DECODER.decode(part)
        tensors.extend(parsed)
        return len(parsed)

    try:
        end, _ = parse_long_list(
            body,
            head,
            _not_json(parse),
            max_items=MAX_TENSORS,
            max_part_bytes=len(body),
            find_cut=find_cut_behind_object,
        )
    except (DataError, msgspec.MsgspecError):
        return None
    decoded: V2BodyStruct | None = _try_decode(V2_DECODER, end)
    if decoded is not None:
        decoded.inputs = tensors + decoded.inputs
    return decoded


def _not_json(parse: Callable[[bytes, int], int]) -> Callable[[bytes, int], int]:
    """Make a function raise NotJsonError for a part that is not JSON; what is JSON of another type is left as it is."""

    def wrapper(part: bytes, items: int) -> int:
        try:
            return parse(part, items)
        except msgspec.ValidationError:
            raise
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
            raise NotJsonError(str(err)) from err

    return wrapper


def _is_simple_column(tensor: V2TensorStruct, kind: Kind, rows: int) -> bool:
    """Report whether a tensor has shape [rows], a datatype that suits its column and values, and no empty texts.

    An empty text may mean null.
    """
    values, datatype = tensor.data, tensor.datatype
    if len(values) != rows or tensor.shape != [rows] or datatype not in DATATYPES[kind]:
        return False
    if datatype == "BYTES":
        return "" not in values
    return datatype not in CHECKED_DATATYPES or fits_datatype(values, datatype, kind)


def _numbers_to_array(values: list[Any]) -> RawValues:
    """Convert a list of numbers to an array, which all later steps handle faster; return other lists unchanged."""
    if not {float, int}.issuperset(map(type, values)):
        return values
    try:
        return floats_to_array(values)
    except OverflowError:
        return values


def floats_to_array(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    """Convert numbers to an array with NaN for None; without None in half the time of `np.array`.

    Raises:
        OverflowError: An integer is too large for float64.
    """
    try:
        return np.frombuffer(pack(f"{len(numbers)}d", *numbers))
    except error:
        return np.array(numbers, dtype=np.float64)


def _try_decode(decoder: msgspec.json.Decoder[Any] | None, body: bytes) -> Any:
    """Decode a body, or return None if there is no decoder or the body does not match its type."""
    try:
        return None if decoder is None else decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
