"""V2 over gRPC: inference requests as protobuf messages of the Open Inference Protocol.

The messages are parsed here and not by gRPC: a truncated message is an error of the client, not of the server, and a
long one is parsed off the event loop.
"""

import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from typing_extensions import override

from model_name.core.schemas import Outputs
from model_name.errors import DataError, NotFoundError
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.fast_protobuf import try_decode_grpc
from model_name.serving.protocols.open_inference_messages import pb
from model_name.serving.protocols.tensors import (
    CONTENTS_FIELDS,
    Tensor,
    check_tensor_names,
    encode_raw,
    outputs_to_tensors,
    tensors_to_columns,
)
from model_name.serving.protocols.v1 import INTERVAL_PARAMETER, parse_interval_level
from model_name.serving.protocols.v2 import check_version

DOUBLE_PARAM_FIELD = 4  # number of `double_param` in Triton's `InferParameter`


class GrpcRequest(InferenceRequest):
    """`ModelInferRequest`. The response has typed contents or raw bytes, whichever the request has."""

    protocol = "grpc"
    gather_yields = 16  # a call takes several turns of the event loop to get here; 16 take less than 0.1 ms

    def __init__(self, message: bytes, id: str, *, name: str) -> None:  # noqa: A002  the protocol's word for it
        """Store a message, which its batch decodes.

        Args:
            message: Serialized message.
            id: Id of the request if the message has none.
            name: Name of the model.
        """
        super().__init__(id, len(message))
        self.message = message
        self.name = name
        self.requested_outputs: list[str] = []
        self.is_raw = False

    @override
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        """Decode the message.

        Raises:
            NotFoundError: The message names another model.
        """
        if (decoded := try_decode_grpc(self.message, plane, limits, self.name)) is not None:
            self.id = decoded.id or self.id
            return decoded
        message = parse_message(pb.ModelInferRequest, self.message)
        if message.model_name != self.name:
            raise NotFoundError(f"there is no model {message.model_name[:100]} here; this server serves {self.name}")
        check_version(message.model_version, plane.bundle.manifest, self.name)
        self.id = message.id or self.id
        limits.check_id(self.id)
        self.requested_outputs = [output.name for output in message.outputs]
        self.is_raw = bool(message.raw_input_contents)
        names = [name for name in (INTERVAL_PARAMETER,) if name in message.parameters]
        level = parse_interval_level({name: _parameter_value(message.parameters[name]) for name in names})
        if len(message.inputs) > len(plane.schema.columns):  # to convert each of them would take long
            check_tensor_names((item.name for item in message.inputs), plane.schema)
        return DecodedRequest(table=tensors_to_columns(message_to_tensors(message), plane, limits), interval=level)

    @override
    def encode(self, outputs: Outputs, manifest: Manifest) -> bytes:
        response = pb.ModelInferResponse(id=self.id, model_name=self.name, model_version=manifest.version)
        for tensor in outputs_to_tensors(outputs, self.requested_outputs):
            message = response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for name, value in (tensor.parameters or {}).items():
                message.parameters[name].string_param = value
            if self.is_raw:
                response.raw_output_contents.append(encode_raw(tensor))
            elif tensor.datatype == "BYTES":
                message.contents.bytes_contents.extend(text.encode() for text in tensor.values)
            else:
                getattr(message.contents, CONTENTS_FIELDS[tensor.datatype]).extend(tensor.values.reshape(-1).tolist())
        return response.SerializeToString()  # type: ignore[no-any-return]


def parse_message(kind: Any, message: bytes) -> Any:
    """Parse a serialized message.

    Raises:
        DataError: The bytes are not a message of this kind.
    """
    try:
        return kind.FromString(message)
    except DecodeError as err:
        raise DataError(f"the message is not a {kind.DESCRIPTOR.name}: it is cut off, or something else") from err


def message_to_tensors(message: Any) -> list[Tensor]:
    """Convert the inputs of a `ModelInferRequest` to tensors.

    Raises:
        DataError: The raw contents do not match the inputs, or an input has typed contents beside them.
    """
    raw: Sequence[bytes] = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise DataError(f"the request has {len(message.inputs)} inputs and {len(raw)} raw contents")
    if raw:
        return [_raw_tensor(item, content) for item, content in zip(message.inputs, raw, strict=True)]
    return [
        Tensor(item.name, datatype, list(item.shape), _typed_contents(item, datatype))
        for item in message.inputs
        for datatype in [item.datatype.upper()]
    ]


def _raw_tensor(item: Any, content: bytes) -> Tensor:
    if item.HasField("contents"):
        raise DataError(f"{item.name}: has typed contents beside raw ones")
    return Tensor(item.name, item.datatype.upper(), list(item.shape), raw=content)


def _parameter_value(parameter: Any) -> Any:
    """Read a parameter. KServe's message has no field for a double; Triton's clients send an unknown field."""
    choice = parameter.WhichOneof("parameter_choice")
    if choice is not None:
        return getattr(parameter, choice)
    doubles = [field.data for field in UnknownFieldSet(parameter) if field.field_number == DOUBLE_PARAM_FIELD]
    return struct.unpack("<d", struct.pack("<Q", doubles[-1]))[0] if doubles else None


def _typed_contents(item: Any, datatype: str) -> list[Any]:
    """Read the typed contents of an input; none for an unknown datatype, which the decoder of tensors reports."""
    field = CONTENTS_FIELDS.get(datatype)
    if field is None:
        return []
    values = getattr(item.contents, field)
    if datatype != "BYTES":
        return list(values)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as err:
        raise DataError(f"{item.name}: the data are not UTF-8") from err
