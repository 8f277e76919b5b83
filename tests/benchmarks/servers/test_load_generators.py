"""Parsing of the reports of the load generators, and rejection of reports with an error."""

import contextlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.servers import load_generators

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
RESPONSE_BYTES = 90
CONNECTIONS = 4


def wrk(**changes):
    figures = {"requests": 5000, "microseconds": 2_000_000, "failed": 0, "p50": 6499, "p99": 11662} | changes
    return WRK + json.dumps(figures) + "\n"


def h2load(**changes):
    return H2LOAD.format(**{"succeeded": 755, "failed": 0, "errored": 0, "data": 755 * RESPONSE_BYTES} | changes)


def test_report_of_wrk_is_parsed():
    assert load_generators.parse_wrk(wrk()) == load_generators.LoadResult(rate=2500.0, p50=6.499, p99=11.662)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        pytest.param(wrk(failed=1), "1 of 5000 requests failed", id="one error among many"),
        pytest.param(wrk(requests=0, failed=0), "0 of 0 requests failed", id="no response"),
        pytest.param(WRK, "wrk told nothing", id="an unfinished script"),
    ],
)
def test_report_of_wrk_with_an_error_is_rejected(report, message):
    with pytest.raises(SystemExit, match=message):
        load_generators.parse_wrk(report)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(755 * RESPONSE_BYTES, id="every byte"),
        pytest.param((755 + CONNECTIONS) * RESPONSE_BYTES, id="with requests in flight at the end"),
    ],
)
def test_report_of_h2load_is_parsed(data):
    load = load_generators.parse_h2load(h2load(data=data), LOG, CONNECTIONS, RESPONSE_BYTES)
    assert load == load_generators.LoadResult(rate=377.5, p50=51.0, p99=100.0)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        pytest.param(h2load(failed=1), "requests failed", id="a failed request"),
        pytest.param(h2load(errored=1), "requests failed", id="a request that ended in an error"),
        pytest.param(h2load(succeeded=0, data=0), "requests failed", id="no response"),
        pytest.param(h2load(data=0), "these had 0.0", id="gRPC errors, which have status 200 and no message"),
        pytest.param(h2load(data=750 * RESPONSE_BYTES), "these had 89.4", id="five gRPC errors among many"),
        pytest.param(h2load().replace("req/s", "requests"), "is not in the report", id="another report"),
    ],
)
def test_report_of_h2load_with_an_error_is_rejected(report, message):
    with pytest.raises(SystemExit, match=message):
        load_generators.parse_h2load(report, LOG, CONNECTIONS, RESPONSE_BYTES)


@given(st.integers(1, 10**9), st.integers(0, 10**12))
def test_errors_are_not_counted_as_responses(succeeded, errors):
    # given responses that were counted as successful, some of them without a message
    errors = min(errors, succeeded)
    report = h2load(succeeded=succeeded, data=(succeeded - errors) * RESPONSE_BYTES)
    # then the report is rejected unless they may have been in flight at the end
    if errors > CONNECTIONS:
        with pytest.raises(SystemExit):
            load_generators.parse_h2load(report, LOG, CONNECTIONS, RESPONSE_BYTES)
    else:
        assert load_generators.parse_h2load(report, LOG, CONNECTIONS, RESPONSE_BYTES).rate == 377.5


def test_missing_tool_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(load_generators.shutil, "which", lambda tool: None)
    with pytest.raises(SystemExit, match="h2load is missing; the Debian package nghttp2-client has it"):
        load_generators.check_installed("h2load")


class RecordingHandler(BaseHTTPRequestHandler):
    """Handler that records the bodies and responds with the status of its class."""

    protocol_version = "HTTP/1.1"
    status = 200
    bodies: set[bytes] = set()

    def do_POST(self):
        self.bodies.add(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def handle_one_request(self):
        with contextlib.suppress(ConnectionResetError):  # wrk closes its connections at the end
            super().handle_one_request()
            return
        self.close_connection = True

    def log_message(self, *args):
        """Log nothing."""


@pytest.fixture
def url():
    with ThreadingHTTPServer(("127.0.0.1", 0), RecordingHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


needs_wrk = pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")


@needs_wrk
def test_wrk_sends_every_body_in_turn(url, tmp_path, monkeypatch):
    monkeypatch.setattr(RecordingHandler, "bodies", set())
    bodies = ['{"a": "]]"}', '{"b": [[1]]}', '{"c": "\\n"}']
    load = load_generators.load_rest(url, bodies, 2, 1, tmp_path / "script.lua")
    assert RecordingHandler.bodies == {body.encode() for body in bodies}
    assert load.rate > 0
    assert 0 < load.p50 <= load.p99


@needs_wrk
def test_wrk_does_not_measure_errors(url, tmp_path, monkeypatch):
    monkeypatch.setattr(RecordingHandler, "status", 503)
    with pytest.raises(SystemExit, match="requests failed"):
        load_generators.load_rest(url, ["{}"], 2, 1, tmp_path / "script.lua")
