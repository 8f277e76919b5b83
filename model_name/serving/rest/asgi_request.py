"""Request of the ASGI application."""

from asyncio import BaseTransport
from collections.abc import Awaitable, Callable, Mapping

from model_name.serving.context import ServerContext
from model_name.serving.request_lifecycle import RouteLabels
from model_name.serving.rest.endpoints import HttpRequest
from model_name.serving.rest.messages import HttpResponse, Receive, Scope

TRANSPORT_EXTENSION = "model_name.transport"
"""Extension of the ASGI scope that holds the transport of the connection."""


class AsgiRequest(HttpRequest):
    """Request of the ASGI application.

    Attributes:
        receive: Receives the parts of the body.
        method: Method, such as GET.
        path: Decoded path.
        path_params: Values of the parameters in the path of the route.
        transport: Transport that shows whether the client has disconnected; None in a test without a server.
    """

    __slots__ = ("method", "path", "path_params", "receive", "transport")

    def __init__(
        self,
        context: ServerContext,
        labels: RouteLabels,
        scope: Scope,
        receive: Receive,
        path_params: Mapping[str, str],
    ) -> None:
        """Start a request whose headers are complete."""
        super().__init__(context, labels, scope["headers"], dict(scope["headers"]))
        self.receive = receive
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.path_params = path_params
        self.transport: BaseTransport | None = scope.get("extensions", {}).get(TRANSPORT_EXTENSION)


Handler = Callable[[AsgiRequest], Awaitable[HttpResponse]]
