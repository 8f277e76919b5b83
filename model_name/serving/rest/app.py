"""ASGI application of a server: every route of V1, V2, CloudEvents, probes, metrics and pages.

KServe's own server spends a quarter of a millisecond per request before the model runs. This application passes the
body to the batcher without decoding it, and sends the response as the batcher encoded it.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from starlette.routing import Match, Route

from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.serving.context import ServerContext
from model_name.serving.protocols.v2 import check_version
from model_name.serving.request_errors import MethodNotAllowedError, TooManyConnectionsError, UnsupportedOperationError
from model_name.serving.request_lifecycle import RouteLabels
from model_name.serving.rest.asgi_request import SURPLUS_EXTENSION, AsgiRequest, Handler
from model_name.serving.rest.body import BodyReader
from model_name.serving.rest.cors import CorsPolicy
from model_name.serving.rest.endpoints import Decoder, ServerRole
from model_name.serving.rest.fast_path import FastRouter
from model_name.serving.rest.handlers import ServerHandlers
from model_name.serving.rest.messages import (
    CONNECTION_CLOSE,
    CommonHeaders,
    Headers,
    HttpResponse,
    Receive,
    Scope,
    Send,
    error_response,
    response_headers,
)
from model_name.serving.rest.pages import PUBLIC_PAGES
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
PUBLIC_PAGE = RouteLabels("page", "http", is_public=True)
OTHER = RouteLabels("other", "http")
PUBLIC_OTHER = RouteLabels("other", "http", is_public=True)
NO_CORS = CorsPolicy()


class HttpRoute(Route):
    """Starlette route with a handler of this application and labels.

    A `{model_name}` in its path has to be the served model, and a `{model_version}` or a `{requested_version}` the
    served version.

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

    @property
    def allowed_methods(self) -> str:
        """All methods that the route takes, as the header `allow` lists them."""
        return "GET, HEAD, OPTIONS" if self.method == "GET" else f"{self.method}, OPTIONS"

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
        cors: Origins whose pages may read responses.
        fast_router: Finds requests that may bypass the application.
    """

    def __init__(
        self,
        context: ServerContext,
        role: ServerRole,
        pages: Mapping[str, Handler],
        cors: CorsPolicy = NO_CORS,
    ) -> None:
        """Build the routes.

        Args:
            context: Objects that all requests share.
            role: Kind of the server.
            pages: Handlers of further GET routes, by path.
            cors: Origins whose pages may read responses.
        """
        self.context = context
        self.role = role
        self.cors = cors
        self._common_headers = CommonHeaders(context)
        self._body_reader = BodyReader(context.batcher.limits, context.batcher.budget)
        self._routes = [*self._inference_routes(), *self._server_routes(ServerHandlers(context))]
        public = PUBLIC_PAGES if role.has_pages else ()
        self._routes += [HttpRoute(path, page, PUBLIC_PAGE if path in public else PAGE) for path, page in pages.items()]
        for route in self._routes:
            route.match_name(context.name)
        self.fast_router = FastRouter(context, role.routes, self._common_headers, has_cors=cors.is_enabled)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an HTTP request, as ASGI defines it."""
        handler, labels, path_params, route_path = self._match_general(scope) or self._match(scope)
        if not labels.is_public and SURPLUS_EXTENSION in scope.get("extensions", {}):
            handler, labels = _too_many_connections, PUBLIC_OTHER
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
        headers += self.cors.response_headers(request.headers)
        if response.status >= HTTPStatus.BAD_REQUEST and any(name == b"expect" for name, _ in request.headers):
            headers.append(CONNECTION_CLOSE)  # whether its body follows cannot be known
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    def _match_general(self, scope: Scope) -> MatchedRoute | None:
        """Find the handler of a request to which every path gives the same response."""
        if not _has_valid_host(scope):
            return MatchedRoute(_invalid_host, PUBLIC_OTHER, {})
        if self.cors.is_preflight(scope["method"], scope["headers"]):
            return MatchedRoute(self._preflight, PUBLIC_OTHER, {})
        return None

    def _match(self, scope: Scope) -> MatchedRoute:
        """Find the handler of a request; the first route whose path matches decides."""
        for route in self._routes:
            match, child_scope = route.matches(scope)
            if match is Match.NONE:
                continue
            path_params = child_scope["path_params"]
            if path_params.get("model_name", self.context.name) != self.context.name:
                return MatchedRoute(self._unknown_model, OTHER, path_params)
            if match is Match.PARTIAL:
                labels = PUBLIC_OTHER if route.labels.is_public else OTHER
                handler = _options if scope["method"] == "OPTIONS" else _method_not_allowed
                return MatchedRoute(partial(handler, route), labels, path_params, route.path)
            version = path_params.get("model_version", path_params.get("requested_version", ""))
            if version not in ("", self.context.manifest.version):
                return MatchedRoute(partial(self._unknown_version, version), route.labels, path_params, route.path)
            return MatchedRoute(route.handler, route.labels, path_params, route.path)
        return MatchedRoute(_not_found, OTHER, {})

    def _inference_routes(self) -> Iterator[HttpRoute]:
        for route in self.role.routes:
            handler = self._unsupported if route.decode is None else partial(self._infer, route.decode)
            yield HttpRoute(route.path, handler, route.labels, "POST")

    def _server_routes(self, handlers: ServerHandlers) -> Iterator[HttpRoute]:
        yield HttpRoute("/v2/health/live", handlers.live, HEALTH)
        yield HttpRoute("/v2/health/ready", handlers.ready, HEALTH)
        yield HttpRoute("/v2/health/startup", handlers.startup, HEALTH)
        yield HttpRoute("/metrics", handlers.metrics, METRICS)
        yield HttpRoute("/v1/models", handlers.list_models, OTHER)
        yield HttpRoute("/v1/models/{model_name}", handlers.model_ready, READY)
        yield HttpRoute("/v1/models/{model_name}/versions/{model_version}", handlers.version_status, READY)
        yield HttpRoute("/v2", handlers.server_metadata, METADATA)
        yield HttpRoute("/v2/models", handlers.list_models, OTHER)
        if self.context.name != "stats":  # else the path is that of the model's metadata
            yield HttpRoute("/v2/models/stats", handlers.model_statistics, METADATA)
        for path in ("/v2/models/{model_name}", "/v2/models/{model_name}/versions/{model_version}"):
            yield HttpRoute(path, handlers.model_metadata, METADATA)
            yield HttpRoute(f"{path}/config", handlers.model_config, METADATA)
            yield HttpRoute(f"{path}/stats", handlers.model_statistics, METADATA)
            yield HttpRoute(f"{path}/ready", handlers.model_ready, V2_READY)
        index = partial(self._repository_index, handlers)
        yield HttpRoute("/v2/repository/index", index, REPOSITORY, "POST")
        yield HttpRoute("/v2/repository/models/{repository_name}/load", handlers.load, REPOSITORY, "POST")
        yield HttpRoute("/v2/repository/models/{repository_name}/unload", handlers.unload, REPOSITORY, "POST")

    async def _infer(self, decode: Decoder, request: AsgiRequest) -> HttpResponse:
        headers = {**request.by_name, b"content-encoding": _content_encoding(request.headers)}
        body = await self._body_reader.read(headers, request.receive)
        version = request.path_params.get("requested_version", "")
        inference_request = request.decode_request(decode, body, request.transport, version)
        return inference_request.to_http(await self.context.batcher.infer(inference_request))

    async def _repository_index(self, handlers: ServerHandlers, request: AsgiRequest) -> HttpResponse:
        headers = {**request.by_name, b"content-encoding": _content_encoding(request.headers)}
        return handlers.repository_index(await self._body_reader.read(headers, request.receive))

    async def _unsupported(self, request: AsgiRequest) -> HttpResponse:
        raise UnsupportedOperationError(self.role.unsupported.format(name=self.context.name))

    async def _unknown_model(self, request: AsgiRequest) -> HttpResponse:
        name, served = request.path_params["model_name"][:MAX_QUOTED_NAME], self.context.name
        raise NotFoundError(f"there is no model {name} here, or no such version; this server serves {served}")

    async def _unknown_version(self, version: str, request: AsgiRequest) -> HttpResponse:
        check_version(version, self.context.manifest, self.context.name)
        raise NotFoundError("the version was replaced while this request arrived; repeat it")

    async def _preflight(self, request: AsgiRequest) -> HttpResponse:
        return HttpResponse(b"", headers=self.cors.preflight_headers())


def _content_encoding(headers: Headers) -> bytes:
    """Join all content encodings of a request."""
    return b",".join([value for name, value in headers if name == b"content-encoding"])


def _has_valid_host(scope: Scope) -> bool:
    """Report whether a request has the header `host` as HTTP requires: once, but not necessarily before HTTP/1.1."""
    count = sum([name == b"host" for name, _ in scope["headers"]])
    return count == 1 or (count == 0 and scope.get("http_version") != "1.1")


async def _invalid_host(_: AsgiRequest) -> HttpResponse:
    raise DataError("the request has no Host header, or more than one; HTTP/1.1 requires exactly one")


async def _too_many_connections(_: AsgiRequest) -> HttpResponse:
    raise TooManyConnectionsError("this server has too many connections; try again in a second")


async def _options(route: HttpRoute, _: AsgiRequest) -> HttpResponse:
    return HttpResponse(b"", headers=[(b"allow", route.allowed_methods.encode())])


async def _method_not_allowed(route: HttpRoute, request: AsgiRequest) -> HttpResponse:
    message = f"{request.method} is not what {request.path[:MAX_QUOTED_PATH]} takes; that is {route.method}"
    raise MethodNotAllowedError(message, hint=route.allowed_methods)


async def _not_found(_: AsgiRequest) -> HttpResponse:
    raise NotFoundError("Not Found")
