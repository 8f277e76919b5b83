"""V2, the Open Inference Protocol, by REST: JSON, and the binary tensor extension."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import orjson
from typing_extensions import override

from model_name.core.schemas import Outputs
from model_name.errors import DataError
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols import strict_json
from model_name.serving.protocols.fast_json import try_decode_v2
from model_name.serving.protocols.tensors import Tensor, encode_raw, outputs_to_tensors, tensors_to_columns
from model_name.serving.protocols.v1 import parse_interval_level

JSON = b"application/json"
BINARY = b"application/octet-stream"
INTEGERS = frozenset({int})
BINARY_SIZE = "binary_data_size"
BINARY_DATA = "binary_data"
BINARY_OUTPUT = "binary_data_output"


@dataclass(frozen=True, slots=True)
class BinaryResponse:
    """A body whose JSON is followed by the bytes of tensors.

    Attributes:
        json_length: Of the JSON, in bytes; the header `Inference-Header-Content-Length` holds it.
        content: All of it.
    """

    json_length: int
    content: bytes


class V2Request(InferenceRequest):
    """`{"inputs": [TENSOR, ...]}`, answered by `{"outputs": [TENSOR, ...]}`.

    `tensors.read_table` has what the inputs may be, `tensors.write_outputs` what the outputs are. A tensor whose
    parameter `binary_data_size` is given lies behind the JSON; an output comes so where its parameter `binary_data`
    asks for it, or `binary_data_output` of the request. With the parameter `interval` a regression also answers
    `lower` and `upper`.
    """

    protocol = "v2"

    def __init__(self, body: bytes, id: str, *, name: str, version: str = "", json_length: int | None = None) -> None:  # noqa: A002  as of Request
        """Take the body.

        Args:
            body: All of it.
            id: What it is called if it does not say.
            name: Of the model.
            version: Of the model that is asked for; any where empty.
            json_length: Of the JSON, where tensors follow it.
        """
        super().__init__(id, len(body))
        self.body = body
        self.name = name
        self.version = version
        self.json_length = json_length
        self.wanted: dict[str, bool] = {}
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
        document = _as_object(strict_json.loads(body), "the body")
        self.id = _parse_id(document, self.id)
        limits.check_id(self.id)
        parameters = _parse_parameters(document, "the body")
        self.all_binary = parameters.get(BINARY_OUTPUT) is True
        self.wanted = _parse_requested_outputs(document)
        tensors, used = _parse_tensors(_as_list(document, "inputs"), tail)
        if used != len(tail):
            raise DataError(f"the body is malformed: {len(tail) - used} bytes belong to no tensor")
        return DecodedRequest(
            table=tensors_to_columns(tensors, plane, limits), interval=parse_interval_level(parameters)
        )

    @override
    def encode(self, outputs: Outputs, manifest: Manifest) -> bytes | BinaryResponse:
        tensors = outputs_to_tensors(outputs, list(self.wanted))
        parts: list[bytes] = []
        described = []
        for tensor in tensors:
            parameters = dict(tensor.parameters or {})
            item: dict[str, Any] = {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype}
            if self.wanted.get(tensor.name, self.all_binary):
                parts.append(encode_raw(tensor))
                parameters[BINARY_SIZE] = len(parts[-1])
            else:
                item["data"] = tensor.values.reshape(-1) if isinstance(tensor.values, np.ndarray) else tensor.values
            described.append(item | {"parameters": parameters} if parameters else item)
        document = {"model_name": self.name, "model_version": manifest.version, "id": self.id, "outputs": described}
        text = orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
        return BinaryResponse(len(text), b"".join([text, *parts])) if parts else text


def check_version(asked: str, manifest: Manifest, name: str) -> None:
    """Refuse to answer as another version than the one that is served.

    Raises:
        DataError: It is another.
    """
    if asked not in ("", manifest.version):
        raise DataError(f"version {asked[:100]} was asked for, {name} is at {manifest.version}")


def _parse_id(document: Mapping[str, Any], default: str) -> str:
    found = document.get("id")
    if found is None or found == "":
        return default
    if not isinstance(found, str):
        raise DataError("the body.id: is not a text")
    return found


def _parse_requested_outputs(document: Mapping[str, Any]) -> dict[str, bool]:
    """The outputs that are asked for, and whether each is to be binary."""
    if document.get("outputs") is None:
        return {}
    parameters = _parse_parameters(document, "the body")
    wanted = {}
    for place, raw in enumerate(_as_list(document, "outputs")):
        output = _as_object(raw, f"the body.outputs.{place}")
        name = output.get("name")
        if not isinstance(name, str):
            raise DataError(f"the body.outputs.{place}.name: {_type_error(output, 'name')}")
        own = _parse_parameters(output, f"the body.outputs.{place}").get(BINARY_DATA, parameters.get(BINARY_OUTPUT))
        wanted[name] = own is True
    return wanted


def _parse_tensors(inputs: Sequence[Any], tail: memoryview) -> tuple[list[Tensor], int]:
    """The tensors, and how many bytes of the tail are theirs."""
    tensors = []
    start = 0
    for place, raw in enumerate(inputs):
        tensor = _parse_tensor(raw, place)
        size = None if tensor.parameters is None else tensor.parameters.get(BINARY_SIZE)
        if size is not None:
            if type(size) is not int or size < 0 or start + size > len(tail):
                raise DataError(f"{tensor.name}: {BINARY_SIZE} {str(size)[:100]} does not fit the body")
            if tensor.values is not None:
                raise DataError(f"{tensor.name}: has data both in the JSON and behind it")
            tensor.raw = tail[start : start + size]
            start += size
        elif tensor.values is None:
            raise DataError(f"{tensor.name}: data: {_type_error(raw, 'data')}")
        tensors.append(tensor)
    return tensors, start


def _parse_tensor(raw: Any, position: int) -> Tensor:
    if type(raw) is dict and len(raw) == 4:  # the usual case, in one look
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
