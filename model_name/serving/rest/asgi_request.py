"""Request of the ASGI application."""

from asyncio import BaseTransport
from collections.abc import Awaitable, Callable, Mapping

from typing_extensions import override

from model_name.serving.context import ServerContext
from model_name.serving.request_lifecycle import RouteLabels
from model_name.serving.rest.endpoints import HttpRequest, RequestTarget
from model_name.serving.rest.messages import HttpResponse, Receive, Scope

TRANSPORT_EXTENSION = "model_name.transport"
"""Extension of the ASGI scope that holds the transport of the connection."""

SURPLUS_EXTENSION = "model_name.surplus"
"""Extension of the ASGI scope of requests on connections beyond the maximum number."""


class AsgiRequest(HttpRequest):
    """Request of the ASGI application.

    Attributes:
        receive: Receives the parts of the body.
        method: Method, such as GET.
        path: Decoded path.
        scheme: http or https.
        path_params: Values of the parameters in the path of the route.
        route_path: Path of the route, with placeholders for its parameters; empty if no route matches.
        transport: Transport that shows whether the client has disconnected; None in a test without a server.
    """

    __slots__ = ("method", "path", "path_params", "receive", "route_path", "scheme", "transport")

    def __init__(
        self,
        context: ServerContext,
        labels: RouteLabels,
        scope: Scope,
        receive: Receive,
        path_params: Mapping[str, str],
        *,
        route_path: str = "",
    ) -> None:
        """Start a request whose headers are complete."""
        super().__init__(context, labels, scope["headers"], dict(scope["headers"]))
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.scheme: str = scope.get("scheme", "http")
        self.path_params = path_params
        self.route_path = route_path
        self.transport: BaseTransport | None = scope.get("extensions", {}).get(TRANSPORT_EXTENSION)

    @override
    def target(self) -> RequestTarget:
        return RequestTarget(self.method, self.path, self.scheme, self.route_path)


Handler = Callable[[AsgiRequest], Awaitable[HttpResponse]]
