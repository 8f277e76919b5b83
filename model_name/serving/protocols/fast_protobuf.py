"""Messages of gRPC as most clients write them for one row, read from their bytes.

To ask a parsed message for each of its tensors takes five times as long. Says nothing of what is wrong: any other
message is left to who reads all of them.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from struct import Struct
from typing import Any

from model_name.serving.dataplane import DataPlane
from model_name.serving.protocols.tensors import CONTENTS_FIELDS, DATATYPES

# The wire format of protocol buffers: a field is a tag, the length of its bytes and these. A tensor is field 5 of a
# message; in it name, datatype, shape and contents are fields 1, 2, 3 and 5. Lengths below 128 are one byte.
ROW = b"\x1a\x01\x01*"  # the shape [1], and the tag of the contents behind it
TENSOR = ord("*")
NAME, ID = b"\n", 0x1A
SHORT = 128  # bytes
HEADS = 4096  # names with a datatype that are kept, each shorter than `SHORT`
DOUBLE, FLOAT = Struct("<xxd").unpack, Struct("<xxf").unpack


def read_row(message: bytes, name: str, plane: DataPlane) -> tuple[str, list[Any]] | None:
    """The id of a message and the values of its row, in the order of the inputs; None for another message.

    Args:
        message: Its bytes.
        name: Of the model.
        plane: What answers it.
    """
    if (start := _after_name(message, name.encode())) is None:
        return None
    size, request_id = len(message), ""
    found: dict[str, Any] = {}
    try:
        if message[start] == ID:
            length = message[start + 1]
            if length >= SHORT:
                return None
            request_id = message[start + 2 : start + 2 + length].decode()
            start += 2 + length
        while start < size:
            shape = message.index(ROW, start)
            contents = shape + len(ROW) + 1
            end = contents + message[contents - 1]
            length = message[start + 1]
            if message[start] != TENSOR or length >= SHORT or end != start + 2 + length or end > size:
                return None
            column, datatype = _named(message[start + 2 : shape])
            value = READERS[datatype](message[contents:end])
            if value is None or column in found or datatype not in DATATYPES[plane.kinds[column]]:
                return None
            found[column] = value
            start = end
        row = [found[column] for column in plane.inputs]
    except (LookupError, ValueError):  # of which what is no UTF-8 is one
        return None
    return (request_id, row) if len(row) == len(found) else None


def _after_name(message: bytes, name: bytes) -> int | None:
    """Where a message goes on behind the name of its model."""
    if len(name) >= SHORT or not message.startswith(NAME + bytes([len(name)]) + name):
        return None
    return len(NAME) + 1 + len(name)


@lru_cache(HEADS)
def _named(head: bytes) -> tuple[str, str]:
    """The name and the datatype of a tensor.

    Raises:
        LookupError: There is something else.
        ValueError: It is not UTF-8.
    """
    end = 2 + head[1]
    if head[:1] != NAME or head[end] != 0x12 or end + 2 + head[end + 1] != len(head):
        raise LookupError
    return head[2:end].decode(), head[end + 2 :].decode()


def _text(contents: bytes) -> str | None:
    """A text; the empty one may mean that there is none."""
    is_text = len(contents) > 2 and contents[0] == 0x42 and contents[1] == len(contents) - 2
    return contents[2:].decode() if is_text else None


def _double(contents: bytes) -> float | None:
    return DOUBLE(contents)[0] if len(contents) == 10 and contents[:2] == b":\x08" else None


def _single(contents: bytes) -> float | None:
    return FLOAT(contents)[0] if len(contents) == 6 and contents[:2] == b"2\x04" else None


def _boolean(contents: bytes) -> bool | None:
    return {b"\n\x01\x00": False, b"\n\x01\x01": True}.get(contents)


def _integer(field: int) -> Callable[[bytes], int | None]:
    """A reader of an integer from 0 to 2^28 - 1, seven bits a byte."""
    tag = field << 3 | 2

    def read(contents: bytes) -> int | None:
        *low, last = contents[2:]
        if contents[0] != tag or contents[1] != len(low) + 1 or last >= SHORT or len(low) > 3:
            return None
        if not low:
            return last
        if min(low) < SHORT:  # several
            return None
        return sum((byte & 0x7F) << 7 * place for place, byte in enumerate([*low, last]))

    return read


FIELDS: Mapping[str, Callable[[bytes], Any]] = {
    "bool_contents": _boolean,
    "int_contents": _integer(2),
    "int64_contents": _integer(3),
    "uint_contents": _integer(4),
    "uint64_contents": _integer(5),
    "fp32_contents": _single,
    "fp64_contents": _double,
    "bytes_contents": _text,
}
"""The value of each kind of contents; None for what is to be read otherwise."""
READERS = {datatype: FIELDS[place] for datatype, place in CONTENTS_FIELDS.items()}
