"""Fast path of inference requests that arrive whole: from the HTTP parser to the batcher, and back to the socket.

Uvicorn creates a task, a scope and four messages per request, which takes as long as the prediction of a row. A
request that may have to wait, for the rest of its body or for a client that does not read, is handled by the ASGI
application instead; its response is the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from model_name.errors import ModelNameError
from model_name.serving.batching.executor import InferenceOutcome
from model_name.serving.context import ServerContext
from model_name.serving.request_lifecycle import RouteLabels
from model_name.serving.rest.endpoints import (
    Decoder,
    HttpInferenceRequest,
    HttpRequest,
    InferenceRoute,
    RequestTarget,
)
from model_name.serving.rest.messages import (
    CONNECTION_CLOSE,
    CommonHeaders,
    Headers,
    HttpResponse,
    error_response,
    response_headers,
)

SLOW_PATH_HEADERS = frozenset({b"transfer-encoding", b"content-encoding", b"expect"})
"""Headers of requests that only the ASGI application handles."""


class FastRouter:
    """Finds requests for the fast path by their exact path."""

    def __init__(
        self,
        context: ServerContext,
        routes: Sequence[InferenceRoute],
        common_headers: CommonHeaders,
        *,
        has_cors: bool = False,
    ) -> None:
        """Index the routes of one model that have a decoder and no version in their path.

        Args:
            context: Objects that all requests share.
            routes: Routes of inference requests.
            common_headers: Headers that all responses share.
            has_cors: Whether responses to web pages have further headers, which the application adds.
        """
        self._slow_headers = SLOW_PATH_HEADERS | {b"origin"} if has_cors else SLOW_PATH_HEADERS
        self.context = context
        self.common_headers = common_headers
        self._routes = {
            route.path.format(model_name=context.name).encode(): (route.labels, route.decode, route.path)
            for route in routes
            if route.decode is not None and "{requested_version}" not in route.path
        }

    def match(self, connection: Any, url: bytes, headers: Headers) -> "FastRequest | None":
        """Start a request if it may take the fast path.

        Args:
            connection: Uvicorn protocol of the connection.
            url: Path and query of the request.
            headers: Headers of the request, names in lower case.
        """
        route = self._routes.get(url)
        if route is None:
            return None
        by_name = dict(headers)
        if b"content-length" not in by_name or not self._slow_headers.isdisjoint(by_name):
            return None
        if b"host" not in by_name or len(by_name) != len(headers):  # the application checks which one is repeated
            return None
        return FastRequest(self, route, connection, headers, by_name)


class FastRequest(HttpRequest):
    """Request on the fast path, from its headers to its response.

    It has the attributes that uvicorn expects of a `RequestResponseCycle`, but no task, no scope and no messages.

    Attributes:
        parts: Received parts of the body.
        keep_alive: Whether the connection stays open after the response.
        disconnected: Whether the client has disconnected.
        response_complete: Whether the response has been written.
    """

    __slots__ = (
        "_common_headers",
        "_connection",
        "_decode",
        "_request",
        "_route_path",
        "disconnected",
        "keep_alive",
        "parts",
        "response_complete",
    )

    more_body = False
    message_event = asyncio.Event()  # uvicorn sets it; nothing waits for it

    def __init__(
        self,
        router: FastRouter,
        route: tuple[RouteLabels, Decoder, str],
        connection: Any,
        headers: Headers,
        by_name: Mapping[bytes, bytes],
    ) -> None:
        """Start a request whose headers are complete."""
        labels, self._decode, self._route_path = route
        super().__init__(router.context, labels, headers, by_name)
        self._common_headers = router.common_headers
        self._connection = connection
        self._request: HttpInferenceRequest
        self.parts: list[bytes] = []
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False

    @override
    def target(self) -> RequestTarget:
        connection = self._connection
        return RequestTarget("POST", connection.url.decode("latin-1"), connection.scheme, self._route_path)

    def run(self) -> None:
        """Submit the request to the batcher, now that its body is complete."""
        self.begin()
        try:
            self.authenticate()
            body = b"".join(self.parts)
            batcher = self.context.batcher
            batcher.limits.check_body(len(body))
            self._request = self.decode_request(self._decode, body, self._connection.transport)
            batcher.submit(self._request, self.finish)
        except ModelNameError as err:
            self.finish(err)

    def finish(self, outcome: InferenceOutcome) -> None:
        """End the request with the outcome of its batch, or with an error."""
        if isinstance(outcome, ModelNameError):
            self.fail(outcome)
            self._send(error_response(outcome))
        else:
            self.end(200)
            self._send(self._request.to_http(outcome))

    def _send(self, response: HttpResponse) -> None:
        """Send the response in one write."""
        connection, self._connection = self._connection, None  # a cycle: the connection refers to its last request
        self.response_complete = True
        if self.disconnected or connection.transport.is_closing():
            return
        common = self._common_headers.build(response)
        is_last = CONNECTION_CLOSE in common
        if not self.keep_alive and not is_last:
            common, is_last = [*common, CONNECTION_CLOSE], True
        headers = [
            *connection.server_state.default_headers,
            *response_headers(response, self.identity_headers(), common),
        ]
        connection.transport.write(serialize_response(response, headers))
        if is_last:
            connection.transport.close()
        connection.on_response_complete()


def serialize_response(response: HttpResponse, headers: Headers) -> bytes:
    """Serialize a response with all its headers for HTTP/1.1."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[response.status], *lines, b"\r\n", response.body])
