"""HTTP as clients speak it: half-closed connections, Host, HEAD, OPTIONS, CORS, versions in paths."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from model_name.errors import ConfigError
from model_name.serving.arguments import build_parser, parse_cors
from model_name.serving.rest.messages import HttpResponse, response_headers
from tests.support.clients import VERSION
from tests.support.sockets import connect, exchange, http_request, parse_responses, receive_all, send_parts

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME = "regression"
PREDICT, INFER = f"/v1/models/{NAME}:predict", f"/v2/models/{NAME}/infer"
VERSIONS = f"/v1/models/{NAME}/versions"
GET_PATHS = [
    "/", "/openapi.json", "/v2/health/live", "/v2/health/ready", "/v2/health/startup", "/metrics", "/v1/models", "/v2",
    "/v2/models", f"/v1/models/{NAME}", f"{VERSIONS}/{VERSION}", f"/v2/models/{NAME}", f"/v2/models/{NAME}/ready",
    f"/v2/models/{NAME}/versions/{VERSION}", f"/v2/models/{NAME}/versions/{VERSION}/ready",
]  # fmt: skip
ATTEMPTS = 5
ORIGIN, OTHER_ORIGIN = "https://page.example", "https://other.example"


@pytest.fixture
def server(servers: dict[str, Server]) -> Server:
    """Select a server."""
    return servers[NAME]


@pytest.fixture
def body(rows: list[Row]) -> bytes:
    """Encode a valid body."""
    return json.dumps({"instances": rows}).encode()


# Half-closed connections


@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["at once", "a little later"])
@pytest.mark.parametrize("kind", ["fast path", "chunks", "compressed", "a probe", "pipelined requests", "a bad row"])
def test_a_client_that_ends_its_side_gets_its_responses(server: Server, body: bytes, kind: str, pause: float) -> None:
    # Given
    whole = http_request("POST", PREDICT, body)
    chunked = http_request("POST", PREDICT, None, "transfer-encoding: chunked")
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    sent, expected = {
        "fast path": (whole, [200]),
        "chunks": (chunked, [200]),
        "compressed": (http_request("POST", PREDICT, body, "content-encoding: identity"), [200]),
        "a probe": (http_request("GET", "/v2/health/live"), [200]),
        "pipelined requests": ((whole + chunked) * 40 + http_request("GET", "/nowhere"), [200] * 80 + [404]),
        "a bad row": (http_request("POST", PREDICT, b"{}"), [400]),
    }[kind]
    disconnected = count_disconnected(server)
    # When
    started = time.monotonic()
    raw = exchange(server.http_port, sent, pause=pause, ends=True)
    # Then
    assert [response.status for response in parse_responses(raw)] == expected
    assert time.monotonic() - started < 15  # it is closed afterwards
    assert count_disconnected(server) == disconnected


def count_disconnected(server: Server) -> float:
    """Count the requests whose client is taken for disconnected."""
    lines = server.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'code="499"' in line)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET / HT", id="half a request line"),
        pytest.param(http_request("POST", PREDICT, None, "content-length: 9") + b"{", id="half a body"),
    ],
)
def test_a_client_that_ends_its_side_early_is_disconnected(server: Server, sent: bytes) -> None:
    started = time.monotonic()
    assert exchange(server.http_port, sent, pause=0.02, ends=True) == b""
    assert time.monotonic() - started < 5


def test_complete_requests_before_half_a_body_get_their_responses(server: Server, body: bytes) -> None:
    half = http_request("POST", PREDICT, None, "content-length: 9") + b"{"
    raw = exchange(server.http_port, http_request("POST", PREDICT, body) * 3 + half, ends=True)
    assert [response.status for response in parse_responses(raw)] == [200] * 3


# Host


@pytest.mark.parametrize("path", ["/v2/health/live", PREDICT])
@pytest.mark.parametrize(
    ("lines", "version", "is_valid"),
    [
        pytest.param(["host: a"], "1.1", True, id="one"),
        pytest.param(["host:"], "1.1", True, id="an empty one"),
        pytest.param([], "1.1", False, id="none"),
        pytest.param(["host: a", "host: a"], "1.1", False, id="two alike"),
        pytest.param(["host: a", "Host: b"], "1.1", False, id="two that differ"),
        pytest.param([], "1.0", True, id="none in HTTP/1.0"),
        pytest.param(["host: a", "host: b"], "1.0", False, id="two in HTTP/1.0"),
    ],
)
def test_a_request_has_one_host(
    server: Server, body: bytes, path: str, lines: list[str], version: str, *, is_valid: bool
) -> None:
    content = body if path == PREDICT else b""
    head = [f"{'POST' if content else 'GET'} {path} HTTP/{version}", *lines, f"content-length: {len(content)}"]
    request = "\r\n".join([*head, "connection: close", "", ""]).encode() + content
    (response,) = parse_responses(exchange(server.http_port, request))
    assert response.status == (200 if is_valid else 400)
    if not is_valid:
        message = "the request has no Host header, or more than one; HTTP/1.1 requires exactly one"
        assert json.loads(response.body) == {"error": message}


# HEAD and OPTIONS


@pytest.mark.parametrize("path", GET_PATHS)
def test_head_has_the_headers_of_get_and_no_body(server: Server, path: str) -> None:
    get = server.client.get(path)
    raw = exchange(server.http_port, http_request("HEAD", path, None, "connection: close"))
    head, _, rest = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert (lines[0].split()[1], rest) == (str(get.status_code), b"")
    assert headers["content-type"] == get.headers["content-type"]
    if path != "/metrics":  # which has changed meanwhile
        assert headers["content-length"] == get.headers["content-length"] == str(len(get.content))


def test_a_connection_stays_in_step_after_head(server: Server, body: bytes) -> None:
    sent = [http_request("HEAD", "/v2"), http_request("POST", PREDICT, body, "connection: close")]
    raw = exchange(server.http_port, *sent)
    assert [part.split(b" ", 2)[1] for part in raw.split(b"HTTP/1.1")[1:]] == [b"200", b"200"]


@pytest.mark.parametrize(
    ("path", "status", "allow"),
    [
        *[pytest.param(path, 200, "GET, HEAD, OPTIONS", id=path) for path in GET_PATHS],
        *[pytest.param(path, 200, "POST, OPTIONS", id=path) for path in (PREDICT, INFER)],
        pytest.param("/nowhere", 404, None, id="an unknown path"),
        pytest.param("/v1/models/nobody:predict", 404, None, id="an unknown model"),
    ],
)
def test_options_lists_the_methods_of_a_path(server: Server, path: str, status: int, allow: str | None) -> None:
    response = server.client.request("OPTIONS", path)
    assert (response.status_code, response.headers.get("allow")) == (status, allow)
    other = server.client.request("DELETE", path)
    assert (other.status_code, other.headers.get("allow")) == ((405 if allow else status), allow)


# CORS


@pytest.fixture(scope="module")
def cors_servers(bundles: dict[str, Bundle], start_server: StartServer) -> dict[str, Server]:
    """Start servers for pages of two origins, and of any."""
    origins = {"two": f"{ORIGIN}, http://localhost:3000", "any": "*"}
    started = {
        name: start_server(bundles[NAME].directory, NAME, "--cors_origins", value, "--drain_seconds", "0")
        for name, value in origins.items()
    }
    return {name: server.wait() for name, server in started.items()}


def cors_headers(response: httpx.Response) -> dict[str, str]:
    """Select the headers of CORS."""
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


@pytest.mark.parametrize(
    ("server_name", "origin", "allowed"),
    [
        pytest.param("two", ORIGIN, ORIGIN, id="a listed origin"),
        pytest.param("two", OTHER_ORIGIN, None, id="another origin"),
        pytest.param("two", "null", None, id="an opaque origin"),
        pytest.param("two", None, None, id="no origin"),
        pytest.param("any", OTHER_ORIGIN, "*", id="any origin"),
    ],
)
def test_pages_of_allowed_origins_may_read_responses(
    cors_servers: dict[str, Server], body: bytes, server_name: str, origin: str | None, allowed: str | None
) -> None:
    server = cors_servers[server_name]
    headers = {"origin": origin} if origin else {}
    for method, path, content, status in [
        ("POST", PREDICT, body, 200),
        ("POST", PREDICT, b"{}", 400),
        ("GET", f"/v2/models/{NAME}", None, 200),
        ("GET", "/nowhere", None, 404),
    ]:
        response = server.client.request(method, path, content=content, headers=headers)
        assert response.status_code == status
        assert response.headers.get("access-control-allow-origin") == allowed
        assert "access-control-allow-credentials" not in response.headers
        if allowed:
            assert "x-request-id" in response.headers["access-control-expose-headers"]
            assert "x-model-version" in response.headers["access-control-expose-headers"]
        if server_name == "two" and origin:
            assert response.headers["vary"] == "origin"


def test_a_preflight_request_is_answered_without_a_token(cors_servers: dict[str, Server]) -> None:
    headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    response = cors_servers["two"].client.request("OPTIONS", PREDICT, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in response.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= {*response.headers["access-control-allow-headers"].split(", ")}


def test_pages_may_read_nothing_by_default(server: Server, body: bytes) -> None:
    response = server.client.post(PREDICT, content=body, headers={"origin": ORIGIN})
    assert (response.status_code, cors_headers(response)) == (200, {})
    headers = {"origin": ORIGIN, "access-control-request-method": "POST"}
    assert cors_headers(server.client.request("OPTIONS", PREDICT, headers=headers)) == {}


@pytest.mark.parametrize("origin", ["page.example", "https://", "https://a/b", "https://*.example", "ht\ntp://a"])
def test_an_invalid_origin_is_refused(origin: str) -> None:
    args = build_parser("server", None).parse_args(["--cors_origins", origin])
    with pytest.raises(ConfigError, match=r"(?s)^--cors_origins: .* is not an origin"):
        parse_cors(args)


# Versions


def test_the_served_version_of_v1_is_found_by_its_path(server: Server, body: bytes) -> None:
    expected = server.client.post(PREDICT, content=body)
    response = server.client.post(f"{VERSIONS}/{VERSION}:predict", content=body)
    assert (response.status_code, response.content) == (200, expected.content)
    status = server.client.get(f"{VERSIONS}/{VERSION}")
    assert status.status_code == 200
    assert status.json() == {
        "name": NAME,
        "ready": True,
        "model_version_status": [
            {"version": VERSION, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ],
    }


@pytest.mark.parametrize("version", ["6", "07", "latest", "x" * 200])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", "/v1/models/{name}/versions/{version}:predict", id="V1 predict"),
        pytest.param("POST", "/v1/models/{name}/versions/{version}:explain", id="V1 explain"),
        pytest.param("GET", "/v1/models/{name}/versions/{version}", id="V1 status"),
        pytest.param("POST", "/v2/models/{name}/versions/{version}/infer", id="V2 infer"),
        pytest.param("GET", "/v2/models/{name}/versions/{version}", id="V2 metadata"),
        pytest.param("GET", "/v2/models/{name}/versions/{version}/ready", id="V2 ready"),
    ],
)
def test_another_version_gets_the_same_response_on_every_route(
    server: Server, body: bytes, method: str, path: str, version: str
) -> None:
    response = server.client.request(
        method, path.format(name=NAME, version=version), content=body if method == "POST" else None
    )
    message = f"there is no version {version[:100]} of {NAME} here; this server serves {VERSION}"
    assert (response.status_code, response.json()) == (404, {"error": message})


# Headers of responses


@pytest.mark.parametrize("text", ["a\r\nset-cookie: b", "a\nb", "a\x00b", "\x7f", "größe", "中"])
def test_no_value_ends_a_header_of_a_response(text: str) -> None:
    headers = response_headers(HttpResponse(b"", headers=[(b"x", text.encode())]), [(b"x-request-id", b"1")], [])
    value = dict(headers)[b"x"]
    assert value.isascii()
    assert value.decode().isprintable()


@pytest.mark.parametrize("chunked", [False, True], ids=["fast path", "application"])
@pytest.mark.parametrize("encoded", ["a%0D%0Aset-cookie:%20b", "a%00b", "%E4%B8%AD", "%0a", "a%0Db"])
def test_attributes_of_events_forge_no_headers(server: Server, body: bytes, encoded: str, *, chunked: bool) -> None:
    event = ["ce-specversion: 1.0", "ce-id: " + encoded, "ce-source: " + encoded, "ce-type: t", "ce-more: " + encoded]
    if chunked:
        request = http_request("POST", PREDICT, None, *event, "transfer-encoding: chunked", "connection: close")
        request += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        request = http_request("POST", PREDICT, body, *event, "connection: close")
    (response,) = parse_responses(exchange(server.http_port, request))
    assert response.status == 200
    assert "set-cookie" not in response.headers
    assert all(value.isprintable() for value in response.headers.values())


# Connections


@pytest.fixture(scope="module")
def small_server(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """Start a server of four connections."""
    options = ["--max_connections", "4", "--header_seconds", "60", "--drain_seconds", "0"]
    return start_server(bundles[NAME].directory, NAME, *options).wait()


def test_connections_beyond_the_maximum_only_serve_probes(small_server: Server, body: bytes) -> None:
    server, port = small_server, small_server.http_port
    server.client.close()
    server.client = httpx.Client(base_url=server.url, timeout=60)
    predict = http_request("POST", PREDICT, body)
    idle = [open_connection(port) for _ in range(4)]
    try:
        # When the maximum is reached, then other requests are refused and probes are served, on short connections
        (refused,) = parse_responses(exchange(port, predict))
        assert (refused.status, refused.headers["retry-after"], refused.headers["connection"]) == (503, "1", "close")
        assert json.loads(refused.body) == {"error": "this server has too many connections; try again in a second"}
        for path in ("/v2/health/live", "/v2/health/ready", f"/v1/models/{NAME}", "/metrics"):
            (probe,) = parse_responses(exchange(port, http_request("GET", path)))
            assert (probe.status, probe.headers["connection"]) == (200, "close")
        # And those that were there are served
        idle[0].sendall(predict)
        assert parse_responses(idle[0].recv(1 << 16))[0].status == 200
        # And still further ones are refused without reading from them
        for _ in range(ATTEMPTS):  # on a stalled machine, the first ones may be closed before the last one comes
            surplus = [socket.create_connection(("127.0.0.1", port), timeout=20) for _ in range(64 + 16)]
            refusals = parse_responses(receive_all(surplus[-1]))
            for connection in surplus:
                connection.close()
            if refusals:
                break
        assert [(response.status, response.headers["retry-after"]) for response in refusals] == [(503, "1")]
    finally:
        for connection in idle:
            connection.close()
    # And when they are closed, others are served, and the refused ones were counted
    deadline = time.monotonic() + 20
    while [response.status for response in parse_responses(exchange(port, predict, ends=True))] != [200]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    text = server.client.get("/metrics").text
    count = next(line for line in text.splitlines() if line.startswith("model_name_connections_refused_total "))
    assert float(count.split()[1]) >= 70


def open_connection(port: int) -> socket.socket:
    """Open a connection, and let the server accept it."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    time.sleep(0.01)
    return connection


def test_a_silent_surplus_connection_is_closed_soon(small_server: Server) -> None:
    idle = [open_connection(small_server.http_port) for _ in range(4)]
    with connect(small_server.http_port) as connection:
        started = time.monotonic()
        send_parts(connection, [b"GET / HTTP/1.1\r\n"])
        receive_all(connection)
        assert time.monotonic() - started < 8
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_server_without_free_files_serves_again_when_connections_are_closed(
    bundles: dict[str, Bundle], start_server: StartServer, body: bytes, loop: str
) -> None:
    # Given a server that may open few files more
    server = start_server(bundles[NAME].directory, NAME, "--event-loop", loop, "--drain_seconds", "0").wait()
    process = psutil.Process(server.process.pid)
    limit = process.num_fds() + 10
    process.rlimit(psutil.RLIMIT_NOFILE, (limit, limit))
    # When many clients connect, and leave again
    connections = [socket.create_connection(("127.0.0.1", server.http_port), timeout=20) for _ in range(60)]
    time.sleep(0.2)
    for connection in connections:
        connection.close()
    # Then others are served
    predict = http_request("POST", PREDICT, body)
    deadline = time.monotonic() + 20
    while True:
        try:
            statuses = [response.status for response in parse_responses(exchange(server.http_port, predict, ends=True))]
        except OSError:
            statuses = []
        if statuses == [200]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
