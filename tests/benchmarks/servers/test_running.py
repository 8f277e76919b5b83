"""A server process: ready, asked, weighed, and gone afterwards with all that it started."""

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.servers.running import free_ports, running

ANSWERING = """
import subprocess, sys, http.server
child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"], stdout=-1)
child.stdout.readline()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(child.pid).encode()
        self.send_response(200 if self.path == "/ready" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def ports():
    return tuple(free_ports(2))


def held_mb(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def is_alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_a_server_is_weighed_with_what_it_started_and_ends_with_it(ports, tmp_path):
    # given a server that starts another process
    command = [sys.executable, "-c", ANSWERING, str(ports[0])]
    with running(command, ports, tmp_path / "log", {}) as process:
        # when it is ready
        process.wait_until_ready("/ready")
        child = int(process.get("/ready")[1])
        # then both are weighed
        assert process.resident_mb() == pytest.approx(held_mb(process.process.pid) + held_mb(child), rel=0.1)
        assert 0 < process.ready_seconds < 60
    # and neither is left
    assert process.process.poll() is not None
    until = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not is_alive(child)


def test_a_server_that_ends_is_told_with_its_last_words(ports, tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    with running(command, ports, tmp_path / "log", {}) as process, pytest.raises(SystemExit, match="no such bundle"):
        process.wait_until_ready("/ready")


def test_a_reply_that_is_an_error_ends_the_benchmark(ports, tmp_path):
    command = [sys.executable, "-c", ANSWERING, str(ports[0])]
    with running(command, ports, tmp_path / "log", {}) as process:
        process.wait_until_ready("/ready")
        with pytest.raises(SystemExit, match="/predict answered 501"):
            process.post("/predict", "{}")
