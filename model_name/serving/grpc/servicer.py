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
from model_name.serving.auth import Guard
from model_name.serving.batching.requests import Question, Request
from model_name.serving.bundle import Manifest
from model_name.serving.context import Service
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.fast_protobuf import read_row
from model_name.serving.protocols.tensors import CONTENTS, Tensor, metadata, read_table, write_outputs, write_raw
from model_name.serving.protocols.v1 import INTERVAL, read_level
from model_name.serving.protocols.v2 import check_version
from model_name.serving.request_errors import EndingError, told

SERVICE = "inference.GRPCInferenceService"
CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
DOUBLE_FIELD = 4  # the number of `double_param` in Triton's `InferParameter`
MOST_DETAILS = 4000  # bytes of a reason; gRPC sends it in a header, percent-encoded, of which clients take 8 KB
PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class RpcRequest(Request):
    """A `ModelInferRequest`. Who sends typed contents is answered by them, who sends raw bytes by those."""

    protocol = "grpc"
    turns = 16  # a call takes several to get here; all of them take less than a tenth of a millisecond

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

    def read(self, plane: DataPlane, limits: Limits) -> Question:
        """As of `Request`.

        Raises:
            NotFoundError: It asks another model.
        """
        if (usual := read_row(self.message, self.name, plane)) is not None:
            self.id = usual[0] or self.id
            limits.check_id(self.id)
            return Question(rows=[usual[1]])
        message = parse(pb.ModelInferRequest, self.message)
        if message.model_name != self.name:
            raise NotFoundError(f"there is no model {message.model_name[:100]} here; this server serves {self.name}")
        check_version(message.model_version, plane.bundle.manifest, self.name)
        self.id = message.id or self.id
        limits.check_id(self.id)
        self.wanted = [output.name for output in message.outputs]
        self.is_raw = bool(message.raw_input_contents)
        parameters = {name: _parameter(message.parameters[name]) for name in (INTERVAL,) if name in message.parameters}
        return Question(table=read_table(read_tensors(message), plane, limits), interval=read_level(parameters))

    def write(self, outputs: Outputs, manifest: Manifest) -> bytes:
        """As of `Request`."""
        answer = pb.ModelInferResponse(id=self.id, model_name=self.name, model_version=manifest.version)
        for tensor in write_outputs(outputs, self.wanted):
            message = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            for name, value in (tensor.parameters or {}).items():
                message.parameters[name].string_param = value
            if self.is_raw:
                answer.raw_output_contents.append(write_raw(tensor))
            elif tensor.datatype == "BYTES":
                message.contents.bytes_contents.extend(text.encode() for text in tensor.values)
            else:
                getattr(message.contents, CONTENTS[tensor.datatype]).extend(tensor.values.reshape(-1).tolist())
        return answer.SerializeToString()  # type: ignore[no-any-return]


def parse(kind: Any, message: bytes) -> Any:
    """The message that bytes hold.

    Raises:
        DataError: They hold none.
    """
    try:
        return kind.FromString(message)
    except DecodeError as err:
        raise DataError(f"the message is not a {kind.DESCRIPTOR.name}: it is cut off, or something else") from err


def read_tensors(message: Any) -> list[Tensor]:
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
    place = CONTENTS.get(datatype)
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


class Rpc:
    """The methods of the service, each from bytes to bytes."""

    def __init__(self, service: Service) -> None:
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
        return grpc.method_handlers_generic_handler(SERVICE, _unary(inference))

    async def infer(self, message: bytes, context: Any) -> bytes:
        """Predict."""
        if self.service.state.is_closed:
            raise EndingError("this server is ending; ask another one")
        self.service.repository.require()
        self.service.batcher.limits.check_body(len(message))
        answer = await self.service.batcher.answer(RpcRequest(message, self.service.next_id(), name=self.service.name))
        manifest = answer.manifest
        context.set_trailing_metadata((("x-model-version", manifest.version), ("x-model-semver", manifest.semver)))
        return answer.reply  # type: ignore[no-any-return]

    async def server_live(self, message: bytes, context: Any) -> bytes:
        """Whether the process is alive."""
        return pb.ServerLiveResponse(live=True).SerializeToString()  # type: ignore[no-any-return]

    async def server_ready(self, message: bytes, context: Any) -> bytes:
        """Whether requests are to be sent here."""
        return pb.ServerReadyResponse(ready=self.service.state.is_ready).SerializeToString()  # type: ignore[no-any-return]

    async def model_ready(self, message: bytes, context: Any) -> bytes:
        """The same, of the model."""
        asked = parse(pb.ModelReadyRequest, message)
        self._require(asked.name, asked.version)
        return pb.ModelReadyResponse(ready=self.service.state.is_ready).SerializeToString()  # type: ignore[no-any-return]

    async def server_metadata(self, message: bytes, context: Any) -> bytes:
        """Name, version and extensions."""
        return pb.ServerMetadataResponse(**self.service.about).SerializeToString()  # type: ignore[no-any-return]

    async def model_metadata(self, message: bytes, context: Any) -> bytes:
        """Inputs and outputs, from the schema."""
        asked = parse(pb.ModelMetadataRequest, message)
        self._require(asked.name, asked.version)
        found = metadata(self.service.name, self.service.manifest)
        return pb.ModelMetadataResponse(**found).SerializeToString()  # type: ignore[no-any-return]

    async def load(self, message: bytes, context: Any) -> bytes:
        """Load the model."""
        name = parse(pb.RepositoryModelLoadRequest, message).model_name
        await self.service.repository.change(name, "load")
        return pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True).SerializeToString()  # type: ignore[no-any-return]

    async def unload(self, message: bytes, context: Any) -> bytes:
        """Unload the model."""
        name = parse(pb.RepositoryModelUnloadRequest, message).model_name
        await self.service.repository.change(name, "unload")
        return pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True).SerializeToString()  # type: ignore[no-any-return]

    def _require(self, name: str, version: str) -> None:
        served = self.service.manifest.version
        if name != self.service.name:
            raise NotFoundError(f"there is no model {name[:100]} here; this server serves {self.service.name}")
        if version not in ("", served):
            raise NotFoundError(f"there is no version {version[:100]} of {name} here; this server serves {served}")

    def _guarded(self, route: str, method: Method) -> Method:
        return self._counted(route, method, self.service.guard)

    def _open(self, route: str, method: Method) -> Method:
        return self._counted(route, method, Guard())

    def _counted(self, route: str, method: Method, guard: Guard) -> Method:
        """A method whose errors are statuses, and which is counted as its HTTP counterpart is."""

        async def call(message: bytes, context: Any) -> bytes:
            started = perf_counter()
            status = 200
            self.service.telemetry.in_flight += 1
            try:
                if guard.is_asking:
                    guard.check(context.invocation_metadata())
                return await method(message, context)
            except ModelNameError as err:
                self.service.refusals.tell(f"grpc {route}", err)
                status = err.http_status
                details = _details(err)
                code = CODES.get(status, grpc.StatusCode.INTERNAL)
            finally:
                self.service.telemetry.in_flight -= 1
                self.service.telemetry.answered("grpc", route, status, perf_counter() - started)
            return await context.abort(code, details)  # type: ignore[no-any-return]

        return call


def _details(err: ModelNameError) -> str:
    """The reason, as far as a header can hold it."""
    details = told(err, MOST_DETAILS)
    while len(quote(details, safe=PRINTABLE)) > MOST_DETAILS:
        details = details[: len(details) // 2]
    return details


def _unary(methods: Mapping[str, Method]) -> dict[str, grpc.RpcMethodHandler]:
    return {name: grpc.unary_unary_rpc_method_handler(method) for name, method in methods.items()}
