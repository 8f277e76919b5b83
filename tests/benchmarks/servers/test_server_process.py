"""Server processes: readiness, requests, memory, and termination with all descendants."""

import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.servers.server_process import free_ports, run_server

SERVER_SCRIPT = """
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


def resident_mb(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def is_alive(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().split()[2] != "Z"


def test_memory_and_stop_include_child_processes(ports, tmp_path):
    # given a server with a child process
    command = [sys.executable, "-c", SERVER_SCRIPT, str(ports[0])]
    with run_server(command, ports, tmp_path / "log", {}) as process:
        # when the server is ready
        process.wait_until_ready("/ready")
        child = int(process.get("/ready")[1])
        # then the memory of both is counted
        assert process.resident_mb() == pytest.approx(resident_mb(process.process.pid) + resident_mb(child), rel=0.1)
        assert 0 < process.ready_seconds < 60
    # and both are terminated
    assert process.process.poll() is not None
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)


def test_log_tail_of_a_server_that_ended_is_reported(ports, tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such bundle')"]
    with run_server(command, ports, tmp_path / "log", {}) as process, pytest.raises(SystemExit, match="no such bundle"):
        process.wait_until_ready("/ready")


def test_error_response_ends_the_benchmark(ports, tmp_path):
    command = [sys.executable, "-c", SERVER_SCRIPT, str(ports[0])]
    with run_server(command, ports, tmp_path / "log", {}) as process:
        process.wait_until_ready("/ready")
        with pytest.raises(SystemExit, match="/predict answered 501"):
            process.post("/predict", "{}")
