"""gRPC service of the Open Inference Protocol. Methods take and return serialized messages."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, ClassVar

import grpc
from google.protobuf.json_format import ParseDict
from grpc.aio import BaseError
from typing_extensions import override

from model_name.errors import BusyError, ModelNameError, NotFoundError
from model_name.serving.batching.request_trace import TRACEPARENT, TRACERESPONSE, parse_trace_id
from model_name.serving.context import ServerContext
from model_name.serving.grpc.message_reader import MessageReader
from model_name.serving.grpc.statuses import SERVER_ERRORS, abort, status_code
from model_name.serving.protocols.open_inference_messages import pb
from model_name.serving.protocols.tensors import model_metadata
from model_name.serving.protocols.triton import model_config, repository_index, statistics_document
from model_name.serving.protocols.triton_messages import triton_message
from model_name.serving.protocols.v2_grpc import GrpcRequest, parse_message
from model_name.serving.request_errors import ShuttingDownError
from model_name.serving.request_lifecycle import REQUEST_ID_HEADER, RequestLifecycle, RouteLabels
from model_name.serving.tracing import SpanEnd, SpanStart

logger = logging.getLogger("model_name.serving")

SERVICE_NAME = "inference.GRPCInferenceService"


class GrpcCall(RequestLifecycle):
    """Call of a method of the service.

    Attributes:
        by_name: Metadata by name; the last one of several with the same name.
        grpc_context: Context that gRPC passes to a method.
        method: Name of the method.
        service: Name of its service.
        trailing_metadata: Trailing metadata of the response, or of the error in its place.
    """

    __slots__ = ("by_name", "grpc_context", "method", "trailing_metadata")

    service: ClassVar[str] = SERVICE_NAME

    def __init__(self, context: ServerContext, route: RouteLabels, method: str, grpc_context: Any) -> None:
        """Start a call of a method whose message has not been received yet."""
        self.by_name = dict(grpc_context.invocation_metadata())
        super().__init__(context, route, self.by_name.get(REQUEST_ID_HEADER))
        self.grpc_context = grpc_context
        self.method = method
        self.trailing_metadata: list[tuple[str, str]] = [(REQUEST_ID_HEADER, self.id)]

    @override
    def metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self.grpc_context.invocation_metadata()  # type: ignore[no-any-return]

    @override
    def begin(self) -> None:
        super().begin()
        if self.span is not None:
            self.trailing_metadata.append((TRACERESPONSE, self.span.traceresponse))

    @override
    def describe_start(self) -> SpanStart:
        method = f"{self.service}/{self.method}"
        # The attributes of the current semantic conventions, and those before them that most tools still expect.
        attributes = {
            "rpc.system.name": "grpc",
            "rpc.system": "grpc",
            "rpc.service": self.service,
            "rpc.method": method,
        }
        return SpanStart(method, attributes)

    @override
    def describe_end(self, status: int, err: BaseException | None) -> SpanEnd:
        code = grpc.StatusCode.OK if status == HTTPStatus.OK else status_code(status)
        attributes = {"rpc.response.status_code": code.name, "rpc.grpc.status_code": code.value[0]}
        return SpanEnd(attributes, code in SERVER_ERRORS, type(err).__name__ if err else "")


Method = Callable[[bytes, GrpcCall], Awaitable[bytes]]


class InferenceServicer:
    """Methods of the service, for one served model."""

    def __init__(self, context: ServerContext, reader: MessageReader, max_calls: int) -> None:
        """Serve the model of a context.

        Args:
            context: Objects that all requests share.
            reader: Reader of the messages of all calls.
            max_calls: Maximum number of calls at once; those of health and readiness are not counted.
        """
        self.context = context
        self.reader = reader
        self.max_calls = max_calls
        self._calls = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """Make the handler of the service for a gRPC server."""
        health, ready = RouteLabels("health", "grpc", is_public=True), RouteLabels("ready", "grpc", is_public=True)
        infer, metadata = RouteLabels("infer", "grpc"), RouteLabels("metadata", "grpc")
        repository = RouteLabels("repository", "grpc")
        methods: dict[str, tuple[RouteLabels, Method]] = {
            "ModelInfer": (infer, self.infer),
            "ServerLive": (health, self.server_live),
            "ServerReady": (health, self.server_ready),
            "ModelReady": (ready, self.model_ready),
            "ServerMetadata": (metadata, self.server_metadata),
            "ModelMetadata": (metadata, self.model_metadata),
            "ModelConfig": (metadata, self.model_config),
            "ModelStatistics": (metadata, self.model_statistics),
            "RepositoryIndex": (repository, self.repository_index),
            "RepositoryModelLoad": (repository, self.load),
            "RepositoryModelUnload": (repository, self.unload),
        }
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._with_lifecycle(name, labels, method))
            for name, (labels, method) in methods.items()
        }
        return grpc.method_handlers_generic_handler(SERVICE_NAME, handlers)

    async def infer(self, message: bytes, call: GrpcCall) -> bytes:
        """Predict, and send the version of the model as trailing metadata."""
        context = self.context
        if context.state.is_closed:
            raise ShuttingDownError("this server is ending; ask another one")
        context.repository.check_loaded()
        context.batcher.limits.check_body(len(message))
        request = GrpcRequest(message, call.id, name=context.name)
        if call.span is not None:
            call.span.attach(request)
        elif TRACEPARENT in call.by_name:
            request.trace_id = parse_trace_id(str(call.by_name[TRACEPARENT]))
        response = await context.batcher.infer(request)
        manifest = response.manifest
        call.trailing_metadata += [("x-model-version", manifest.version), ("x-model-semver", manifest.semver)]
        return response.payload  # type: ignore[no-any-return]

    async def server_live(self, message: bytes, call: GrpcCall) -> bytes:
        """Respond that the process is alive."""
        return _serialize(pb.ServerLiveResponse(live=True))

    async def server_ready(self, message: bytes, call: GrpcCall) -> bytes:
        """Respond whether requests should be routed to this server."""
        return _serialize(pb.ServerReadyResponse(ready=self.context.state.is_ready))

    async def model_ready(self, message: bytes, call: GrpcCall) -> bytes:
        """Respond whether requests for the model should be routed to this server."""
        request = parse_message(pb.ModelReadyRequest, message)
        self._check_model(request.name, request.version)
        return _serialize(pb.ModelReadyResponse(ready=self.context.state.is_ready))

    async def server_metadata(self, message: bytes, call: GrpcCall) -> bytes:
        """Describe the server: name, version and extensions."""
        return _serialize(pb.ServerMetadataResponse(**self.context.server_metadata))

    async def model_metadata(self, message: bytes, call: GrpcCall) -> bytes:
        """Describe the inputs and outputs of the model."""
        request = parse_message(pb.ModelMetadataRequest, message)
        self._check_model(request.name, request.version)
        return _serialize(pb.ModelMetadataResponse(**model_metadata(self.context.name, self.context.manifest)))

    async def model_config(self, message: bytes, call: GrpcCall) -> bytes:
        """Describe the model as Triton's configuration."""
        request = parse_message(triton_message("ModelConfigRequest"), message)
        self._check_model(request.name, request.version)
        config = model_config(self.context.name, self.context.manifest)
        return _serialize_document("ModelConfigResponse", {"config": config})

    async def model_statistics(self, message: bytes, call: GrpcCall) -> bytes:
        """Report the statistics of the batches as Triton does."""
        request = parse_message(triton_message("ModelStatisticsRequest"), message)
        self._check_model(request.name or self.context.name, request.version)
        version = self.context.manifest.version
        statistics = self.context.batcher.statistics.of_version(version)
        return _serialize_document(
            "ModelStatisticsResponse", statistics_document(self.context.name, version, statistics)
        )

    async def repository_index(self, message: bytes, call: GrpcCall) -> bytes:
        """List the models of the repository: the served one."""
        request = parse_message(triton_message("RepositoryIndexRequest"), message)
        is_ready = self.context.state.is_ready
        models = repository_index(self.context.name, self.context.manifest.version, is_ready=is_ready)
        return _serialize_document(
            "RepositoryIndexResponse", {"models": models if is_ready or not request.ready else []}
        )

    async def load(self, message: bytes, call: GrpcCall) -> bytes:
        """Load the model again."""
        name = parse_message(pb.RepositoryModelLoadRequest, message).model_name
        await self.context.repository.load_or_unload(name, "load")
        return _serialize(pb.RepositoryModelLoadResponse(model_name=name, isLoaded=True))

    async def unload(self, message: bytes, call: GrpcCall) -> bytes:
        """Unload the model: calls get UNAVAILABLE until it is loaded."""
        name = parse_message(pb.RepositoryModelUnloadRequest, message).model_name
        await self.context.repository.load_or_unload(name, "unload")
        return _serialize(pb.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True))

    def _check_model(self, name: str, version: str) -> None:
        """Check that a model and a version are those that this server serves.

        Raises:
            NotFoundError: The model or the version is another one.
        """
        served = self.context.manifest.version
        if name != self.context.name:
            raise NotFoundError(f"there is no model {name[:100]} here; this server serves {self.context.name}")
        if version not in ("", served):
            raise NotFoundError(f"there is no version {version[:100]} of {name} here; this server serves {served}")

    def _with_lifecycle(self, name: str, labels: RouteLabels, method: Method) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Wrap a method in the lifecycle of a request, and turn its errors into gRPC statuses.

        gRPC calls the result as a method of streamed requests, that is before it receives the message: nothing is
        received from a client without a token.
        """

        async def call(_: Any, grpc_context: Any) -> bytes:
            request = GrpcCall(self.context, labels, name, grpc_context)
            try:
                with request:
                    request.authenticate()
                    response = await self._call_within_limit(method, request)
                    grpc_context.set_trailing_metadata(tuple(request.trailing_metadata))
                    return response
            except ModelNameError as err:
                ending = abort(grpc_context, err, request.trailing_metadata)
            except BaseError:  # the call has ended already
                raise
            # The outermost loop of a call: whatever a method raises, the client gets an error with its id.
            except Exception as err:
                logger.exception("request %s failed", request.id)
                failure = ModelNameError(f"the server failed: {type(err).__name__}")
                ending = abort(grpc_context, failure, request.trailing_metadata)
            # gRPC keeps what it raises here, and so this frame, until garbage is collected: it must refer to no call.
            del _, request, grpc_context
            return await ending

        return call

    async def _call_within_limit(self, method: Method, request: GrpcCall) -> bytes:
        """Read the message of a call and call its method, unless too many calls are being handled.

        Raises:
            BusyError: Too many calls, or too many bytes of messages, are being handled.
        """
        read = self.reader.read
        if request.route.is_public:
            message = await read(request.grpc_context, request.trailing_metadata, is_public=True)
            return await method(message, request)
        if self._calls >= self.max_calls:
            raise BusyError("too many calls are being handled already; try again in a second")
        self._calls += 1
        try:
            return await method(await read(request.grpc_context, request.trailing_metadata), request)
        finally:
            self._calls -= 1


def _serialize(message: Any) -> bytes:
    return message.SerializeToString()  # type: ignore[no-any-return]


def _serialize_document(name: str, document: Mapping[str, Any]) -> bytes:
    """Serialize a document of REST as a message of Triton's extensions."""
    return _serialize(ParseDict(document, triton_message(name)()))
