"""Connections of clients that are slow, send without end, or do not speak HTTP."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.sockets import (
    connect,
    exchange,
    http_request,
    parse_responses,
    receive_all,
    seconds_until_closed,
    send_parts,
)

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

PREDICT = "/v1/models/regression:predict"
LIVE = http_request("GET", "/v2/health/live")
MAX_SECONDS = 6.0  # seconds: one, until the next periodic check, on a busy machine
SECURITY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


@pytest.fixture(scope="module")
def impatient_server(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """Start a server with time limits of a second."""
    seconds = ["--header_seconds", "1", "--body_seconds", "1", "--timeout-keep-alive", "2"]
    return start_server(bundles["regression"].directory, "regression", *seconds).wait()


@pytest.fixture
def body(rows: list[Row]) -> bytes:
    """Encode a valid body."""
    return json.dumps({"instances": rows}).encode()


def test_a_silent_connection_is_closed(impatient_server: Server) -> None:
    with connect(impatient_server.http_port) as connection:
        assert seconds_until_closed(connection) < MAX_SECONDS


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"GET /v2/heal", id="half a request line"),
        pytest.param(b"GET / HTTP/1.1\r\nx-a: 1\r\n", id="half the headers"),
        pytest.param(LIVE + b"GET / HT", id="half a request after a complete one"),
        pytest.param(LIVE + b"\r\n", id="an empty line after a complete request"),
        pytest.param(http_request("GET", "/", None, "content-length: 9"), id="a missing body that nothing reads"),
    ],
)
def test_an_incomplete_request_is_closed(impatient_server: Server, start: bytes) -> None:
    with connect(impatient_server.http_port) as connection:
        connection.sendall(start)
        assert seconds_until_closed(connection) < MAX_SECONDS


def test_slow_headers_get_no_more_time(impatient_server: Server) -> None:
    with connect(impatient_server.http_port) as connection:
        started = time.monotonic()
        connection.sendall(LIVE + b"GET / HTTP/1.1\r\n")
        connection.settimeout(0.2)
        while time.monotonic() - started < 2 * MAX_SECONDS:
            send_parts(connection, [b"x-a: 1\r\n"])
            try:
                if not connection.recv(1 << 16):
                    break
            except TimeoutError:
                continue
            except ConnectionResetError:
                break
        assert time.monotonic() - started < MAX_SECONDS


@pytest.mark.parametrize("sent", [b"", b'{"instances": ['], ids=["nothing of it", "half of it"])
@pytest.mark.parametrize("header", ["content-length: 1000", "transfer-encoding: chunked"])
def test_a_slow_body_times_out(impatient_server: Server, sent: bytes, header: str) -> None:
    part = b"%x\r\n%b\r\n" % (len(sent), sent) if "chunked" in header and sent else sent
    with connect(impatient_server.http_port) as connection:
        connection.sendall(http_request("POST", PREDICT, None, header) + part)
        started = time.monotonic()
        (response,) = parse_responses(receive_all(connection))
    assert (response.status, json.loads(response.body)) == (408, {"error": "the body did not come within 1 s"})
    assert time.monotonic() - started < MAX_SECONDS  # the connection was closed, too


@pytest.mark.parametrize(
    ("start", "more"),
    [
        pytest.param(b"GET /", b"a", id="in the path"),
        pytest.param(b"GET / HTTP/1.1\r\nx: ", b"a", id="in a header"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"a: 1\r\n", id="headers"),
        pytest.param(
            http_request("POST", PREDICT, None, "transfer-encoding: chunked") + b"0\r\n", b"a: 1\r\n", id="trailers"
        ),
        pytest.param(
            http_request("POST", PREDICT, None, "transfer-encoding: chunked"), b"1;a=b", id="an extension of a chunk"
        ),
    ],
)
def test_endless_headers_are_refused(servers: dict[str, Server], start: bytes, more: bytes) -> None:
    many = more * (2 * 2**20 // len(more))
    raw = exchange(servers["regression"].http_port, start, *[many[i : i + 50_000] for i in range(0, len(many), 50_000)])
    # a reset may overtake the response, because the client goes on to send
    assert [response.status for response in parse_responses(raw)] in ([431], [400], [])


@pytest.mark.parametrize(
    "invalid_data",
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
        pytest.param(
            b"POST %b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nx\r\n" % PREDICT.encode(), id="an invalid chunk"
        ),
    ],
)
def test_data_that_is_not_http_gets_400_and_a_closed_connection(
    servers: dict[str, Server], invalid_data: bytes
) -> None:
    (response,) = parse_responses(exchange(servers["regression"].http_port, invalid_data))
    assert (response.status, json.loads(response.body)) == (400, {"error": "the request is not HTTP"})
    assert response.headers["connection"] == "close"
    assert response.headers.items() >= SECURITY.items()


def test_requests_before_invalid_data_are_answered(servers: dict[str, Server], body: bytes) -> None:
    raw = exchange(servers["regression"].http_port, LIVE + http_request("POST", PREDICT, body) * 2 + b"\x00\r\n\r\n")
    assert [response.status for response in parse_responses(raw)] == [200, 200, 200]


def test_pipelined_requests_are_answered_in_order(servers: dict[str, Server], body: bytes) -> None:
    requests = [
        http_request("POST", PREDICT, body, "x-request-id: a"),
        LIVE,
        http_request("POST", PREDICT, b"{", "x-request-id: b"),
    ]
    raw = exchange(servers["regression"].http_port, b"".join(requests * 20), seconds=2)
    assert [response.status for response in parse_responses(raw)] == [200, 200, 400] * 20


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(b"", id="then disconnect"),
        pytest.param(b"\x00", id="then invalid data"),
        pytest.param(
            http_request("POST", PREDICT, None, "transfer-encoding: chunked") + b"x\r\n", id="then a broken body"
        ),
        pytest.param(http_request("POST", PREDICT, None, "content-length: 9"), id="then half a body"),
    ],
)
def test_a_client_that_does_not_read_causes_no_traceback(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], end: bytes
) -> None:
    # Given clients that do not read their responses
    server = start_server(bundles["regression"].directory, "regression", "--drain_seconds", "0").wait()
    request = http_request("POST", PREDICT, json.dumps({"instances": [*rows] * 500}).encode())
    for _ in range(30):
        with connect(server.http_port) as connection:
            send_parts(connection, [LIVE + request * 3 + LIVE, end])
            time.sleep(0.01)
    # When the server shuts down
    assert server.client.post(PREDICT, json={"instances": rows}).status_code == 200
    server.stop()
    # Then nothing was logged as a failure
    assert "Traceback" not in server.output()


@pytest.mark.parametrize("rest", [b"", b"{}"], ids=["half a body", "a body"])
def test_nothing_is_answered_after_the_last_response(servers: dict[str, Server], rest: bytes) -> None:
    more = http_request("POST", PREDICT, None, "content-length: 2") + rest
    started = time.monotonic()
    raw = exchange(servers["regression"].http_port, http_request("GET", "/v2", None, "connection: close") + more)
    assert [response.status for response in parse_responses(raw)] == [200]
    assert time.monotonic() - started < MAX_SECONDS


def test_a_trailer_is_not_a_header(servers: dict[str, Server], body: bytes) -> None:
    chunked = b"%x\r\n%b\r\n0\r\ncontent-encoding: gzip\r\nx-request-id: late\r\n\r\n" % (len(body), body)
    request = http_request("POST", PREDICT, None, "transfer-encoding: chunked", "connection: close")
    (response,) = parse_responses(exchange(servers["regression"].http_port, request + chunked))
    assert response.status == 200
    assert response.headers["x-request-id"] != "late"


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0"])
@pytest.mark.parametrize("pieces", [1, 7, 1000])
def test_an_offered_upgrade_is_ignored(servers: dict[str, Server], body: bytes, protocol: str, pieces: int) -> None:
    # Given a request as HTTP clients of Java send it, and another one on its connection
    offer = ["connection: Upgrade, HTTP2-Settings", f"upgrade: {protocol}", "http2-settings: AAMAAABkAAQAAP__"]
    sent = http_request("POST", PREDICT, body, *offer) + http_request("POST", PREDICT, body, "connection: close")
    size = -(-len(sent) // pieces)
    # When
    raw = exchange(servers["regression"].http_port, *[sent[at : at + size] for at in range(0, len(sent), size)])
    # Then
    first, second = parse_responses(raw)
    assert (first.status, second.status) == (200, 200)
    assert first.body == second.body


def test_connect_is_refused(servers: dict[str, Server]) -> None:
    (response,) = parse_responses(
        exchange(servers["regression"].http_port, http_request("CONNECT", PREDICT) + b"anything", seconds=2)
    )
    assert response.status == 405
