"""Every protocol counts, authenticates, logs and times a request alike."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import uvicorn
from prometheus_client import CollectorRegistry
from uvicorn.server import ServerState as UvicornState

from model_name.errors import DataError, ModelNameError
from model_name.serving.auth import TokenAuth
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.requests import InferenceRequest
from model_name.serving.context import ServerContext
from model_name.serving.grpc.message_reader import MessageReader
from model_name.serving.grpc.servicer import SERVICE_NAME, InferenceServicer
from model_name.serving.grpc.statuses import STATUS_CODES
from model_name.serving.limits import Limits
from model_name.serving.model_repository import ModelRepository
from model_name.serving.protocols.open_inference_messages import pb
from model_name.serving.request_errors import ErrorLogger, one_line
from model_name.serving.request_lifecycle import RequestLifecycle, RouteLabels
from model_name.serving.rest.app import RestApp
from model_name.serving.rest.endpoints import PREDICTOR
from model_name.serving.rest.messages import Scope
from model_name.serving.rest.protocol import InferenceHttpProtocol
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState
from model_name.serving.tracing import SpanEnd, SpanStart
from tests.support.manifests import manifest_of, plane_of, table_of
from tests.support.sockets import http_request, parse_responses

NAME, TOKEN = "flats", "s3cret"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
V1, V2 = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
GOOD, BAD = 61.5, 1000.0  # values of the only column, whose maximum is 500
AUTHORIZED, UNAUTHORIZED = f"Bearer {TOKEN}", "Bearer wrong"
REASONS = {
    400: "area: 1000.0 is above 500.0",
    401: "this server wants a token: Authorization: Bearer TOKEN",
    503: "flats was unloaded; load it to have it answer",
}


@dataclass
class FakeServer:
    """Server without sockets.

    Attributes:
        name: Name of the model.
        in_flight: Number of requests in flight at each start of a batch.
        traces: Ids of the traces of the requests in all batches.
        traceparent: Header that every request is sent with, if any.
    """

    name: str = NAME
    in_flight: list[int] = field(default_factory=list)
    traces: list[str] = field(default_factory=list)
    traceparent: str = ""

    def __post_init__(self) -> None:
        state = ServerState(is_started=True, is_loaded=True)
        table = table_of(columns={"area": {"kind": "numeric", "max": 500}})
        plane = plane_of(manifest_of(table, example={"area": GOOD}))
        self.metrics = ServerMetrics("", CollectorRegistry())
        self.context = ServerContext(
            name=self.name,
            batcher=AdaptiveBatcher(plane, Limits(), observe=self._record),
            state=state,
            metrics=self.metrics,
            auth=TokenAuth(TOKEN.encode()),
            error_log=ErrorLogger(is_quoting=True),
            repository=ModelRepository(self.name, state, self._reload, is_enabled=True),
            server_metadata={},
        )
        self.app = RestApp(self.context, PREDICTOR, {})

    def _record(self, _: Any, requests: Sequence[InferenceRequest], __: Any) -> None:
        self.in_flight.append(self.metrics.in_flight)
        self.traces += [request.trace_id for request in requests]

    async def _reload(self) -> None:
        """Load nothing."""

    def samples(self) -> dict[tuple[str, str, str], float]:
        """Read the number of requests by protocol, route and code."""
        return {
            (sample.labels["protocol"], sample.labels["route"], sample.labels["code"]): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "model_name_requests_total"
        }

    def latencies(self) -> dict[tuple[str, str], float]:
        """Read the number of latencies by protocol and route."""
        return {
            (sample.labels["protocol"], sample.labels["route"]): sample.value
            for family in self.metrics.registry.collect()
            for sample in family.samples
            if sample.name == "model_name_request_seconds_count"
        }


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """Server of a table with one column."""
    server = FakeServer()
    yield server
    server.context.batcher.close()


def without_ids(messages: list[str]) -> list[str]:
    """Remove the ids of requests from the ends of log lines."""
    return [re.sub(r" \(request [0-9a-f]{12}-[0-9a-f]{8}\)$", "", message) for message in messages]


Send = Callable[[FakeServer, float, str], Awaitable[tuple[int, str]]]
"""Sends a row with a token to a server; returns the HTTP status of the response, or the one behind the status of gRPC,
and the error message."""


class WrittenTransport(asyncio.Transport):
    """Transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: asyncio.Queue[bytes] = asyncio.Queue()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep a response."""
        self.written.put_nowait(bytes(data))

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        """Read nothing anyway."""

    resume_reading = pause_reading


async def send_fast(server: FakeServer, value: float, authorization: str) -> tuple[int, str]:
    """Send a V1 request that takes the fast path."""
    config = uvicorn.Config(server.app, log_config=None, access_log=False)
    protocol = InferenceHttpProtocol(config, UvicornState(), server.app.fast_router)
    transport = WrittenTransport()
    protocol.connection_made(transport)
    body = json.dumps({"instances": [{"area": value}]}).encode()
    trace = [f"traceparent: {server.traceparent}"] if server.traceparent else []
    protocol.data_received(http_request("POST", V1, body, f"authorization: {authorization}", *trace))
    (response,) = parse_responses(await transport.written.get())
    return response.status, json.loads(response.body).get("error", "")


async def send_asgi(
    server: FakeServer, path: str, body: bytes, headers: dict[str, str], method: str = "POST"
) -> tuple[int, str]:
    """Send a request to the ASGI application."""
    trace = {"traceparent": server.traceparent} if server.traceparent else {}
    raw_headers = [(name.encode(), value.encode()) for name, value in (headers | trace).items()]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": raw_headers}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    await server.app(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"]).get("error", "")


async def send_v1(server: FakeServer, value: float, authorization: str) -> tuple[int, str]:
    """Send a V1 request to the ASGI application."""
    body = json.dumps({"instances": [{"area": value}]}).encode()
    return await send_asgi(server, V1, body, {"authorization": authorization})


async def send_event(server: FakeServer, value: float, authorization: str) -> tuple[int, str]:
    """Send a CloudEvent to the ASGI application."""
    event = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/here", "ce-type": "flat"}
    body = json.dumps({"instances": [{"area": value}]}).encode()
    return await send_asgi(server, V1, body, {"authorization": authorization, **event})


async def send_v2(server: FakeServer, value: float, authorization: str) -> tuple[int, str]:
    """Send a V2 request to the ASGI application."""
    tensor = {"name": "area", "shape": [1], "datatype": "FP64", "data": [value]}
    return await send_asgi(server, V2, json.dumps({"inputs": [tensor]}).encode(), {"authorization": authorization})


class FakeGrpcContext:
    """Context of a gRPC call that keeps how the call was aborted."""

    def __init__(self, message: bytes, authorization: str, traceparent: str) -> None:
        self.message = message
        self.authorization = authorization
        self.traceparent = traceparent
        self.aborted: tuple[grpc.StatusCode, str] | None = None

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", self.authorization), ("traceparent", self.traceparent))

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Send nothing."""

    async def read(self) -> bytes:
        return self.message

    async def abort(self, code: grpc.StatusCode, details: str, trailing_metadata: Any) -> bytes:
        self.aborted = (code, details)
        return b""


async def call_grpc(server: FakeServer, method: str, message: bytes, authorization: str) -> tuple[int, str]:
    """Call a method of the gRPC service."""
    details: Any = SimpleNamespace(method=f"/{SERVICE_NAME}/{method}", invocation_metadata=())
    reader = MessageReader(Limits(), server.context.batcher.budget, Limits().body_bytes)
    handler: Any = InferenceServicer(server.context, reader, max_calls=1).handler().service(details)
    context = FakeGrpcContext(message, authorization, server.traceparent)
    await handler.stream_unary(None, context)
    if context.aborted is None:
        return 200, ""
    code, reason = context.aborted
    return next((status for status, known in STATUS_CODES.items() if known is code), 500), reason


async def send_grpc(server: FakeServer, value: float, authorization: str) -> tuple[int, str]:
    """Send a `ModelInferRequest`."""
    message = pb.ModelInferRequest(model_name=NAME)
    message.inputs.add(name="area", datatype="FP64", shape=[1], contents=pb.InferTensorContents(fp64_contents=[value]))
    return await call_grpc(server, "ModelInfer", message.SerializeToString(), authorization)


PROTOCOLS = [
    pytest.param(send_fast, "v1", "predict", id="REST, fast path"),
    pytest.param(send_v1, "v1", "predict", id="REST, ASGI"),
    pytest.param(send_v2, "v2", "infer", id="REST, V2"),
    pytest.param(send_event, "cloudevents", "predict", id="CloudEvents"),
    pytest.param(send_grpc, "grpc", "infer", id="gRPC"),
]


@pytest.mark.parametrize(("send", "protocol", "route"), PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "authorization", "is_loaded", "status"),
    [
        pytest.param(GOOD, AUTHORIZED, True, 200, id="a good row"),
        pytest.param(BAD, AUTHORIZED, True, 400, id="a bad row"),
        pytest.param(GOOD, UNAUTHORIZED, True, 401, id="a wrong token"),
        pytest.param(GOOD, AUTHORIZED, False, 503, id="an unloaded model"),
    ],
)
def test_an_inference_request_is_counted_authenticated_logged_and_timed(
    server: FakeServer,
    caplog: pytest.LogCaptureFixture,
    send: Send,
    protocol: str,
    route: str,
    value: float,
    authorization: str,
    is_loaded: bool,
    status: int,
) -> None:
    # given
    server.context.state.is_loaded = is_loaded
    # when
    response = asyncio.run(asyncio.wait_for(send(server, value, authorization), 30))
    # then
    protocol = "v1" if protocol == "cloudevents" and status == HTTPStatus.UNAUTHORIZED else protocol  # not decoded yet
    assert response == (status, REASONS.get(status, ""))
    assert server.samples() == {(protocol, route, str(status)): 1.0}
    assert server.latencies() == {(protocol, route): 1.0}
    assert server.metrics.in_flight == 0
    assert server.in_flight == ([1] if status in (200, 400) else [])
    lines = [f"refused: {protocol} {route}: {status}: {REASONS[status]}"] if status != HTTPStatus.OK else []
    assert without_ids(caplog.messages) == lines


@pytest.mark.parametrize(("send", "protocol", "route"), PROTOCOLS)
@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        pytest.param(f"00-{TRACE_ID}-b7ad6b7169203331-00", TRACE_ID, id="valid"),
        pytest.param(f"00-{TRACE_ID}-b7ad6b7169203331", "", id="cut off"),
        pytest.param("", "", id="none"),
    ],
)
def test_the_trace_of_the_client_reaches_the_prediction_log_without_tracing(
    server: FakeServer, send: Send, protocol: str, route: str, traceparent: str, trace_id: str
) -> None:
    server.traceparent = traceparent
    assert asyncio.run(asyncio.wait_for(send(server, GOOD, AUTHORIZED), 30)) == (200, "")
    assert server.traces == [trace_id]


@pytest.mark.parametrize(
    ("method", "path", "status", "labels", "is_public"),
    [
        pytest.param("GET", "/v2/health/live", 200, ("v2", "health"), True, id="a probe"),
        pytest.param("GET", f"/v1/models/{NAME}", 200, ("v1", "ready"), True, id="readiness"),
        pytest.param("GET", "/v1/models", 200, ("http", "other"), False, id="the list of models"),
        pytest.param("GET", f"/v2/models/{NAME}", 200, ("v2", "metadata"), False, id="metadata"),
        pytest.param("POST", f"/v2/repository/models/{NAME}/load", 200, ("v2", "repository"), False, id="a load"),
        pytest.param(
            "POST", "/v2/repository/models/x/load", 404, ("v2", "repository"), False, id="a load of another model"
        ),
        pytest.param("POST", f"/v1/models/{NAME}:explain", 501, ("v1", "explain"), False, id="unsupported"),
        pytest.param("GET", "/v2/models/other", 404, ("http", "other"), False, id="another model"),
        pytest.param("GET", "/nowhere", 404, ("http", "other"), False, id="no such path"),
        pytest.param("PUT", V1, 405, ("http", "other"), False, id="another method"),
        pytest.param("PUT", "/v2/health/live", 405, ("http", "other"), True, id="another method of a probe"),
    ],
)
@pytest.mark.parametrize("authorization", [AUTHORIZED, UNAUTHORIZED])
def test_every_other_route_has_the_same_lifecycle(
    server: FakeServer,
    caplog: pytest.LogCaptureFixture,
    method: str,
    path: str,
    status: int,
    labels: tuple[str, str],
    is_public: bool,
    authorization: str,
) -> None:
    if not is_public and authorization is UNAUTHORIZED:
        status = 401
    actual, reason = asyncio.run(send_asgi(server, path, b"", {"authorization": authorization}, method))
    assert actual == status
    assert server.samples() == {(*labels, str(status)): 1.0}
    assert server.latencies() == {labels: 1.0}
    assert server.metrics.in_flight == 0
    protocol, route = labels
    assert without_ids(caplog.messages) == (
        [f"refused: {protocol} {route}: {status}: {reason}"] if status >= 400 else []
    )


@pytest.mark.parametrize(
    ("method", "message", "status", "route", "is_public"),
    [
        pytest.param("ServerLive", b"", 200, "health", True, id="a probe"),
        pytest.param("ModelReady", b"", 404, "ready", True, id="readiness of another model"),
        pytest.param("ServerMetadata", b"", 200, "metadata", False, id="metadata"),
        pytest.param("ModelMetadata", b"\xff", 400, "metadata", False, id="a truncated message"),
        pytest.param("RepositoryModelLoad", b"", 404, "repository", False, id="a load of another model"),
    ],
)
@pytest.mark.parametrize("authorization", [AUTHORIZED, UNAUTHORIZED])
def test_every_other_method_has_the_same_lifecycle(
    server: FakeServer,
    caplog: pytest.LogCaptureFixture,
    method: str,
    message: bytes,
    status: int,
    route: str,
    is_public: bool,
    authorization: str,
) -> None:
    if not is_public and authorization is UNAUTHORIZED:
        status = 401
    actual, reason = asyncio.run(call_grpc(server, method, message, authorization))
    assert actual == status
    assert server.samples() == {("grpc", route, str(status)): 1.0}
    assert server.latencies() == {("grpc", route): 1.0}
    assert server.metrics.in_flight == 0
    assert without_ids(caplog.messages) == (
        [f"refused: grpc {route}: {status}: {one_line(reason)}"] if status >= 400 else []
    )


class Call(RequestLifecycle):
    """Request without a transport."""

    def metadata(self) -> list[tuple[str, str]]:
        return []

    def describe_start(self) -> SpanStart:
        return SpanStart("call", {})

    def describe_end(self, status: int, err: BaseException | None) -> SpanEnd:
        return SpanEnd({}, is_error=False, error_type="")


@pytest.mark.parametrize(
    ("err", "code", "lines"),
    [
        pytest.param(DataError("no row"), "400", ["refused: v1 predict: 400: no row"], id="an error of a request"),
        pytest.param(
            ModelNameError("broken"), "500", ["refused: v1 predict: 500: broken"], id="an error of the server"
        ),
        pytest.param(asyncio.CancelledError(), "499", [], id="a client that disconnects"),
        pytest.param(ZeroDivisionError(), "500", [], id="an unexpected error"),
    ],
)
def test_a_request_that_raises_is_counted_out_with_its_status(
    server: FakeServer, caplog: pytest.LogCaptureFixture, err: BaseException, code: str, lines: list[str]
) -> None:
    with pytest.raises(type(err)), Call(server.context, RouteLabels("predict", "v1")):
        raise err
    assert server.samples() == {("v1", "predict", code): 1.0}
    assert server.metrics.in_flight == 0
    assert without_ids(caplog.messages) == lines


def test_a_handler_that_fails_unexpectedly_is_a_500_with_the_id_of_the_log(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    async def fail(_: Any) -> Any:
        raise ZeroDivisionError

    server.app = RestApp(server.context, PREDICTOR, {"/broken": fail})
    # when
    response = asyncio.run(send_asgi(server, "/broken", b"", {"authorization": AUTHORIZED, "x-request-id": "a"}, "GET"))
    # then
    assert response == (500, "the server failed: ZeroDivisionError")
    assert caplog.messages == ["request a failed"]
    assert server.samples() == {("http", "page", "500"): 1.0}


def test_a_method_that_fails_unexpectedly_is_internal_with_the_id_of_the_log(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    server.context = replace(server.context, server_metadata={"no such field": "secret"})
    # when
    status = asyncio.run(call_grpc(server, "ServerMetadata", b"", AUTHORIZED))
    # then
    assert status == (500, "the server failed: ValueError")
    assert re.fullmatch(r"request [0-9a-f]{12}-[0-9a-f]{8} failed", *caplog.messages)
    assert server.samples() == {("grpc", "metadata", "500"): 1.0}


@pytest.mark.parametrize("name", ["flats", "team/flats", "a:b é"])
def test_routes_are_matched_for_any_name_of_the_model(name: str) -> None:
    # Given a server of a model with some name
    server = FakeServer(name)
    body = json.dumps({"instances": [{"area": GOOD}]}).encode()
    requests = [("POST", f"/v1/models/{name}:predict"), ("GET", f"/v1/models/{name}"), ("GET", f"/v2/models/{name}")]
    requests += [("GET", f"/v2/models/{name}/ready"), ("GET", f"/v2/models/{name}/versions/7")]
    requests += [("POST", f"/v1/models/{name}:explain"), ("GET", f"/v1/models/{name}x"), ("GET", "/v1/models/team/x")]
    # When its routes are requested
    headers = {"authorization": AUTHORIZED}
    statuses = [asyncio.run(send_asgi(server, path, body, headers, method))[0] for method, path in requests]
    server.context.batcher.close()
    # Then they are found, unlike those of other names
    assert statuses == [200] * 5 + [501, 404, 404]
