"""Fast decoder of gRPC messages of one row with typed contents, straight from their bytes.

Protobuf takes five times as long, because each tensor of a parsed message must be accessed. The package docstring has
the rules that all fast decoders follow.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any

from model_name.serving.batching.requests import DecodedRequest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.tensors import CONTENTS_FIELDS, DATATYPES

# The wire format of protocol buffers: a field is a tag, the length of its bytes and the bytes. A tensor is field 5 of a
# message; in it name, datatype, shape and contents are fields 1, 2, 3 and 5. Lengths below 128 are one byte.
TENSOR_TAG = ord("*")
ROW_SHAPE = b"\x1a\x01\x01*"
"""The shape [1] of a tensor, and the tag of the contents behind it."""
NAME_TAG, DATATYPE_TAG, ID_TAG = b"\n", 0x12, 0x1A
MAX_LENGTH = 128  # bytes; lengths from here on take more than one byte
MAX_CACHED_NAMES = 4096  # names with a datatype, each shorter than `MAX_LENGTH`
unpack_double, unpack_float = Struct("<xxd").unpack, Struct("<xxf").unpack


def try_decode_grpc(message: bytes, plane: DataPlane, limits: Limits, model_name: str) -> DecodedRequest | None:
    """Decode a `ModelInferRequest` of one row with one tensor per input and no parameters, or return None.

    Args:
        message: Serialized message.
        plane: Data plane with the inputs.
        limits: Limits of the server.
        model_name: Name of the served model.
    """
    if (start := _after_model_name(message, model_name.encode())) is None:
        return None
    size, request_id = len(message), ""
    values: dict[str, Any] = {}
    try:
        if message[start] == ID_TAG:
            length = message[start + 1]
            if length >= MAX_LENGTH:
                raise LookupError
            request_id = message[start + 2 : start + 2 + length].decode()
            start += 2 + length
        while start < size:
            shape = message.index(ROW_SHAPE, start)
            contents = shape + len(ROW_SHAPE) + 1
            end = contents + message[contents - 1]
            length = message[start + 1]
            if message[start] != TENSOR_TAG or length >= MAX_LENGTH or end != start + 2 + length or end > size:
                return None
            column, datatype = _parse_name_and_datatype(message[start + 2 : shape])
            value = VALUE_DECODERS[datatype](message[contents:end])
            if value is None or column in values or datatype not in DATATYPES[plane.kinds[column]]:
                return None
            values[column] = value
            start = end
        row = [values[column] for column in plane.inputs]
    except (LookupError, ValueError):  # UnicodeDecodeError is a ValueError
        return None
    is_valid = len(row) == len(values) and len(request_id) <= limits.text_length
    return DecodedRequest(rows=[row], id=request_id) if is_valid else None


def _after_model_name(message: bytes, name: bytes) -> int | None:
    """Find the end of the field with the name of the model; None if the message does not begin with this name."""
    if len(name) >= MAX_LENGTH or not message.startswith(NAME_TAG + bytes([len(name)]) + name):
        return None
    return len(NAME_TAG) + 1 + len(name)


@lru_cache(MAX_CACHED_NAMES)
def _parse_name_and_datatype(head: bytes) -> tuple[str, str]:
    """Parse the fields of a tensor before its shape.

    Raises:
        LookupError: The fields are others than name and datatype.
        ValueError: A field is not valid UTF-8.
    """
    end = 2 + head[1]
    if head[:1] != NAME_TAG or head[end] != DATATYPE_TAG or end + 2 + head[end + 1] != len(head):
        raise LookupError
    return head[2:end].decode(), head[end + 2 :].decode()


def _decode_text(contents: bytes) -> str | None:
    """Decode a text; None for the empty one, which may stand for null."""
    is_text = len(contents) > 2 and contents[0] == 0x42 and contents[1] == len(contents) - 2
    return contents[2:].decode() if is_text else None


def _decode_double(contents: bytes) -> float | None:
    return unpack_double(contents)[0] if len(contents) == 10 and contents[:2] == b":\x08" else None


def _decode_float(contents: bytes) -> float | None:
    return unpack_float(contents)[0] if len(contents) == 6 and contents[:2] == b"2\x04" else None


def _decode_boolean(contents: bytes) -> bool | None:
    return {b"\n\x01\x00": False, b"\n\x01\x01": True}.get(contents)


def _integer_decoder(field: int) -> Callable[[bytes], int | None]:
    """Create a decoder of one varint from 0 to 2^28 - 1: seven bits per byte, the lowest first."""
    tag = field << 3 | 2

    def decode(contents: bytes) -> int | None:
        *low, last = contents[2:]
        if contents[0] != tag or contents[1] != len(low) + 1 or last >= MAX_LENGTH or len(low) > 3:
            return None
        if not low:
            return last
        if min(low) < MAX_LENGTH:  # several values
            return None
        return sum((byte & 0x7F) << 7 * place for place, byte in enumerate([*low, last]))

    return decode


FIELD_DECODERS: Mapping[str, Callable[[bytes], Any]] = {
    "bool_contents": _decode_boolean,
    "int_contents": _integer_decoder(2),
    "int64_contents": _integer_decoder(3),
    "uint_contents": _integer_decoder(4),
    "uint64_contents": _integer_decoder(5),
    "fp32_contents": _decode_float,
    "fp64_contents": _decode_double,
    "bytes_contents": _decode_text,
}
"""Decoders of a single value by field of the contents; they return None for anything else."""
VALUE_DECODERS = {datatype: FIELD_DECODERS[field] for datatype, field in CONTENTS_FIELDS.items()}
