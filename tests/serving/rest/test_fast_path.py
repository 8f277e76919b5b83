"""A request that comes whole is answered as one that comes in pieces: clients do not see which way theirs goes."""

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
from tests.support.sockets import Answer, answers, connected, exchange, http, read_all

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

V1 = "/v1/models/regression:predict"
V2 = "/v2/models/regression/infer"
EVENT = ["ce-specversion: 1.0", "ce-id: an id", "ce-source: tests", "ce-type: ask"]
LAST = "connection: close"
MOST_UNANSWERED = 32 * 2**20  # bytes; what the kernel takes on both sides is less
SEEN = {"date", "ce-time"}  # of an answer, that change


def asked(kind: str, rows: list[Row], *headers: str) -> bytes:
    """A request of some kind, the last on its connection."""
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
    return http("POST", path, body, "x-request-id: mine", "content-type: application/json", *more, *headers)


def seen(answer: Answer) -> tuple[int, dict[str, str], bytes]:
    """What two answers to the same request have in common."""
    return answer.status, {name: value for name, value in answer.headers.items() if name not in SEEN}, answer.body


@pytest.mark.parametrize("kind", ["V1", "an event", "bad rows", "no JSON", "bad tensors", "nothing"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_it_does_not_matter_in_how_many_pieces_a_request_comes(
    servers: dict[str, Server], rows: list[Row], kind: str, version: str
) -> None:
    raw = asked(kind, rows, LAST).replace(b"HTTP/1.1", b"HTTP/" + version.encode())
    port = servers["regression"].http_port
    cuts = [len(raw), len(raw) // 2, raw.index(b"\r\n\r\n") + 4, len(raw) - 1]
    found = [seen(*answers(exchange(port, raw[:cut], raw[cut:], pause=0.05))) for cut in cuts]
    assert found[0][1]["connection"] == "close"
    assert found[0][1]["x-model-version"]
    assert found == [found[0]] * len(cuts)


def test_both_ways_are_counted_alike(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    line = 'model_name_requests_total{code="%d",protocol="%s",route="predict"}'

    def counts() -> list[float]:
        text = server.client.get("/metrics").text
        found = dict(one.rsplit(" ", 1) for one in text.splitlines() if not one.startswith("#"))
        keys = [line % (200, "v1"), line % (400, "v1"), line % (200, "cloudevents"), "model_name_requests_in_flight"]
        return [float(found.get(key, 0)) for key in keys]

    before = counts()
    for pieces in (1, 2):
        for kind in ("V1", "bad rows", "an event"):
            raw = asked(kind, rows, LAST)
            cut = len(raw) if pieces == 1 else len(raw) - 5
            exchange(server.http_port, raw[:cut], raw[cut:], pause=0.05)
    assert [after - earlier for after, earlier in zip(counts(), before, strict=True)] == [2, 2, 2, 0]


@pytest.mark.parametrize("pieces", [1, 7], ids=["at once", "in pieces"])
def test_answers_keep_the_order_of_both_ways(servers: dict[str, Server], rows: list[Row], pieces: int) -> None:
    body = json.dumps({"instances": rows}).encode()
    long_way = http("POST", V1, None, "transfer-encoding: chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    live = http("GET", "/v2/health/live")
    sent = [asked("V1", rows), long_way, asked("bad rows", rows), live, asked("V1", rows), asked("no JSON", rows, LAST)]
    raw = b"".join(sent)
    size = -(-len(raw) // pieces)
    parts = [raw[start : start + size] for start in range(0, len(raw), size)]
    found = answers(exchange(servers["regression"].http_port, *parts, pause=0.02))
    assert [answer.status for answer in found] == [200, 200, 400, 200, 200, 400]
    assert found[0].body == found[1].body == found[4].body


def test_a_body_that_is_too_long_is_refused_before_it_is_read(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    server = start_server(bundles["regression"].directory, "regression", "--max_body_bytes", "50").wait()
    raw = asked("V1", rows, LAST)
    whole, cut = (answers(exchange(server.http_port, raw[:at], raw[at:], pause=0.05)) for at in (len(raw), 150))
    assert seen(*whole) == seen(*cut)
    assert whole[0].status == 413


def test_a_client_that_reads_no_answers_fills_no_memory(servers: dict[str, Server], rows: list[Row]) -> None:
    raw = asked("V1", rows)
    with connected(servers["regression"].http_port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(2)
        sent = 0
        with suppress(TimeoutError):  # the server does not read on
            while sent < MOST_UNANSWERED:
                sent += connection.send(raw)
    assert sent < MOST_UNANSWERED
    assert servers["regression"].is_ready()


def test_a_client_that_leaves_is_counted_as_gone(servers: dict[str, Server], rows: list[Row]) -> None:
    server = servers["regression"]
    for _ in range(20):
        with connected(server.http_port) as connection:
            connection.sendall(asked("V1", rows))
    time.sleep(0.5)
    assert "model_name_requests_in_flight 1.0" in server.client.get("/metrics").text  # this one


def test_a_connection_lives_on_after_an_answer(servers: dict[str, Server], rows: list[Row]) -> None:
    with connected(servers["regression"].http_port, seconds=1) as connection:
        for kind in ("V1", "bad rows", "an event", "V1"):
            connection.sendall(asked(kind, rows))
            (answer,) = answers(connection.recv(1 << 16))
            assert "connection" not in answer.headers
            assert answer.status == (400 if kind == "bad rows" else 200)
        assert read_all(connection) == b""


class UnreadTransport(asyncio.Transport):
    """Transport of a client that reads nothing."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Drop the data."""

    def is_closing(self) -> bool:
        return False

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


@pytest.mark.parametrize("is_full", [False, True], ids=["a client that reads", "a client that does not read"])
def test_a_request_of_a_client_that_does_not_read_takes_the_application(is_full: bool) -> None:
    router: Any = FakeRouter()
    paths: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        paths.append(scope["path"])

    async def scenario() -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False)
        protocol = InferenceHttpProtocol(config, ServerState(), router)
        protocol.connection_made(UnreadTransport())
        if is_full:
            protocol.flow.pause_writing()
        protocol.data_received(http("POST", V1, b"{}"))
        await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert (router.urls, paths) == (([], [V1]) if is_full else ([V1.encode()], []))
