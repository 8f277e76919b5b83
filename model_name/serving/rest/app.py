"""The front of the server: an ASGI application that answers by itself what matters, and leaves the rest to KServe's.

KServe's routes spend a quarter of a millisecond on each request before a model sees it. Here a request goes from its
bytes to the batcher, and its answer from the batcher to the socket.
"""

import re
from asyncio import BaseTransport
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Any, NamedTuple

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from model_name.errors import ModelNameError, NotFoundError
from model_name.serving.batching.executor import InferenceResponse, InferenceOutcome
from model_name.serving.bundle import Manifest
from model_name.serving.context import ServerContext
from model_name.serving.protocols.tensors import model_metadata
from model_name.serving.request_errors import MethodNotAllowedError, UnsupportedOperationError, client_message
from model_name.serving.rest.endpoints import Door, Doors
from model_name.serving.rest.fast_path import LONG, Reply, Take
from model_name.serving.rest.messages import (
    CONNECTION_CLOSE,
    JSON,
    SECURITY_HEADERS,
    Application,
    Headers,
    HttpResponse,
    BodyReader,
    Receive,
    Scope,
    Send,
    response_headers,
)

Handler = Callable[[Scope, Receive], Awaitable[HttpResponse]]

PROTOCOL = "model_name.protocol"  # of a request, where it is another one than its path says
RETRY_AFTER: Headers = [(b"retry-after", b"1")]
OTHERS = re.compile(
    r"/v1/models/([^/]+?)(?:/versions/[^/]+)?:(predict|explain)"
    r"|/v2/models/([^/]+)(?:/versions/([^/]+))?/infer"
    r"|/v2/repository/models/([^/]+)/(load|unload)"
)
MODELS = re.compile(r"(/v2/models/([^/]+))(?:/versions/([^/]+))?(/ready)?|/v1/models/([^/]+)")


@dataclass(frozen=True, slots=True)
class Route:
    """What answers a path.

    Attributes:
        name: In the metrics.
        protocol: In the metrics.
        handle: Called with the scope and with what receives the body.
        is_open: Whether it needs no token.
        door: What `handle` takes the request through, where a request that comes whole needs no more.
    """

    name: str
    protocol: str
    handle: Handler
    is_open: bool = False
    door: Door | None = None


class Arrival(NamedTuple):
    """A request whose headers have come.

    Attributes:
        route: What answers it.
        door: What its body goes through.
        headers: All of them.
        by_name: The last of each name.
        started: When they had come.
    """

    route: Route
    door: Door
    headers: Headers
    by_name: Mapping[bytes, bytes]
    started: float


class Front:
    """Answers HTTP."""

    def __init__(self, service: ServerContext, rest: Application, pages: Mapping[str, Handler]) -> None:
        """Put it in front of `rest`.

        Args:
            service: What is served.
            rest: What answers everything else.
            pages: Other paths that are read.
        """
        self.service = service
        self.rest = rest
        self._versions: dict[str, Headers] = {}
        self._doors = Doors(service)
        self._intake = BodyReader(service.batcher.limits)
        name, state = service.name, service.state
        v1, v2 = f"/v1/models/{name}", f"/v2/models/{name}"
        probes = {
            "/v2/health/live": lambda: True,
            "/v2/health/ready": lambda: state.is_ready,
            "/v2/health/startup": lambda: state.is_started,
        }
        self._routes: dict[str, dict[str, Route]] = {
            **self._verbs(v1, v2),
            v1: {"GET": Route("ready", "v1", self._ready, is_open=True)},
            "/v2": {"GET": Route("metadata", "v2", self._server_metadata)},
            v2: {"GET": Route("metadata", "v2", self._model_metadata)},
            f"{v2}/ready": {"GET": Route("ready", "v2", self._ready, is_open=True)},
            "/metrics": {"GET": Route("metrics", "http", self._metrics, is_open=True)},
            **{
                path: {"GET": Route("health", "v2", partial(_probe, path, is_), is_open=True)}
                for path, is_ in probes.items()
            },
            **{path: {"GET": Route("page", "http", page)} for path, page in pages.items()},
        }
        self._short = {
            path.encode(): (route, route.door)
            for path, verbs in self._routes.items()
            if (route := verbs.get("POST")) is not None and route.door is not None
        }
        service.metrics.watch(queued=lambda: service.batcher.queued)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as of ASGI."""
        if scope["type"] != "http":
            await self.rest(scope, receive, send)
            return
        route = self._route(scope)
        if route is None:
            await self._leave(scope, receive, send)
            return
        started = perf_counter()
        self.service.metrics.in_flight += 1
        try:
            if not route.is_open:
                self.service.auth.check(scope["headers"])
            answer = await route.handle(scope, receive)
        except ModelNameError as err:
            answer = self._refused(scope.get(PROTOCOL, route.protocol), route, err)
        finally:
            self.service.metrics.in_flight -= 1
        self.service.metrics.observe_request(
            scope.get(PROTOCOL, route.protocol), route.name, answer.status, perf_counter() - started
        )
        await _send(send, answer, self._standing(answer.manifest))

    def shortcut(self, url: bytes, headers: Headers) -> Take | None:
        """What answers a request that comes whole, as of `Shortcuts`."""
        route = self._short.get(url)
        if route is None:
            return None
        by_name = dict(headers)
        if b"content-length" not in by_name or not LONG.isdisjoint(by_name):
            return None
        return partial(self._take, Arrival(*route, headers, by_name, perf_counter()))

    def _take(self, arrival: Arrival, body: bytes, transport: BaseTransport, reply: Reply) -> None:
        """Answer as `__call__` does, but without a task: what the batcher calls sends the answer."""
        service, route = self.service, arrival.route
        protocol = route.protocol
        client_message: Callable[[InferenceResponse], HttpResponse]  # before there is one, nothing is answered

        def end(outcome: InferenceOutcome) -> None:
            answer = client_message(outcome) if isinstance(outcome, InferenceResponse) else self._refused(protocol, route, outcome)
            service.metrics.in_flight -= 1
            service.metrics.observe_request(protocol, route.name, answer.status, perf_counter() - arrival.started)
            reply(answer, self._standing(answer.manifest))

        service.metrics.in_flight += 1
        try:
            service.auth.check(arrival.headers)
            service.batcher.limits.check_body(len(body))
            request, client_message = arrival.door(arrival.by_name, body)
            protocol = request.protocol
            service.repository.require()
            request.connection = transport
            service.batcher.submit(request, end)
        except ModelNameError as err:
            end(err)

    def _refused(self, protocol: str, route: Route, err: ModelNameError) -> HttpResponse:
        self.service.error_log.tell(f"{protocol} {route.name}", err)
        return refusal(err)

    def _standing(self, manifest: Manifest | None) -> Headers:
        """The headers of every answer: who made it, and what browsers must not do with it."""
        manifest = manifest or self.service.manifest
        key = f"{manifest.version} {manifest.semver}"
        headers = self._versions.get(key)
        if headers is None:
            self._versions.clear()
            version, semver = manifest.version.encode("ascii", "replace"), manifest.semver.encode("ascii", "replace")
            slot = self.service.metrics.slot.encode("ascii", "replace")
            versions = [(b"x-model-version", version), (b"x-model-semver", semver), (b"x-model-slot", slot)]
            headers = self._versions[key] = [*versions, *SECURITY_HEADERS]
        return [*headers, CONNECTION_CLOSE] if self.service.state.is_draining else headers

    def _verbs(self, v1: str, v2: str) -> dict[str, dict[str, Route]]:
        """What is computed here, and what is another server's."""
        predict: Door | None = self._doors.predict
        infer: Door | None = self._doors.infer
        explain: Door | None = None
        if self.service.verb == "explain":
            predict, infer, explain = None, None, self._doors.rows

        def through(name: str, protocol: str, door: Door | None) -> dict[str, Route]:
            handle: Handler = self._unserved if door is None else partial(self._pass, door)
            return {"POST": Route(name, protocol, handle, door=door)}

        return {
            f"{v1}:predict": through("predict", "v1", predict),
            f"{v1}:explain": through("explain", "v1", explain),
            f"{v2}/infer": through("infer", "v2", infer),
        }

    def _route(self, scope: Scope) -> Route | None:
        """What answers a request; None leaves it to KServe's routes."""
        methods = self._routes.get(scope["path"])
        if methods is None:
            other = OTHERS.fullmatch(scope["path"])
            if other is None:
                return self._read(scope)
            methods = {"POST": self._other(other)}
        route = methods.get(scope["method"]) or methods.get("GET" if scope["method"] == "HEAD" else "")
        is_open = any(one.is_open for one in methods.values())
        return route or Route("other", "http", partial(_refuse_method, ", ".join(methods)), is_open)

    def _read(self, scope: Scope) -> Route | None:
        """What tells of a model: nothing of another one, and of the version that is served as of the model."""
        asked = MODELS.fullmatch(scope["path"])
        if asked is None:
            return None
        name, version = asked[2] or asked[5], asked[3]
        if name != self.service.name or version not in (None, self.service.manifest.version):
            return Route("other", "http", partial(_not_found, name, self.service.name))
        if version is None:
            return None
        scope["path"] = asked[1] + (asked[4] or "")
        return self._route(scope)

    def _other(self, found: re.Match[str]) -> Route:
        """What answers a path with another model's name, with a version or with a change of the model."""
        v1_name, _, v2_name, version, changed, change = found.groups()
        if changed:
            return Route("repository", "v2", partial(self._change, name=changed, change=change))
        if v1_name or v2_name != self.service.name:
            return Route("other", "http", partial(_not_found, v1_name or v2_name, self.service.name))
        if self.service.verb == "explain":
            return Route("infer", "v2", self._unserved)
        return Route("infer", "v2", partial(self._pass, partial(self._doors.infer, version=version)))

    async def _pass(self, door: Door, scope: Scope, receive: Receive) -> HttpResponse:
        """Answer what comes through a door, as soon as all of it has come."""
        headers = dict(scope["headers"])
        body = await self._intake.body(headers, receive)
        request, client_message = door(headers, body)
        scope[PROTOCOL] = request.protocol
        self.service.repository.require()
        request.connection = scope.get("extensions", {}).get("model_name.connection")
        return client_message(await self.service.batcher.infer(request))

    async def _unserved(self, scope: Scope, receive: Receive) -> HttpResponse:
        if self.service.verb == "predict":
            raise UnsupportedOperationError(f"{self.service.name} predicts; its explainer is another server")
        raise UnsupportedOperationError(f"{self.service.name} explains; its predictor is another server")

    async def _change(self, scope: Scope, receive: Receive, name: str, change: str) -> HttpResponse:
        """Load or unload the model, in the words of KServe."""
        await self.service.repository.change(name, change)
        return HttpResponse(orjson.dumps({"name": name, change: True}))

    async def _ready(self, scope: Scope, receive: Receive) -> HttpResponse:
        is_ready = self.service.state.is_ready
        return HttpResponse(orjson.dumps({"name": self.service.name, "ready": is_ready}), 200 if is_ready else 503)

    async def _server_metadata(self, scope: Scope, receive: Receive) -> HttpResponse:
        return HttpResponse(orjson.dumps(self.service.server_metadata))

    async def _model_metadata(self, scope: Scope, receive: Receive) -> HttpResponse:
        return HttpResponse(orjson.dumps(model_metadata(self.service.name, self.service.manifest)))

    async def _metrics(self, scope: Scope, receive: Receive) -> HttpResponse:
        return HttpResponse(generate_latest(self.service.metrics.registry), 200, CONTENT_TYPE_LATEST.encode())

    async def _leave(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let KServe's routes answer."""
        started = perf_counter()
        status = 500

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *self._standing(None)]
            await send(message)

        self.service.metrics.in_flight += 1
        try:
            self.service.auth.check(scope["headers"])
            await self.rest(scope, receive, send_with_headers)
        except ModelNameError as err:
            await _send(send_with_headers, refusal(err), [])
        finally:
            self.service.metrics.in_flight -= 1
            self.service.metrics.observe_request("http", "other", status, perf_counter() - started)


def refusal(err: ModelNameError) -> HttpResponse:
    """The answer that says why there is none."""
    status = err.http_status
    headers: Headers = []
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        headers = RETRY_AFTER
    elif status == HTTPStatus.UNAUTHORIZED:
        headers = [(b"www-authenticate", b"Bearer")]
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = [(b"allow", err.hint.encode())]
    return HttpResponse(error_body(err), status, JSON, headers)


def error_body(err: ModelNameError) -> bytes:
    """The body that says so."""
    return orjson.dumps({"error": client_message(err)})


async def _send(send: Send, answer: HttpResponse, standing: Headers) -> None:
    headers = response_headers(answer, standing)
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def _probe(path: str, is_so: Callable[[], bool], _: Scope, __: Receive) -> HttpResponse:
    """Answer a probe, in the words of V2."""
    word = path.rsplit("/", 1)[1]
    found = is_so()
    return HttpResponse(orjson.dumps({word: found}), 200 if found else 503)


async def _refuse_method(allowed: str, scope: Scope, _: Receive) -> HttpResponse:
    raise MethodNotAllowedError(f"{scope['method']} is not what {scope['path'][:200]} takes; that is {allowed}", hint=allowed)


async def _not_found(name: str, served: str, _: Scope, __: Receive) -> HttpResponse:
    raise NotFoundError(f"there is no model {name[:100]} here, or no such version; this server serves {served}")
