"""Inference endpoints of HTTP: decoding of headers, rendering of responses, and the routes of each kind of server."""

from abc import abstractmethod
from asyncio import BaseTransport
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from typing_extensions import override

from model_name.errors import DataError
from model_name.serving.batching.executor import InferenceResponse
from model_name.serving.batching.request_trace import TRACEPARENT, TRACERESPONSE, parse_trace_id
from model_name.serving.batching.requests import InferenceRequest
from model_name.serving.context import ServerContext
from model_name.serving.protocols.cloudevents import EventRequest, is_event
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import BinaryResponse, V2Request
from model_name.serving.request_lifecycle import RequestLifecycle, RouteLabels
from model_name.serving.rest.messages import JSON, REQUEST_ID, Headers, HttpResponse
from model_name.serving.tracing import SpanEnd, SpanStart

HTTP_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
"""Methods in the semantic conventions of OpenTelemetry; any other one is `_OTHER` in the attributes of a span."""
MAX_PATH_CHARACTERS = 500  # of an attribute
MAX_METHOD_CHARACTERS = 50
TRACEPARENT_HEADER, TRACERESPONSE_HEADER = TRACEPARENT.encode(), TRACERESPONSE.encode()
OCTET_STREAM = b"application/octet-stream"
MAX_LENGTH_DIGITS = 12


class HttpInferenceRequest(InferenceRequest):
    """Inference request that renders its own HTTP response."""

    @abstractmethod
    def to_http(self, response: InferenceResponse) -> HttpResponse:
        """Render the response to this request."""


Decoder = Callable[[ServerContext, Mapping[bytes, bytes], bytes, str, str], HttpInferenceRequest]
"""Creates an inference request from headers by lower-case name, a body, the id of the request and a version of the
model (empty for any).

Raises:
    DataError: A header has an invalid value.
"""


class HttpV1Request(V1Request, HttpInferenceRequest):
    """V1 request over HTTP."""

    @override
    def to_http(self, response: InferenceResponse) -> HttpResponse:
        return HttpResponse(response.payload, 200, JSON, [], response.manifest)


class HttpEventRequest(EventRequest, HttpInferenceRequest):
    """CloudEvent over HTTP."""

    @override
    def to_http(self, response: InferenceResponse) -> HttpResponse:
        event = response.payload
        return HttpResponse(event.body, 200, event.content_type, event.headers, response.manifest)


class HttpV2Request(V2Request, HttpInferenceRequest):
    """V2 request over HTTP."""

    @override
    def to_http(self, response: InferenceResponse) -> HttpResponse:
        payload = response.payload
        if not isinstance(payload, BinaryResponse):
            return HttpResponse(payload, 200, JSON, [], response.manifest)
        headers = [(b"inference-header-content-length", str(payload.json_length).encode())]
        return HttpResponse(payload.content, 200, OCTET_STREAM, headers, response.manifest)


def decode_v1(
    _context: ServerContext, _headers: Mapping[bytes, bytes], body: bytes, request_id: str, _version: str = ""
) -> HttpInferenceRequest:
    """Create a V1 request; see `Decoder`."""
    return HttpV1Request(body, request_id)


def decode_v1_or_event(
    context: ServerContext, headers: Mapping[bytes, bytes], body: bytes, request_id: str, _version: str = ""
) -> HttpInferenceRequest:
    """Create a V1 request, or a CloudEvent that contains one; see `Decoder`."""
    if is_event(headers):
        return HttpEventRequest(body, request_id, headers=headers, name=context.name)
    return HttpV1Request(body, request_id)


def decode_v2(
    context: ServerContext, headers: Mapping[bytes, bytes], body: bytes, request_id: str, version: str = ""
) -> HttpInferenceRequest:
    """Create a V2 request; see `Decoder`."""
    json_length = _json_length(headers)
    return HttpV2Request(body, request_id, name=context.name, version=version, json_length=json_length)


@dataclass(frozen=True, slots=True)
class InferenceRoute:
    """Route of inference requests.

    Attributes:
        path: Path with `{model_name}`, and `{requested_version}` where the client may choose a version.
        labels: Labels in metrics and logs.
        decode: Decoder of its requests; None if this server responds with 501.
    """

    path: str
    labels: RouteLabels
    decode: Decoder | None


@dataclass(frozen=True, slots=True)
class ServerRole:
    """Kind of a server: predictor or explainer.

    Attributes:
        routes: Routes of inference requests.
        unsupported: Message of the routes without a decoder; `{name}` stands for the name of the model.
        has_pages: Whether it serves the model card and the OpenAPI document.
    """

    routes: tuple[InferenceRoute, ...]
    unsupported: str
    has_pages: bool


def _routes(predict: Decoder | None, explain: Decoder | None, infer: Decoder | None) -> tuple[InferenceRoute, ...]:
    labels = RouteLabels("infer", "v2")
    return (
        InferenceRoute("/v1/models/{model_name}:predict", RouteLabels("predict", "v1"), predict),
        InferenceRoute("/v1/models/{model_name}:explain", RouteLabels("explain", "v1"), explain),
        InferenceRoute(
            "/v1/models/{model_name}/versions/{requested_version}:predict", RouteLabels("predict", "v1"), predict
        ),
        InferenceRoute(
            "/v1/models/{model_name}/versions/{requested_version}:explain", RouteLabels("explain", "v1"), explain
        ),
        InferenceRoute("/v2/models/{model_name}/infer", labels, infer),
        InferenceRoute("/v2/models/{model_name}/versions/{requested_version}/infer", labels, infer),
    )


PREDICTOR = ServerRole(
    _routes(predict=decode_v1_or_event, explain=None, infer=decode_v2),
    unsupported="{name} predicts; its explainer is another server",
    has_pages=True,
)
EXPLAINER = ServerRole(
    _routes(predict=None, explain=decode_v1, infer=None),
    unsupported="{name} explains; its predictor is another server",
    has_pages=False,
)


class RequestTarget(NamedTuple):
    """Method, path and route of an HTTP request.

    Attributes:
        method: Method, such as GET.
        path: Path without the query.
        scheme: http or https.
        route_path: Path of the route, with placeholders for its parameters; empty if no route matches.
    """

    method: str
    path: str
    scheme: str
    route_path: str


class HttpRequest(RequestLifecycle):
    """Request over HTTP, on the fast path or through the ASGI application.

    Attributes:
        headers: Headers in their order, names in lower case.
        by_name: Headers by name; the last one of several with the same name.
    """

    __slots__ = ("by_name", "headers")

    def __init__(
        self, context: ServerContext, route: RouteLabels, headers: Headers, by_name: Mapping[bytes, bytes]
    ) -> None:
        """Start a request whose headers are complete."""
        super().__init__(context, route, by_name.get(REQUEST_ID))
        self.headers = headers
        self.by_name = by_name

    @override
    def metadata(self) -> Iterable[tuple[bytes, bytes]]:
        return self.headers

    @abstractmethod
    def target(self) -> RequestTarget:
        """Return what the client requests, for its span."""

    @override
    def describe_start(self) -> SpanStart:
        method, path, scheme, route_path = self.target()
        is_known = method in HTTP_METHODS
        attributes = {
            "http.request.method": method if is_known else "_OTHER",
            "url.path": path[:MAX_PATH_CHARACTERS],
            "url.scheme": scheme,
        }
        if not is_known:
            attributes["http.request.method_original"] = method[:MAX_METHOD_CHARACTERS]
        name = method if is_known else "HTTP"
        if route_path:
            attributes["http.route"] = route_path
            name = f"{name} {route_path}"
        return SpanStart(name, attributes, is_event=True)

    @override
    def describe_end(self, status: int, err: BaseException | None) -> SpanEnd:
        is_error = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        return SpanEnd({"http.response.status_code": status}, is_error, type(err).__name__ if err else "")

    def identity_headers(self) -> Headers:
        """Build the headers of the response that name the request: its id, and its span if it is traced."""
        headers = [(REQUEST_ID, self.id.encode())]
        if self.span is not None:
            headers.append((TRACERESPONSE_HEADER, self.span.traceresponse.encode()))
        return headers

    def decode_request(
        self,
        decode: Decoder,
        body: bytes,
        connection: BaseTransport | None,
        version: str = "",
    ) -> HttpInferenceRequest:
        """Create the request for the batcher.

        Args:
            decode: Decoder of the route.
            body: Body of the request.
            connection: Transport that shows whether the client has disconnected.
            version: Version of the model in the path.

        Raises:
            DataError: A header has an invalid value.
            ModelNotLoadedError: A client has unloaded the model.
        """
        request = decode(self.context, self.by_name, body, self.id, version)
        self.protocol = request.protocol
        self.context.repository.check_loaded()
        request.connection = connection
        if self.span is not None:
            self.span.attach(request)
        elif TRACEPARENT_HEADER in self.by_name:
            request.trace_id = parse_trace_id(self.by_name[TRACEPARENT_HEADER].decode("latin-1"))
        return request


def _json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Read the length of the JSON before binary tensors.

    Raises:
        DataError: The header is not a number of bytes.
    """
    length = headers.get(b"inference-header-content-length")
    if length is None:
        return None
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        raise DataError("Inference-Header-Content-Length is not a number of bytes")
    return int(length)
