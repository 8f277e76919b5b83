"""ASGI application of a server: every route of V1, V2, CloudEvents, probes, metrics and pages.

KServe's own server spends a quarter of a millisecond per request before the model runs. This application passes the
body to the batcher without decoding it, and sends the response as the batcher encoded it.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

from starlette.routing import Match, Route

from model_name.errors import ModelNameError, NotFoundError
from model_name.serving.context import ServerContext
from model_name.serving.request_errors import MethodNotAllowedError, UnsupportedOperationError
from model_name.serving.request_lifecycle import RouteLabels
from model_name.serving.rest.asgi_request import AsgiRequest, Handler
from model_name.serving.rest.body import BodyReader
from model_name.serving.rest.endpoints import Decoder, ServerRole
from model_name.serving.rest.fast_path import FastRouter
from model_name.serving.rest.handlers import ServerHandlers
from model_name.serving.rest.messages import (
    CommonHeaders,
    HttpResponse,
    Receive,
    Scope,
    Send,
    error_response,
    response_headers,
)
from model_name.serving.runtime.access_log import current_request_id

logger = logging.getLogger("model_name.serving")

MAX_QUOTED_NAME = 100  # characters of what a client sent, in an error message
MAX_QUOTED_PATH = 200

READY = RouteLabels("ready", "v1", is_public=True)
V2_READY = RouteLabels("ready", "v2", is_public=True)
METADATA = RouteLabels("metadata", "v2")
HEALTH = RouteLabels("health", "v2", is_public=True)
METRICS = RouteLabels("metrics", "http", is_public=True)
REPOSITORY = RouteLabels("repository", "v2")
PAGE = RouteLabels("page", "http")
OTHER = RouteLabels("other", "http")
PUBLIC_OTHER = RouteLabels("other", "http", is_public=True)


class HttpRoute(Route):
    """Starlette route with a handler of this application and labels.

    A `{model_name}` in its path has to be the served model, and a `{model_version}` the served version.

    Attributes:
        handler: Handler of its requests.
        labels: Labels in metrics and logs.
        method: Method of its requests; a GET route also takes HEAD.
    """

    def __init__(self, path: str, handler: Handler, labels: RouteLabels, method: str = "GET") -> None:
        """Route a path and a method to a handler."""
        super().__init__(path, handler, methods=[method])
        self.handler = handler
        self.labels = labels
        self.method = method

    def match_name(self, model_name: str) -> None:
        """Let `{model_name}` match a name that contains slashes, besides any text without them."""
        pattern = self.path_regex.pattern.replace("(?P<model_name>", f"(?P<model_name>{re.escape(model_name)}|")
        self.path_regex = re.compile(pattern)


class MatchedRoute(NamedTuple):
    """Handler of one request, with the labels of its route, the parameters of its path and the path of the route."""

    handler: Handler
    labels: RouteLabels
    path_params: Mapping[str, str]
    path: str = ""


class RestApp:
    """ASGI application of one served model.

    Attributes:
        context: Objects that all requests share.
        role: Kind of the server.
        fast_router: Finds requests that may bypass the application.
    """

    def __init__(self, context: ServerContext, role: ServerRole, pages: Mapping[str, Handler]) -> None:
        """Build the routes.

        Args:
            context: Objects that all requests share.
            role: Kind of the server.
            pages: Handlers of further GET routes, by path.
        """
        self.context = context
        self.role = role
        self._common_headers = CommonHeaders(context)
        self._body_reader = BodyReader(context.batcher.limits)
        self._routes = [*self._inference_routes(), *self._server_routes(ServerHandlers(context))]
        self._routes += [HttpRoute(path, page, PAGE) for path, page in pages.items()]
        for route in self._routes:
            route.match_name(context.name)
        self.fast_router = FastRouter(context, role.routes, self._common_headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an HTTP request, as ASGI defines it."""
        handler, labels, path_params, route_path = self._match(scope)
        request = AsgiRequest(self.context, labels, scope, receive, path_params, route_path=route_path)
        current_request_id.set(request.id)
        try:
            with request:
                request.authenticate()
                response = await handler(request)
                request.status = response.status
        except ModelNameError as err:
            response = error_response(err)
        # The outermost loop of a request: whatever a handler raises, the client gets an error with its id.
        except Exception as err:
            logger.exception("request %s failed", request.id)
            response = error_response(ModelNameError(f"the server failed: {type(err).__name__}"))
        headers = response_headers(response, request.identity_headers(), self._common_headers.build(response))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _match(self, scope: Scope) -> MatchedRoute:
        """Find the handler of a request; the first route whose path matches decides."""
        for route in self._routes:
            match, child_scope = route.matches(scope)
            if match is Match.NONE:
                continue
            path_params = child_scope["path_params"]
            if not self._is_served(path_params):
                return MatchedRoute(self._unknown_model, OTHER, path_params)
            if match is Match.PARTIAL:
                labels = PUBLIC_OTHER if route.labels.is_public else OTHER
                return MatchedRoute(partial(_method_not_allowed, route.method), labels, path_params, route.path)
            return MatchedRoute(route.handler, route.labels, path_params, route.path)
        return MatchedRoute(_not_found, OTHER, {})

    def _is_served(self, path_params: Mapping[str, str]) -> bool:
        is_model = path_params.get("model_name", self.context.name) == self.context.name
        version = self.context.manifest.version
        return is_model and path_params.get("model_version", version) == version

    def _inference_routes(self) -> Iterator[HttpRoute]:
        for route in self.role.routes:
            handler = self._unsupported if route.decode is None else partial(self._infer, route.decode)
            yield HttpRoute(route.path, handler, route.labels, "POST")
        for verb in ("predict", "explain"):  # V1 has no versions
            path = f"/v1/models/{{model_name}}/versions/{{model_version}}:{verb}"
            yield HttpRoute(path, self._unknown_model, OTHER, "POST")

    def _server_routes(self, handlers: ServerHandlers) -> Iterator[HttpRoute]:
        yield HttpRoute("/v2/health/live", handlers.live, HEALTH)
        yield HttpRoute("/v2/health/ready", handlers.ready, HEALTH)
        yield HttpRoute("/v2/health/startup", handlers.startup, HEALTH)
        yield HttpRoute("/metrics", handlers.metrics, METRICS)
        yield HttpRoute("/v1/models", handlers.list_models, OTHER)
        yield HttpRoute("/v1/models/{model_name}", handlers.model_ready, READY)
        yield HttpRoute("/v2", handlers.server_metadata, METADATA)
        yield HttpRoute("/v2/models", handlers.list_models, OTHER)
        for path in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
            yield HttpRoute(path, handlers.model_metadata, METADATA)
            yield HttpRoute(f"{path}/ready", handlers.model_ready, V2_READY)
        yield HttpRoute("/v2/repository/models/{repository_name}/load", handlers.load, REPOSITORY, "POST")
        yield HttpRoute("/v2/repository/models/{repository_name}/unload", handlers.unload, REPOSITORY, "POST")

    async def _infer(self, decode: Decoder, request: AsgiRequest) -> HttpResponse:
        body = await self._body_reader.read(request.by_name, request.receive)
        version = request.path_params.get("requested_version", "")
        inference_request = request.decode_request(decode, body, request.transport, version)
        return inference_request.to_http(await self.context.batcher.infer(inference_request))

    async def _unsupported(self, request: AsgiRequest) -> HttpResponse:
        raise UnsupportedOperationError(self.role.unsupported.format(name=self.context.name))

    async def _unknown_model(self, request: AsgiRequest) -> HttpResponse:
        name, served = request.path_params["model_name"][:MAX_QUOTED_NAME], self.context.name
        raise NotFoundError(f"there is no model {name} here, or no such version; this server serves {served}")


async def _method_not_allowed(allowed: str, request: AsgiRequest) -> HttpResponse:
    path = request.path[:MAX_QUOTED_PATH]
    raise MethodNotAllowedError(f"{request.method} is not what {path} takes; that is {allowed}", hint=allowed)


async def _not_found(_: AsgiRequest) -> HttpResponse:
    raise NotFoundError("Not Found")
