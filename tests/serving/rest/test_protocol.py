"""What becomes of connections whose clients are slow, endless, or speak no HTTP."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.sockets import answers, connected, ended_after, exchange, http, read_all, send

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

PREDICT = "/v1/models/regression:predict"
LIVE = http("GET", "/v2/health/live")
SOON = 6.0  # seconds: after one, at the next tick, on a busy machine
SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module")
def hasty(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """A server whose clients have a second for everything."""
    seconds = ["--header_seconds", "1", "--body_seconds", "1", "--timeout-keep-alive", "2"]
    return start_server(bundles["regression"].directory, "regression", *seconds).wait()


@pytest.fixture
def body(rows: list[Row]) -> bytes:
    """A good body."""
    return json.dumps({"instances": rows}).encode()


def test_a_connection_that_says_nothing_is_closed(hasty: Server) -> None:
    with connected(hasty.http_port) as connection:
        assert ended_after(connection) < SOON


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET /v2/heal", id="half a line"),
        pytest.param(b"GET / HTTP/1.1\r\nx-a: 1\r\n", id="half the headers"),
        pytest.param(LIVE + b"GET / HT", id="half a request after an answered one"),
        pytest.param(LIVE + b"\r\n", id="an empty line after an answered one"),
        pytest.param(http("GET", "/", None, "content-length: 9"), id="a body that nobody reads and that does not come"),
    ],
)
def test_a_request_that_does_not_end_is_closed(hasty: Server, start: bytes) -> None:
    with connected(hasty.http_port) as connection:
        connection.sendall(start)
        assert ended_after(connection) < SOON


def test_headers_that_drip_have_no_more_time(hasty: Server) -> None:
    with connected(hasty.http_port) as connection:
        started = time.monotonic()
        connection.sendall(LIVE + b"GET / HTTP/1.1\r\n")
        connection.settimeout(0.2)
        while time.monotonic() - started < 2 * SOON:
            send(connection, [b"x-a: 1\r\n"])
            try:
                if not connection.recv(1 << 16):
                    break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        assert time.monotonic() - started < SOON


@pytest.mark.parametrize("sent", [b"", b'{"instances": ['], ids=["nothing of it", "half of it"])
@pytest.mark.parametrize("header", ["content-length: 1000", "transfer-encoding: chunked"])
def test_a_slow_body_is_refused_in_time(hasty: Server, sent: bytes, header: str) -> None:
    part = b"%x\r\n%b\r\n" % (len(sent), sent) if "chunked" in header and sent else sent
    with connected(hasty.http_port) as connection:
        connection.sendall(http("POST", PREDICT, None, header) + part)
        started = time.monotonic()
        (answer,) = answers(read_all(connection))
    assert (answer.status, json.loads(answer.body)) == (408, {"error": "the body did not come within 1 s"})
    assert time.monotonic() - started < SOON  # and then it was closed


@pytest.mark.parametrize(
    ("start", "more"),
    [
        pytest.param(b"GET /", b"a", id="a path"),
        pytest.param(b"GET / HTTP/1.1\r\nx: ", b"a", id="a header"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"a: 1\r\n", id="headers"),
        pytest.param(http("POST", PREDICT, None, "transfer-encoding: chunked") + b"0\r\n", b"a: 1\r\n", id="trailers"),
        pytest.param(http("POST", PREDICT, None, "transfer-encoding: chunked"), b"1;a=b", id="an extension of a chunk"),
    ],
)
def test_headers_without_an_end_are_refused(servers: dict[str, Server], start: bytes, more: bytes) -> None:
    many = more * (2 * 2**20 // len(more))
    raw = exchange(servers["regression"].http_port, start, *[many[i : i + 50_000] for i in range(0, len(many), 50_000)])
    # a reset may overtake the answer, because the client goes on to send
    assert [answer.status for answer in answers(raw)] in ([431], [400], [])


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", id="an unknown version"),
        pytest.param(b"BREW / HTTP/1.1\r\n\r\n", id="an unknown method"),
        pytest.param(b"GET /\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n", id="a path that is not ASCII"),
        pytest.param(b"GET / HTTP/1.1\r\nhost : x\r\n\r\n", id="a space after the name of a header"),
        pytest.param(b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n", id="NUL in a header"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", id="a negative length"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", id="two lengths"),
        pytest.param(
            b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="a length and chunks",
        ),
        pytest.param(b"POST %b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx\r\n" % PREDICT.encode(), id="no chunk"),
    ],
)
def test_what_is_not_http_is_told_so_and_shown_out(servers: dict[str, Server], garbage: bytes) -> None:
    (answer,) = answers(exchange(servers["regression"].http_port, garbage))
    assert (answer.status, json.loads(answer.body)) == (400, {"error": "the request is not HTTP"})
    assert answer.headers["connection"] == "close"
    assert answer.headers.items() >= SECURITY.items()


def test_requests_before_garbage_are_answered(servers: dict[str, Server], body: bytes) -> None:
    raw = exchange(servers["regression"].http_port, LIVE + http("POST", PREDICT, body) * 2 + b"\x00\r\n\r\n")
    assert [answer.status for answer in answers(raw)] == [200, 200, 200]


def test_pipelined_requests_are_answered_in_their_order(servers: dict[str, Server], body: bytes) -> None:
    requests = [http("POST", PREDICT, body, "x-request-id: a"), LIVE, http("POST", PREDICT, b"{", "x-request-id: b")]
    raw = exchange(servers["regression"].http_port, b"".join(requests * 20), seconds=2)
    assert [answer.status for answer in answers(raw)] == [200, 200, 400] * 20


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"", id="that goes away"),
        pytest.param(b"\x00", id="with garbage behind them"),
        pytest.param(http("POST", PREDICT, None, "transfer-encoding: chunked") + b"x\r\n", id="with a broken body"),
        pytest.param(http("POST", PREDICT, None, "content-length: 9"), id="with half a body"),
    ],
)
def test_a_client_of_many_requests_leaves_no_trace_in_the_log(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], end: bytes
) -> None:
    # Given a client that does not read what it has asked for
    server = start_server(bundles["regression"].directory, "regression", "--drain_seconds", "0").wait()
    request = http("POST", PREDICT, json.dumps({"instances": [*rows] * 500}).encode())
    for _ in range(30):
        with connected(server.http_port) as connection:
            send(connection, [LIVE + request * 3 + LIVE, end])
            time.sleep(0.01)
    # When the server ends
    assert server.client.post(PREDICT, json={"instances": rows}).status_code == 200
    server.stop()
    # Then there was nothing to tell of
    assert "Traceback" not in server.output()


def test_a_trailer_is_no_header(servers: dict[str, Server], body: bytes) -> None:
    chunked = b"%x\r\n%b\r\n0\r\ncontent-encoding: gzip\r\nx-request-id: late\r\n\r\n" % (len(body), body)
    request = http("POST", PREDICT, None, "transfer-encoding: chunked", "connection: close")
    (answer,) = answers(exchange(servers["regression"].http_port, request + chunked))
    assert answer.status == 200
    assert answer.headers["x-request-id"] != "late"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_a_client_that_offers_another_protocol_is_answered_in_this_one(
    servers: dict[str, Server], body: bytes, protocol: str, pieces: int
) -> None:
    # Given a request as Java's client sends it, and another one on its connection
    offer = ["connection: Upgrade, HTTP2-Settings", f"upgrade: {protocol}", "http2-settings: AAMAAABkAAQAAP__"]
    sent = http("POST", PREDICT, body, *offer) + http("POST", PREDICT, body, "connection: close")
    size = -(-len(sent) // pieces)
    # When
    raw = exchange(servers["regression"].http_port, *[sent[at : at + size] for at in range(0, len(sent), size)])
    # Then
    first, second = answers(raw)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body


def test_a_tunnel_is_refused(servers: dict[str, Server]) -> None:
    (answer,) = answers(exchange(servers["regression"].http_port, http("CONNECT", PREDICT) + b"anything", seconds=2))
    assert answer.status == 405
