"""Memory of a server beside clients that send more than they read, or never finish what they send."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import socket
import struct
import time
import weakref
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
import uvloop
from uvicorn.server import ServerState

from model_name.serving.assembly import TOKEN_ENV
from model_name.serving.byte_budget import ByteBudget
from model_name.serving.rest.messages import Receive, Scope, Send
from model_name.serving.rest.protocol import MAX_DISCARDED_BYTES, InferenceHttpProtocol
from tests.support.memory import resident_bytes
from tests.support.sockets import connect, exchange, http_request, parse_responses, receive_all, send_parts

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME = "regression"
PREDICT = f"/v1/models/{NAME}:predict"
LIVE = http_request("GET", "/v2/health/live")
MIB = 2**20
UNREAD_BYTES = 20 * MIB
MAX_GROWTH_BYTES = 16 * MIB  # of a process that holds some 100 kB for a connection; noise included
SECONDS = 60.0
CONNECTIONS = 5


def wait_until(condition: Any, seconds: float = SECONDS) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def send_without_reading(connection: socket.socket, block: bytes, size: int) -> int:
    """Send a block again and again until the server reads no more for some time; return the number of bytes."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(0.5)
    sent = 0
    with suppress(OSError):
        while sent < size:
            sent += connection.send(block[sent % len(block) :])
    return sent


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str]) -> Server:
    """Start a server that requires a token, with a small budget of bytes and short time limits."""
    seconds = [
        "--drain_seconds",
        "0",
        "--header_seconds",
        "2",
        "--answer_seconds",
        "3",
        "--max_queued_bytes",
        str(48 * MIB),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving_env, TOKEN_ENV, "s3cret")
        return start_server(bundles[NAME].directory, NAME, *seconds).wait()


TOKEN = "authorization: Bearer s3cret"


@pytest.fixture
def predict(rows: list[Row]) -> bytes:
    """Build a valid request."""
    return http_request("POST", PREDICT, json.dumps({"instances": rows}).encode(), TOKEN)


@pytest.mark.parametrize("kind", ["probes", "inference", "refused inference", "inference of 60 kB", "unknown paths"])
def test_pipelined_requests_whose_responses_nobody_reads_take_little_memory(
    server: Server, predict: bytes, kind: str
) -> None:
    # Given
    request = {
        "probes": LIVE,
        "inference": predict,
        "refused inference": http_request("POST", PREDICT, b"{}"),
        "inference of 60 kB": http_request("POST", PREDICT, b" " * 60_000, TOKEN),
        "unknown paths": http_request("GET", "/nowhere", None, TOKEN),
    }[kind]
    before = resident_bytes(server.process.pid)
    # When
    with connect(server.http_port) as connection:
        sent = send_without_reading(connection, request * (1 + 20_000 // len(request)), UNREAD_BYTES)
        growth = resident_bytes(server.process.pid) - before
        is_answered = server.is_ready()
    # Then
    assert growth < MAX_GROWTH_BYTES, f"{sent} bytes were sent"
    assert is_answered


def test_a_client_that_never_reads_is_disconnected(server: Server) -> None:
    with connect(server.http_port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(http_request("GET", "/openapi.json", None, TOKEN) * 1000)  # more than the kernel buffers
        assert wait_until(lambda: scrape(server, "model_name_connections") == 2)
        assert wait_until(lambda: scrape(server, "model_name_connections") == 1)  # that of the scrape


def scrape(server: Server, name: str) -> float:
    """Read a metric without labels."""
    lines = server.client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        pytest.param(PREDICT, [], 401, id="no token"),
        pytest.param("/nowhere", [TOKEN], 404, id="an unknown path"),
        pytest.param("/v1/models/nobody:predict", [TOKEN], 404, id="an unknown model"),
        pytest.param(f"/v1/models/{NAME}/versions/6:predict", [TOKEN], 404, id="an unknown version"),
        pytest.param("/v2", [TOKEN], 405, id="another method"),
        pytest.param(PREDICT, [TOKEN, "content-encoding: br"], 415, id="an unsupported encoding"),
    ],
)
@pytest.mark.parametrize("framing", [f"content-length: {32 * MIB}", "transfer-encoding: chunked"])
def test_a_request_is_refused_before_its_body_is_read(
    server: Server, path: str, headers: list[str], status: int, framing: str
) -> None:
    # Given
    before = resident_bytes(server.process.pid)
    with connect(server.http_port) as connection:
        # When a client sends headers, and after the response its body
        connection.sendall(http_request("POST", path, None, *headers, framing))
        (response,) = parse_responses(connection.recv(1 << 16))
        body = b" " * MIB
        send_parts(connection, [body if "length" in framing else b"%x\r\n%b\r\n" % (MIB, body)] * 32)
        growth = resident_bytes(server.process.pid) - before
    # Then
    assert response.status == status
    assert growth < MAX_GROWTH_BYTES


def test_a_too_large_length_is_refused_before_the_body(server: Server) -> None:
    length = f"content-length: {2**40}"
    (response,) = parse_responses(
        exchange(server.http_port, http_request("POST", PREDICT, None, TOKEN, length), seconds=0.5)
    )
    assert (response.status, json.loads(response.body)["error"]) == (
        413,
        f"the body has {2**40} bytes, this server takes {64 * MIB}",
    )


def test_what_is_sent_after_a_refusal_is_discarded_up_to_a_bound(server: Server) -> None:
    with connect(server.http_port) as connection:
        connection.sendall(http_request("POST", PREDICT, None, f"content-length: {2**40}"))
        assert parse_responses(connection.recv(1 << 16))[0].status == 401
        sent = send_without_reading(connection, b" " * MIB, 4 * MAX_DISCARDED_BYTES)
    assert sent < 2 * MAX_DISCARDED_BYTES


def test_a_refusal_closes_a_connection_whose_client_waits_to_send_the_body(server: Server) -> None:
    request = http_request("POST", PREDICT, None, "content-length: 9", "expect: 100-continue")
    started = time.monotonic()
    (response,) = parse_responses(exchange(server.http_port, request))
    assert (response.status, response.headers["connection"]) == (401, "close")
    assert time.monotonic() - started < SECONDS / 4  # the connection was closed


@pytest.mark.parametrize("framing", [f"content-length: {16 * MIB}", "transfer-encoding: chunked"])
def test_a_client_that_closes_afterwards_sends_its_body_and_gets_the_refusal(server: Server, framing: str) -> None:
    body = b" " * MIB if "length" in framing else b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    end = b"" if "length" in framing else b"0\r\n\r\n"
    with connect(server.http_port) as connection:
        connection.sendall(http_request("POST", PREDICT, None, framing, "connection: close"))
        for _ in range(16):
            connection.sendall(body)  # would raise if the server had reset the connection
        connection.sendall(end)
        (response,) = parse_responses(receive_all(connection))
    assert (response.status, response.headers["connection"]) == (401, "close")


def test_bodies_in_transit_share_the_budget_with_all_others(server: Server, predict: bytes) -> None:
    with ExitStack() as stack:
        # Given slow clients whose bodies fill the budget
        head = http_request("POST", PREDICT, None, TOKEN, f"content-length: {30 * MIB}")
        for _ in range(2):
            connection = stack.enter_context(connect(server.http_port))
            send_parts(connection, [head, b" " * (23 * MIB)])
        assert wait_until(lambda: scrape(server, "model_name_held_bytes") == 46 * MIB)
        # When another client sends a body that does not fit
        request = http_request("POST", PREDICT, b" " * (4 * MIB), TOKEN, "connection: close")
        (response,) = parse_responses(exchange(server.http_port, request))
        # Then it may try again later, and small requests are served
        assert (response.status, response.headers["retry-after"]) == (429, "1")
        assert "too many bytes of requests are held already" in response.body.decode()
        assert status_of(server, predict) == 200
    assert wait_until(lambda: status_of(server, request) == 400)  # it is read, and holds no JSON


def status_of(server: Server, request: bytes) -> int:
    """Send a request and return the status of its response."""
    return parse_responses(exchange(server.http_port, request, ends=True))[0].status


def test_decompressed_bodies_are_within_the_budget(server: Server) -> None:
    # Given a body that fits into the limit of one, but not into the budget beside others
    packed = gzip.compress(b" " * (40 * MIB), 1)
    head = http_request("POST", PREDICT, None, TOKEN, f"content-length: {30 * MIB}")
    with connect(server.http_port) as connection:
        send_parts(connection, [head, b" " * (20 * MIB)])
        request = http_request("POST", PREDICT, packed, TOKEN, "content-encoding: gzip", "connection: close")
        assert wait_until(lambda: scrape(server, "model_name_held_bytes") == 20 * MIB)
        assert status_of(server, request) == 429
    assert wait_until(lambda: scrape(server, "model_name_held_bytes") == 0)


class LocalServer:
    """Server in this process that has weak references to its connections."""

    def __init__(self) -> None:
        self.references: list[weakref.ref[InferenceHttpProtocol]] = []
        self.budget = ByteBudget(2**40)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to `/slow` after a tenth of a second, to others at once, and fail for `/failing`."""
        if scope["path"] in ("/slow", "/failing"):
            await asyncio.sleep(0.1)
        if scope["path"] == "/failing":
            raise OSError("the application fails")
        if scope["path"] == "/body":
            while (await receive()).get("more_body"):
                continue
        body = b"x" * {"/large": MIB, "/huge": 32 * MIB}.get(scope["path"], 1)
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})

    def make_protocol(self) -> InferenceHttpProtocol:
        protocol = InferenceHttpProtocol(self.config, self.state, None, self.budget)
        self.references.append(weakref.ref(protocol))
        return protocol

    async def listen(self) -> tuple[asyncio.Server, int]:
        """Listen on a free port, and return it."""
        self.config = uvicorn.Config(self.app, interface="asgi3", log_config=None, access_log=False)
        self.state = ServerState()
        server = await asyncio.get_running_loop().create_server(self.make_protocol, "127.0.0.1", 0)
        return server, server.sockets[0].getsockname()[1]

    async def serve(self, sent: bytes, *, ends: bool, pause: float) -> None:
        """Accept connections from clients that send data and then reset or end the connection."""
        server, port = await self.listen()
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
        for _, writer in clients:
            writer.write(sent)
        await asyncio.sleep(pause)
        for _, writer in clients:
            if not ends:
                peer: socket.socket = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        server.close()
        for _ in range(200):
            if not self.state.connections and not self.state.tasks:
                break
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("pause", [0.0, 0.05])
@pytest.mark.parametrize("ends", [True, False], ids=["then end", "then reset"])
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HT", id="half a request line"),
        pytest.param(http_request("GET", "/slow"), id="a request"),
        pytest.param(http_request("GET", "/slow") * 500, id="pipelined requests"),
        pytest.param(http_request("GET", "/large") * 30, id="responses that nobody reads"),
        pytest.param(http_request("POST", "/body", None, "content-length: 9") + b"1", id="half a body"),
        pytest.param(
            http_request("GET", "/slow") + http_request("POST", "/body", None, "content-length: 9") + b"1",
            id="half a body after a request",
        ),
        pytest.param(
            http_request("GET", "/failing") + http_request("POST", "/body", None, "content-length: 9") + b"1",
            id="half a body after a request that fails",
        ),
        pytest.param(http_request("GET", "/slow") + b"\x00\r\n", id="a request and invalid data"),
    ],
)
def test_a_closed_connection_is_freed_without_a_collection_of_cycles(sent: bytes, *, ends: bool, pause: float) -> None:
    gc.disable()
    try:
        connections = LocalServer()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(connections.serve(sent, ends=ends, pause=pause))
            assert [reference() for reference in connections.references] == [None] * CONNECTIONS
        assert connections.budget.used == 0
    finally:
        gc.enable()


def test_an_unread_response_stays_in_the_budget_while_its_client_sends_more() -> None:
    async def scenario(local: LocalServer) -> list[int]:
        server, port = await local.listen()
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1)
        reserved = []
        for part in (http_request("GET", "/huge"), b"GET / HT", b"TP/1.1\r\n"):
            writer.write(part)
            await asyncio.sleep(0.3)
            reserved.append(local.budget.used)
        writer.close()
        server.close()
        return reserved

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert min(runner.run(scenario(LocalServer()))) > 8 * MIB
