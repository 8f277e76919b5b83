"""V2 by gRPC: the service of the Open Inference Protocol.

Messages are parsed here and not by gRPC, so that one that is cut off is the client's error and not the server's, and
so that a long one is parsed off the event loop.
"""

import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Any
from urllib.parse import quote

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

from model_name.core.schemas import Outputs
from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.serving.auth import TokenAuth
from model_name.serving.batching.requests import DecodedRequest, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.context import ServerContext
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.fast_protobuf import read_row
from model_name.serving.protocols.tensors import CONTENTS_FIELDS, Tensor, model_metadata, tensors_to_columns, outputs_to_tensors, encode_raw
from model_name.serving.protocols.v1 import INTERVAL_PARAMETER, parse_interval_level
from model_name.serving.protocols.v2 import check_version
from model_name.serving.request_errors import ShuttingDownError, client_message

SERVICE_NAME = "inference.GRPCInferenceService"
STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
DOUBLE_FIELD = 4  # the number of `double_param` in Triton's `InferParameter`
MAX_DETAIL_BYTES = 4000  # bytes of a reason; gRPC sends it in a header, percent-encoded, of which clients take 8 KB
PRINTABLE_ASCII = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class GrpcRequest(InferenceRequest):
    """A `ModelInferRequest`. Who sends typed contents is answered by them, who sends raw bytes by those."""

    protocol = "grpc"
    gather_yields = 16  # a call takes several to get here; all of them take less than a tenth of a millisecond

    def __init__(self, message: bytes, id: str, *, name: str) -> None:  # noqa: A002  as of Request
        """Take the message.

        Args:
            message: Its bytes.
            id: What it is called if it does not say.
            name: Of the model.
        """
        super().__init__(id, len(message))
        self.message = message
        self.name = name
        self.wanted: list[str] = []
        self.is_raw = False

    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        """As of `InferenceRequest`.

        Raises:
            NotFoundError: It asks another model.
        """
        if (usual := read_row(self.message, self.name, plane)) is not None:
            self.id = usual[0] or self.id
            limits.check_id(self.id)
            return DecodedRequest(rows=[usual[1]])
        message = parse_message(pb.ModelInferRequest, self.message)
        if message.model_name != self.name:
            raise NotFoundError(f"there is no model {message.model_name[:100]} here; this server serves {self.name}")
        check_version(message.model_version, plane.bundle.manifest, self.name)
        self.id = message.id or self.id
        limits.check_id(self.id)
        self.wanted = [output.name for output in message.outputs]
        self.is_raw = bool(message.raw_input_contents)
        parameters = {name: _parameter(message.parameters[name]) for name in (INTERVAL_PARAMETER,) if name in message.parameters}
        return DecodedRequest(table=tensors_to_columns(message_to_tensors(message), plane, limits), interval=parse_interval_level(parameters))

    def encode(self, outputs: Outputs, manifest: Manifest) -> bytes:
        """As of `InferenceRequest`."""
        answer = pb.ModelInferResponse(id=self.id, model_name=self.name, model_version=manifest.version)
        for tensor in outputs_to_tensors(outputs, self.wanted):
            message = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for name, value in (tensor.parameters or {}).items():
                message.parameters[name].string_param = value
            if self.is_raw:
                answer.raw_output_contents.append(encode_raw(tensor))
            elif tensor.datatype == "BYTES":
                message.contents.bytes_contents.extend(text.encode() for text in tensor.values)
            else:
                getattr(message.contents, CONTENTS_FIELDS[tensor.datatype]).extend(tensor.values.reshape(-1).tolist())
        return answer.SerializeToString()  # type: ignore[no-any-return]


def parse_message(kind: Any, message: bytes) -> Any:
    """The message that bytes hold.

    Raises:
        DataError: They hold none.
    """
    try:
        return kind.FromString(message)
    except DecodeError as err:
        raise DataError(f"the message is not a {kind.DESCRIPTOR.name}: it is cut off, or something else") from err


def message_to_tensors(message: Any) -> list[Tensor]:
    """The tensors of a request.

    Raises:
        DataError: Its contents are not where they must be.
    """
    raw: Sequence[bytes] = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise DataError(f"the request has {len(message.inputs)} inputs and {len(raw)} raw contents")
    if raw:
        return [_raw_tensor(item, content) for item, content in zip(message.inputs, raw, strict=True)]
    return [
        Tensor(item.name, datatype, list(item.shape), _contents(item, datatype))
        for item in message.inputs
        for datatype in [item.datatype.upper()]
    ]


def _raw_tensor(item: Any, content: bytes) -> Tensor:
    if item.HasField("contents"):
        raise DataError(f"{item.name}: has typed contents beside raw ones")
    return Tensor(item.name, item.datatype.upper(), list(item.shape), raw=content)


def _parameter(value: Any) -> Any:
    """A parameter. KServe's message has no place for a fraction; Triton's clients send it in their own."""
    choice = value.WhichOneof("parameter_choice")
    if choice is not None:
        return getattr(value, choice)
    numbers = [field.data for field in UnknownFieldSet(value) if field.field_number == DOUBLE_FIELD]
    return struct.unpack("<d", struct.pack("<Q", numbers[-1]))[0] if numbers else None


def _contents(item: Any, datatype: str) -> list[Any]:
    """The values of typed contents; none where the datatype has no place, which its reader will say."""
    place = CONTENTS_FIELDS.get(datatype)
    if place is None:
        return []
    values = getattr(item.contents, place)
    if datatype != "BYTES":
        return list(values)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as err:
        raise DataError(f"{item.name}: the data are not UTF-8") from err


Method = Callable[[bytes, Any], Awaitable[bytes]]


class InferenceServicer:
    """The methods of the service, each from bytes to bytes."""

    def __init__(self, service: ServerContext) -> None:
        """Answer for a service."""
        self.service = service

    def handler(self) -> grpc.GenericRpcHandler:
        """The service, for a server of gRPC."""
        inference: dict[str, Method] = {
            "ModelInfer": self._guarded("infer", self.infer),
            "ServerLive": self._open("health", self.server_live),
            "ServerReady": self._open("health", self.server_ready),
            "ModelReady": self._open("ready", self.model_ready),
            "ServerMetadata": self._guarded("metadata", self.server_metadata),
            "ModelMetadata": self._guarded("metadata", self.model_metadata),
            "RepositoryModelLoad": self._guarded("repository", self.load),
            "RepositoryModelUnload": self._guarded("repository", self.unload),
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, _unary(inference))

    async def infer(self, message: bytes, context: Any) -> bytes:
        """Predict."""
        if self.service.state.is_closed:
            raise ShuttingDownError("this server is ending; ask another one")
        self.service.repository.require()
        self.service.batcher.limits.check_body(len(message))
        answer = await self.service.batcher.infer(GrpcRequest(message, self.service.next_id(), name=self.service.name))
        manifest = answer.manifest
        context.set_trailing_metadata((("x-model-version", manifest.version), ("x-model-semver", manifest.semver)))
        return answer.payload  # type: ignore[no-any-return]

    async def server_live(self, message: bytes, context: Any) -> bytes:
        """Whether the process is alive."""
        return pb.ServerLiveResponse(live=True).SerializeToString()  # type: ignore[no-any-return]

    async def server_ready(self, message: bytes, context: Any) -> bytes:
        """Whether requests are to be sent here."""
        return pb.ServerReadyResponse(ready=self.service.state.is_ready).SerializeToString()  # type: ignore[no-any-return]

    async def model_ready(self, message: bytes, context: Any) -> bytes:
        """The same, of the model."""
        asked = parse_message(pb.ModelReadyRequest, message)
        self._require(asked.name, asked.version)
        return pb.ModelReadyResponse(ready=self.service.state.is_ready).SerializeToString()  # type: ignore[no-any-return]

    async def server_metadata(self, message: bytes, context: Any) -> bytes:
        """Name, version and extensions."""
        return pb.ServerMetadataResponse(**self.service.server_metadata).SerializeToString()  # type: ignore[no-any-return]

    async def model_metadata(self, message: bytes, context: Any) -> bytes:
        """Inputs and outputs, from the schema."""
        asked = parse_message(pb.ModelMetadataRequest, message)
        self._require(asked.name, asked.version)
        found = model_metadata(self.service.name, self.service.manifest)
        return pb.ModelMetadataResponse(**found).SerializeToString()  # type: ignore[no-any-return]

    async def load(self, message: bytes, context: Any) -> bytes:
        """Load the model."""
        name = parse_message(pb.RepositoryModelLoadRequest, message).model_name
        await self.service.repository.change(name, "load")
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True).SerializeToString()  # type: ignore[no-any-return]

    async def unload(self, message: bytes, context: Any) -> bytes:
        """Unload the model."""
        name = parse_message(pb.RepositoryModelUnloadRequest, message).model_name
        await self.service.repository.change(name, "unload")
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True).SerializeToString()  # type: ignore[no-any-return]

    def _require(self, name: str, version: str) -> None:
        served = self.service.manifest.version
        if name != self.service.name:
            raise NotFoundError(f"there is no model {name[:100]} here; this server serves {self.service.name}")
        if version not in ("", served):
            raise NotFoundError(f"there is no version {version[:100]} of {name} here; this server serves {served}")

    def _guarded(self, route: str, method: Method) -> Method:
        return self._counted(route, method, self.service.auth)

    def _open(self, route: str, method: Method) -> Method:
        return self._counted(route, method, TokenAuth())

    def _counted(self, route: str, method: Method, auth: TokenAuth) -> Method:
        """A method whose errors are statuses, and which is counted as its HTTP counterpart is."""

        async def call(message: bytes, context: Any) -> bytes:
            started = perf_counter()
            status = 200
            self.service.metrics.in_flight += 1
            try:
                if auth.is_enabled:
                    auth.check(context.invocation_metadata())
                return await method(message, context)
            except ModelNameError as err:
                self.service.error_log.tell(f"grpc {route}", err)
                status = err.http_status
                details = _details(err)
                code = STATUS_CODES.get(status, grpc.StatusCode.INTERNAL)
            finally:
                self.service.metrics.in_flight -= 1
                self.service.metrics.observe_request("grpc", route, status, perf_counter() - started)
            return await context.abort(code, details)  # type: ignore[no-any-return]

        return call


def _details(err: ModelNameError) -> str:
    """The reason, as far as a header can hold it."""
    details = client_message(err, MAX_DETAIL_BYTES)
    while len(quote(details, safe=PRINTABLE_ASCII)) > MAX_DETAIL_BYTES:
        details = details[: len(details) // 2]
    return details


def _unary(methods: Mapping[str, Method]) -> dict[str, grpc.RpcMethodHandler]:
    return {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
