"""Fast path and ASGI application give the same responses to the same requests."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from model_name.serving.rest.messages import Headers
from model_name.serving.rest.protocol import InferenceHttpProtocol
from tests.support.sockets import RawResponse, connect, exchange, http_request, parse_responses, receive_all

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

V1 = "/v1/models/regression:predict"
V2 = "/v2/models/regression/infer"
EVENT = ["ce-specversion: 1.0", "ce-id: an id", "ce-source: tests", "ce-type: ask"]
CONNECTION_CLOSE = "connection: close"
MAX_UNREAD_BYTES = 32 * 2**20  # bytes; the kernel buffers less on both sides
VARYING_HEADERS = {"date", "ce-time"}  # headers of a response that vary


def build_request_of_kind(kind: str, rows: list[Row], *headers: str) -> bytes:
    """Build a request of some kind."""
    tensors = [{"name": name, "shape": [1], "datatype": "FP64", "data": [1.0]} for name in ("no", "such")]
    body = {
        "V1": json.dumps({"instances": rows}).encode(),
        "an event": json.dumps({"instances": rows}).encode(),
        "bad rows": json.dumps({"instances": [{"area": "wide"}]}).encode(),
        "no JSON": b"{",
        "bad tensors": json.dumps({"inputs": tensors}).encode(),
        "nothing": b"",
    }[kind]
    path = V2 if kind == "bad tensors" else V1
    more = EVENT if kind == "an event" else []
    return http_request("POST", path, body, "x-request-id: mine", "content-type: application/json", *more, *headers)


def stable_parts(response: RawResponse) -> tuple[int, dict[str, str], bytes]:
    """Select the parts of a response that do not vary between two of them."""
    return (
        response.status,
        {name: value for name, value in response.headers.items() if name not in VARYING_HEADERS},
        response.body,
    )


@pytest.mark.parametrize("kind", ["V1", "an event", "bad rows", "no JSON", "bad tensors", "nothing"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_fast_path_and_application_give_the_same_response(
    servers: dict[str, Server], rows: list[Row], kind: str, version: str
) -> None:
    raw = build_request_of_kind(kind, rows, CONNECTION_CLOSE).replace(b"HTTP/1.1", b"HTTP/" + version.encode())
    port = servers["regression"].http_port
    cuts = [len(raw), len(raw) // 2, raw.index(b"\r\n\r\n") + 4, len(raw) - 1]
    responses = [stable_parts(*parse_responses(exchange(port, raw[:cut], raw[cut:], pause=0.05))) for cut in cuts]
    assert responses[0][1]["connection"] == "close"
    assert responses[0][1]["x-model-version"]
    assert responses == [responses[0]] * len(cuts)


def test_fast_path_and_application_count_alike(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    line = 'model_name_requests_total{code="%d",protocol="%s",route="predict"}'

    def counts() -> list[float]:
        text = server.client.get("/metrics").text
        values = dict(sample.rsplit(" ", 1) for sample in text.splitlines() if not sample.startswith("#"))
        keys = [line % (200, "v1"), line % (400, "v1"), line % (200, "cloudevents"), "model_name_requests_in_flight"]
        return [float(values.get(key, 0)) for key in keys]

    before = counts()
    for pieces in (1, 2):
        for kind in ("V1", "bad rows", "an event"):
            raw = build_request_of_kind(kind, rows, CONNECTION_CLOSE)
            cut = len(raw) if pieces == 1 else len(raw) - 5
            exchange(server.http_port, raw[:cut], raw[cut:], pause=0.05)
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [2, 2, 2, 0]


@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
def test_pipelined_requests_on_both_paths_are_answered_in_order(
    servers: dict[str, Server], rows: list[Row], pieces: int
) -> None:
    body = json.dumps({"instances": rows}).encode()
    chunked = http_request("POST", V1, None, "transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (
        len(body),
        body,
    )
    live = http_request("GET", "/v2/health/live")
    sent = [
        build_request_of_kind("V1", rows),
        chunked,
        build_request_of_kind("bad rows", rows),
        live,
        build_request_of_kind("V1", rows),
        build_request_of_kind("no JSON", rows, CONNECTION_CLOSE),
    ]
    raw = b"".join(sent)
    size = -(-len(raw) // pieces)
    parts = [raw[start : start + size] for start in range(0, len(raw), size)]
    responses = parse_responses(exchange(servers["regression"].http_port, *parts, pause=0.02))
    assert [response.status for response in responses] == [200, 200, 400, 200, 200, 400]
    assert responses[0].body == responses[1].body == responses[4].body


def test_a_too_long_body_is_refused_before_it_is_read(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    server = start_server(bundles["regression"].directory, "regression", "--max_body_bytes", "50").wait()
    raw = build_request_of_kind("V1", rows, CONNECTION_CLOSE)
    whole, cut = (parse_responses(exchange(server.http_port, raw[:at], raw[at:], pause=0.05)) for at in (len(raw), 150))
    assert stable_parts(*whole) == stable_parts(*cut)
    assert whole[0].status == 413


def test_a_client_that_does_not_read_is_not_read_from(servers: dict[str, Server], rows: list[Row]) -> None:
    raw = build_request_of_kind("V1", rows)
    with connect(servers["regression"].http_port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(2)
        sent = 0
        with suppress(TimeoutError):  # the server pauses reading
            while sent < MAX_UNREAD_BYTES:
                sent += connection.send(raw)
    assert sent < MAX_UNREAD_BYTES
    assert servers["regression"].is_ready()


def test_a_disconnected_client_is_not_in_flight(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    for _ in range(20):
        with connect(server.http_port) as connection:
            connection.sendall(build_request_of_kind("V1", rows))
    time.sleep(0.5)
    assert "model_name_requests_in_flight 1.0" in server.client.get("/metrics").text  # this one


def test_a_connection_stays_open_after_a_response(servers: dict[str, Server], rows: list[Row]) -> None:
    with connect(servers["regression"].http_port, seconds=1) as connection:
        for kind in ("V1", "bad rows", "an event", "V1"):
            connection.sendall(build_request_of_kind(kind, rows))
            (response,) = parse_responses(connection.recv(1 << 16))
            assert "connection" not in response.headers
            assert response.status == (400 if kind == "bad rows" else 200)
        assert receive_all(connection) == b""


class UnreadTransport(asyncio.Transport):
    """Transport of a client that reads nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop the data."""

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Read nothing anyway."""

    resume_reading = pause_reading


class FakeRouter:
    """Router that keeps which requests would take the fast path."""

    def __init__(self) -> None:
        self.urls: list[bytes] = []

    def match(self, connection: Any, url: bytes, headers: Headers) -> Any:
        """Match every request."""
        return FakeFastRequest(partial(self.urls.append, url))


class FakeFastRequest:
    """Request on the fast path that is never answered."""

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run
        self.parts: list[bytes] = []


def test_a_request_of_a_client_that_does_not_read_waits_until_it_does() -> None:
    router: Any = FakeRouter()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Respond to nothing: no request comes here."""

    async def scenario() -> list[bytes]:
        config = uvicorn.Config(app, log_config=None, access_log=False)
        protocol = InferenceHttpProtocol(config, ServerState(), router)
        protocol.connection_made(UnreadTransport())
        protocol.pause_writing()
        protocol.data_received(http_request("POST", V1, b"{}"))
        await asyncio.sleep(0.01)
        waiting = [*router.urls]
        protocol.resume_writing()
        await asyncio.sleep(0.01)
        return waiting

    assert (asyncio.run(scenario()), router.urls) == ([], [V1.encode()])
