"""Bodies of V1 and V2 as most clients write them, read in half the time that any JSON takes.

Says nothing of what is wrong: any other body is left to who reads all of them.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from struct import error, pack
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import Kind
from model_name.core.schemas.fast_validation import RawValues

MSGSPEC_TYPES: dict[Kind, Any] = {"numeric": float | None, "boolean": bool | None}
"""What a value may be; a text or nothing for all others."""
UNSPEAKABLE = re.compile(r'[\\"\x00-\x1f]')
"""What msgspec takes in no name."""


class FastV1Decoder:
    """Reads `{"instances": [ROW, ...]}` whose rows are objects with a value of its type for each input, and no more."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        """Read rows of these columns."""
        self.names = list(kinds)
        self._numbers = [position for position, kind in enumerate(kinds.values()) if kind == "numeric"]
        fields = {f"column_{position}": name for position, name in enumerate(kinds)}  # names of columns may be any text
        types = [(field, MSGSPEC_TYPES.get(kinds[name], str | None)) for field, name in fields.items()]
        strict: dict[str, Any] = {"gc": False, "forbid_unknown_fields": True}
        self._row: msgspec.json.Decoder[Any] | None = None
        self._decoder: msgspec.json.Decoder[Any] | None = None
        if any(map(UNSPEAKABLE.search, kinds)):
            return
        row = msgspec.defstruct("Row", types, rename=fields, **strict)
        self._row = msgspec.json.Decoder(row)
        body: Any = msgspec.defstruct("Body", [("instances", list[row])], **strict)  # type: ignore[valid-type]  # just made
        self._decoder = msgspec.json.Decoder(body)

    def read_row(self, body: bytes) -> list[Any] | None:
        """The values of a body that is one such row and nothing around it, in the order of the columns."""
        row = _decoded(self._row, body)
        return None if row is None else [*msgspec.structs.astuple(row)]

    def read(self, body: bytes) -> dict[str, RawValues] | None:
        """The values by column; None for another body, or if there is no row."""
        found = _decoded(self._decoder, body)
        if found is None or not found.instances:
            return None
        columns: list[Any] = [*zip(*map(msgspec.structs.astuple, found.instances), strict=True)]
        if self._numbers:
            numbers = [*chain.from_iterable(columns[position] for position in self._numbers)]
            block = floats_to_array(numbers).reshape(len(self._numbers), -1)
            for position, values in zip(self._numbers, block, strict=True):
                columns[position] = values
        return dict(zip(self.names, columns, strict=True))


class V2TensorStruct(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A tensor of V2 in JSON, without parameters."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | bool | int | float | None]


class V2BodyStruct(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A body of V2 without parameters and wishes."""

    inputs: list[V2TensorStruct]
    id: str = ""


V2_DECODER = msgspec.json.Decoder(V2BodyStruct)


def read_tensors(body: bytes) -> V2BodyStruct | None:
    """The body, if it is one of these."""
    found: V2BodyStruct | None = _decoded(V2_DECODER, body)
    return found


def floats_to_array(numbers: Sequence[float | None]) -> NDArray[np.float64]:
    """Numbers as an array, NaN for None; in half the time that numpy takes, where there is no None.

    Raises:
        OverflowError: An integer is too large.
    """
    try:
        return np.frombuffer(pack(f"{len(numbers)}d", *numbers))
    except error:
        return np.array(numbers, dtype=np.float64)


def _decoded(decoder: msgspec.json.Decoder[Any] | None, body: bytes) -> Any:
    """What a decoder takes a body for; None if it does not take it."""
    try:
        return None if decoder is None else decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
