"""What the load generators tell: read to the figure, and refused where a reply was an error."""

import contextlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.servers import loads

WRK = """Running 3s test @ http://127.0.0.1:8080/v1/models/flights:predict
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     6.28ms    1.51ms  13.16ms   71.23%
  5000 requests in 2.00s, 116.58KB read
Requests/sec:    2500.00
"""
H2LOAD = """finished in 2.01s, 377.50 req/s, 55.43KB/s
requests: 755 total, 759 started, 755 done, {succeeded} succeeded, {failed} failed, {errored} errored, 0 timeout
status codes: 755 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 110.87KB (113530) total, 2.50KB (2565) headers (space savings 95.81%), 66.36KB ({data}) data
                     min         max         mean         sd        +/- sd
time for request:     3.15ms     21.88ms     10.52ms      2.82ms    70.73%
"""
LOG = "".join(f"1795276379241298\t200\t{milliseconds * 1000}\n" for milliseconds in range(1, 102))
REPLY_BYTES = 90
CONNECTIONS = 4


def wrk(**changes):
    figures = {"requests": 5000, "microseconds": 2_000_000, "failed": 0, "p50": 6499, "p99": 11662} | changes
    return WRK + json.dumps(figures) + "\n"


def h2load(**changes):
    return H2LOAD.format(**{"succeeded": 755, "failed": 0, "errored": 0, "data": 755 * REPLY_BYTES} | changes)


def test_the_figures_of_wrk_are_read():
    assert loads.parse_wrk(wrk()) == loads.Load(rate=2500.0, p50=6.499, p99=11.662)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        pytest.param(wrk(failed=1), "1 of 5000 requests failed", id="one error among many"),
        pytest.param(wrk(requests=0, failed=0), "0 of 0 requests failed", id="no reply"),
        pytest.param(WRK, "wrk told nothing", id="the script did not get to its end"),
    ],
)
def test_a_run_of_wrk_with_an_error_is_refused(report, words):
    with pytest.raises(SystemExit, match=words):
        loads.parse_wrk(report)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(755 * REPLY_BYTES, id="every byte"),
        pytest.param((755 + CONNECTIONS) * REPLY_BYTES, id="and those under way at the end"),
    ],
)
def test_the_figures_of_h2load_are_read(data):
    found = loads.parse_h2load(h2load(data=data), LOG, CONNECTIONS, REPLY_BYTES)
    assert found == loads.Load(rate=377.5, p50=51.0, p99=100.0)


@pytest.mark.parametrize(
    ("report", "words"),
    [
        pytest.param(h2load(failed=1), "requests failed", id="a failed request"),
        pytest.param(h2load(errored=1), "requests failed", id="a request that ended in an error"),
        pytest.param(h2load(succeeded=0, data=0), "requests failed", id="no reply"),
        pytest.param(h2load(data=0), "these had 0.0", id="gRPC's errors, which are 200 without a message"),
        pytest.param(h2load(data=750 * REPLY_BYTES), "these had 89.4", id="five of them among many"),
        pytest.param(h2load().replace("req/s", "requests"), "is not in the report", id="another report"),
    ],
)
def test_a_run_of_h2load_with_an_error_is_refused(report, words):
    with pytest.raises(SystemExit, match=words):
        loads.parse_h2load(report, LOG, CONNECTIONS, REPLY_BYTES)


@given(st.integers(1, 10**9), st.integers(0, 10**12))
def test_errors_never_pass_as_replies(succeeded, errors):
    # given so many replies counted as good, of which some held no message
    errors = min(errors, succeeded)
    report = h2load(succeeded=succeeded, data=(succeeded - errors) * REPLY_BYTES)
    # then they are refused unless they may have been under way at the end
    if errors > CONNECTIONS:
        with pytest.raises(SystemExit):
            loads.parse_h2load(report, LOG, CONNECTIONS, REPLY_BYTES)
    else:
        assert loads.parse_h2load(report, LOG, CONNECTIONS, REPLY_BYTES).rate == 377.5


def test_a_tool_that_is_missing_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(loads.shutil, "which", lambda tool: None)
    with pytest.raises(SystemExit, match="h2load is missing; the Debian package nghttp2-client has it"):
        loads.require("h2load")


class Server(BaseHTTPRequestHandler):
    """Keeps what it is sent, and answers with the status of its class."""

    protocol_version = "HTTP/1.1"
    status = 200
    bodies: set[bytes] = set()

    def do_POST(self):
        self.bodies.add(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle_one_request(self):
        with contextlib.suppress(ConnectionResetError):  # wrk hangs up at its end
            super().handle_one_request()
            return
        self.close_connection = True

    def log_message(self, *args):
        """Nothing."""


@pytest.fixture
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")


@needs_wrk
def test_wrk_sends_every_body_in_turn(url, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "bodies", set())
    bodies = ['{"a": "]]"}', '{"b": [[1]]}', '{"c": "\\n"}']
    found = loads.load_rest(url, bodies, 2, 1, tmp_path / "script.lua")
    assert Server.bodies == {body.encode() for body in bodies}
    assert found.rate > 0
    assert 0 < found.p50 <= found.p99


@needs_wrk
def test_wrk_does_not_measure_errors(url, tmp_path, monkeypatch):
    monkeypatch.setattr(Server, "status", 503)
    with pytest.raises(SystemExit, match="requests failed"):
        loads.load_rest(url, ["{}"], 2, 1, tmp_path / "script.lua")
