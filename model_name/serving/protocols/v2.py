"""V2, the Open Inference Protocol, over REST: JSON, and the binary tensor extension."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec
import numpy as np
import orjson
from typing_extensions import TypedDict, override

from model_name.core.schemas import Outputs
from model_name.errors import DataError, NotFoundError, TooLargeError
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols import strict_json
from model_name.serving.protocols.fast_json import MAX_TENSORS, match_inputs, try_decode_v2
from model_name.serving.protocols.long_lists import (
    MAX_UNTYPED_BYTES,
    MIN_LONG_BYTES,
    find_cut_behind_object,
    parse_long_list,
    parse_part,
)
from model_name.serving.protocols.tensors import Tensor, encode_raw, outputs_to_tensors, tensors_to_columns
from model_name.serving.protocols.v1 import parse_interval_level

INTEGERS = frozenset({int})
BINARY_SIZE = "binary_data_size"
BINARY_DATA = "binary_data"
BINARY_OUTPUT = "binary_data_output"


Scalar = str | bool | int | float | None


class TensorDict(TypedDict, total=False):
    """Tensor of a long body; its parameters are parsed later."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Scalar | list[Scalar]] | None
    parameters: msgspec.Raw


class DocumentDict(TypedDict, total=False):
    """Long body of V2; what is not a tensor is parsed later."""

    inputs: list[TensorDict]
    id: msgspec.Raw
    parameters: msgspec.Raw
    outputs: msgspec.Raw


TENSORS_DECODER = msgspec.json.Decoder(list[TensorDict])
DOCUMENT_DECODER = msgspec.json.Decoder(DocumentDict)


@dataclass(frozen=True, slots=True)
class BinaryResponse:
    """Response body whose JSON is followed by the bytes of tensors.

    Attributes:
        json_length: Length of the JSON in bytes, for the header `Inference-Header-Content-Length`.
        content: Whole body.
    """

    json_length: int
    content: bytes


class V2Request(InferenceRequest):
    """Request `{"inputs": [TENSOR, ...]}`, with the response `{"outputs": [TENSOR, ...]}`.

    `tensors.tensors_to_columns` describes the inputs, `tensors.outputs_to_tensors` the outputs. The data of a tensor
    with the parameter `binary_data_size` follow the JSON. So do those of an output if its parameter `binary_data` is
    true, or `binary_data_output` of the request. With the parameter `interval` the response of a regression also has
    `lower` and `upper`.
    """

    protocol = "v2"

    def __init__(self, body: bytes, id: str, *, name: str, version: str = "", json_length: int | None = None) -> None:  # noqa: A002  the protocols' word for it
        """Store a body, which its batch decodes.

        Args:
            body: Whole body.
            id: Id of the request if the body has none.
            name: Name of the model.
            version: Requested version of the model; empty for any.
            json_length: Length of the JSON in bytes if binary tensors follow it.
        """
        super().__init__(id, len(body))
        self.body = body
        self.name = name
        self.version = version
        self.json_length = json_length
        self.requested_outputs: dict[str, bool] = {}
        self.all_binary = False

    @override
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        check_version(self.version, plane.bundle.manifest, self.name)
        if self.json_length is None and (decoded := try_decode_v2(self.body, plane, limits)) is not None:
            self.id = decoded.id or self.id
            return decoded
        body, tail = self.body, memoryview(b"")
        if self.json_length is not None:
            if self.json_length > len(body):
                raise DataError(f"the body is malformed: its JSON is to have {self.json_length} of {len(body)} bytes")
            body, tail = body[: self.json_length], memoryview(body)[self.json_length :]
        document = _as_object(_parse_document(body), "the body")
        self.id = _parse_id(document, self.id)
        limits.check_id(self.id)
        parameters = _parse_parameters(document, "the body")
        self.all_binary = parameters.get(BINARY_OUTPUT) is True
        self.requested_outputs = _parse_requested_outputs(document)
        tensors, used = _parse_tensors(_as_list(document, "inputs"), tail)
        if used != len(tail):
            raise DataError(f"the body is malformed: {len(tail) - used} bytes belong to no tensor")
        return DecodedRequest(
            table=tensors_to_columns(tensors, plane, limits), interval=parse_interval_level(parameters)
        )

    @override
    def encode(self, outputs: Outputs, manifest: Manifest) -> bytes | BinaryResponse:
        tensors = outputs_to_tensors(outputs, list(self.requested_outputs))
        parts: list[bytes] = []
        items = []
        for tensor in tensors:
            parameters = dict(tensor.parameters or {})
            item: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
            if self.requested_outputs.get(tensor.name, self.all_binary):
                parts.append(encode_raw(tensor))
                parameters[BINARY_SIZE] = len(parts[-1])
            else:
                item["data"] = tensor.values.reshape(-1) if isinstance(tensor.values, np.ndarray) else tensor.values
            items.append(item | {"parameters": parameters} if parameters else item)
        document = {"model_name": self.name, "model_version": manifest.version, "id": self.id, "outputs": items}
        text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        return BinaryResponse(len(text), b"".join([text, *parts])) if parts else text


def _parse_document(body: bytes) -> Any:
    """Parse the JSON of a request, in parts if it is long.

    Raises:
        DataError: The body is not JSON, or a long tensor of it is malformed.
    """
    if len(body) < MIN_LONG_BYTES or (head := match_inputs(body)) is None:
        return strict_json.loads(body)
    tensors: list[Any] = []

    def parse(part: bytes, _: int) -> int:
        parsed = parse_part(part, TENSORS_DECODER)
        tensors.extend(map(_parse_raw_members, parsed))
        return len(parsed)

    end, count = parse_long_list(
        body, head, parse, max_items=MAX_TENSORS, max_part_bytes=len(body), find_cut=find_cut_behind_object
    )
    if count > MAX_TENSORS:
        raise TooLargeError(f"the request has more than {MAX_TENSORS} tensors")
    document = _as_object(_parse_end(end), "the body")
    return {**document, "inputs": [*tensors, *_as_list(document, "inputs")]}


def _parse_end(end: bytes) -> Any:
    """Parse the rest of a long body: its last tensors, and what follows the inputs.

    Raises:
        DataError: The rest is not JSON, or is long and malformed.
    """
    if len(end) <= MAX_UNTYPED_BYTES or b"NaN" in end or b"Infinity" in end:
        return strict_json.loads(end)
    try:
        document = DOCUMENT_DECODER.decode(end)
    except msgspec.ValidationError as err:
        raise DataError(f"the body is malformed: {err}") from err
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as err:
        raise DataError(f"the body is not JSON: {err}") from err
    inputs = [*map(_parse_raw_members, document.get("inputs", ()))]
    return _parse_raw_members({**document, "inputs": inputs})


def _parse_raw_members(item: Any) -> Any:
    """Parse the members of a document or a tensor that were left as they are.

    Raises:
        DataError: A member is too long.
    """
    if isinstance(item, dict):
        for key, value in item.items():
            if isinstance(value, msgspec.Raw):
                if len(value) > MAX_UNTYPED_BYTES:
                    raise DataError(f"the body.{key}: has more than {MAX_UNTYPED_BYTES} bytes")
                item[key] = strict_json.loads(bytes(value))
    return item


def check_version(requested: str, manifest: Manifest, name: str) -> None:
    """Check that the requested version is the one that is served.

    Args:
        requested: Requested version; empty for any.
        manifest: Manifest of the served model.
        name: Name of the model.

    Raises:
        NotFoundError: Another version is served.
    """
    if requested not in ("", manifest.version):
        raise NotFoundError(
            f"there is no version {requested[:100]} of {name} here; this server serves {manifest.version}"
        )


def _parse_id(document: Mapping[str, Any], default: str) -> str:
    given = document.get("id")
    if given is None or given == "":
        return default
    if not isinstance(given, str):
        raise DataError("the body.id: is not a text")
    return given


def _parse_requested_outputs(document: Mapping[str, Any]) -> dict[str, bool]:
    """Parse the names of the requested outputs, and whether each of them should be binary."""
    if document.get("outputs") is None:
        return {}
    parameters = _parse_parameters(document, "the body")
    requested = {}
    for place, raw in enumerate(_as_list(document, "outputs")):
        output = _as_object(raw, f"the body.outputs.{place}")
        name = output.get("name")
        if not isinstance(name, str):
            raise DataError(f"the body.outputs.{place}.name: {_type_error(output, 'name')}")
        own = _parse_parameters(output, f"the body.outputs.{place}").get(BINARY_DATA, parameters.get(BINARY_OUTPUT))
        requested[name] = own is True
    return requested


def _parse_tensors(inputs: Sequence[Any], tail: memoryview) -> tuple[list[Tensor], int]:
    """Parse the tensors, and assign the bytes that follow the JSON to them.

    Returns:
        Tensors, and the number of bytes that belong to one of them.
    """
    tensors = []
    start = 0
    for place, raw in enumerate(inputs):
        tensor = _parse_tensor(raw, place)
        size = None if tensor.parameters is None else tensor.parameters.get(BINARY_SIZE)
        if size is not None:
            if type(size) is not int or size < 0 or start + size > len(tail):
                raise DataError(f"{tensor.name}: {BINARY_SIZE} {strict_json.quote(size)} does not fit the body")
            if tensor.values is not None:
                raise DataError(f"{tensor.name}: has data both in the JSON and behind it")
            tensor.raw = tail[start : start + size]
            start += size
        elif tensor.values is None:
            raise DataError(f"{tensor.name}: data: {_type_error(raw, 'data')}")
        tensors.append(tensor)
    return tensors, start


def _parse_tensor(raw: Any, position: int) -> Tensor:
    if type(raw) is dict and len(raw) == 4:  # the common case, in one check
        name, shape, datatype, values = map(raw.get, ("name", "shape", "datatype", "data"))
        if type(name) is str and type(datatype) is str and type(values) is list and _is_shape(shape):
            return Tensor(name, datatype.upper(), shape, values)
    item = _as_object(raw, f"the body.inputs.{position}")
    name = item.get("name")
    if not isinstance(name, str):
        raise DataError(f"the body.inputs.{position}.name: {_type_error(item, 'name')}")
    shape, datatype, values = item.get("shape"), item.get("datatype"), item.get("data")
    if not _is_shape(shape):
        raise DataError(f"{name}: shape: {_type_error(item, 'shape', 'a list of integers')}")
    if not isinstance(datatype, str):
        raise DataError(f"{name}: datatype: {_type_error(item, 'datatype')}")
    if values is not None and not isinstance(values, list):
        raise DataError(f"{name}: data: is not a list")
    parameters = _parse_parameters(item, name) if "parameters" in item else None
    return Tensor(name, datatype.upper(), shape, values, parameters=parameters)


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    return type(shape) is list and INTEGERS.issuperset(map(type, shape))


def _as_object(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: is not an object")
    return value


def _as_list(document: Mapping[str, Any], key: str) -> Sequence[Any]:
    if not isinstance(document.get(key), list):
        raise DataError(f"the body.{key}: {_type_error(document, key, 'a list')}")
    return document[key]  # type: ignore[no-any-return]


def _parse_parameters(document: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    return {} if parameters is None else _as_object(parameters, f"{place}.parameters")


def _type_error(document: Mapping[str, Any], key: str, kind: str = "a text") -> str:
    return f"is not {kind}" if document.get(key) is not None else "is missing"
