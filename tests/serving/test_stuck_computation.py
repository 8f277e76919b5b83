"""A computation that never ends does not stop SIGTERM: the log is written and the process ends."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from model_name.serving.batching.batcher import LARGE_BODY_BYTES, MEDIUM_BODY_BYTES
from model_name.serving.bundle import Bundle
from model_name.serving.runtime.shutdown import STUCK_EXIT_CODE
from tests.support import prediction_logs
from tests.support.counts import count
from tests.support.server_processes import launch_server
from tests.support.stuck_server import STUCK_AREA

if TYPE_CHECKING:
    from tests.support.server_processes import Server
    from tests.support.tables import Row

GRACE_SECONDS = 0.5
MAX_SECONDS = GRACE_SECONDS + 8.0  # on a busy machine
REQUESTS = 30


@pytest.fixture
def start_stuck_server(bundles: dict[str, Bundle], serving_env: dict[str, str], tmp_path: Path):  # type: ignore[no-untyped-def]
    """Return a function that starts a server that is stuck in one of the ways of `stuck_server`."""
    started: list[Server] = []

    def start(way: str, loop: str = "auto") -> Server:
        options = ["--drain_seconds", "0", "--grace_seconds", str(GRACE_SECONDS)]
        options += [
            "--event-loop",
            loop,
            "--prediction_log",
            str(tmp_path / "log"),
            "--bundle",
            str(bundles["regression"].directory),
        ]
        server = launch_server(
            "tests.support.stuck_server",
            way,
            "model_name.serving",
            *options,
            name="regression",
            log=tmp_path / "server.log",
            env=serving_env,
        )
        started.append(server)
        return server.wait()

    yield start
    for server in started:  # and no others: the servers that other tests share keep running
        server.stop()


def send(url: str, body: bytes) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.post(url, content=body, timeout=30)


PLACES = [
    pytest.param("python", 0, id="in Python, on the event loop"),
    pytest.param("c", LARGE_BODY_BYTES, id="in C, on the thread of large requests"),
]
MORE_PLACES = [
    pytest.param("c", 0, id="in C, on the event loop"),
    pytest.param("python", MEDIUM_BODY_BYTES, id="in Python, on a thread of medium requests"),
]


@pytest.mark.parametrize(("way", "size"), count(reduced=PLACES, full=PLACES + MORE_PLACES))
@pytest.mark.parametrize("loop", count(reduced=["auto"], full=["auto", "asyncio"]))
def test_sigterm_ends_a_stuck_server_with_its_log_written(
    start_stuck_server, rows: list[Row], tmp_path: Path, way: str, size: int, loop: str
) -> None:
    # Given a server that has predicted some rows, so that small requests run on the event loop
    server: Server = start_stuck_server(way, loop)
    url = f"{server.url}/v1/models/regression:predict"
    for _ in range(REQUESTS):
        assert server.client.post(url, json={"instances": rows[:1]}).status_code == 200
    # And whose model is stuck with one request
    body = json.dumps({"instances": [rows[0] | {"area": STUCK_AREA}]}).encode() + b" " * size
    client = threading.Thread(target=send, args=(url, body))
    client.start()
    time.sleep(0.3)
    # When it receives SIGTERM
    started = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    # Then it ends soon after the grace period
    code = server.process.wait(60)
    seconds = time.monotonic() - started
    client.join(30)
    assert code == STUCK_EXIT_CODE, server.output()
    assert seconds < MAX_SECONDS, server.output()
    # And the log has the rows that were predicted
    assert len(prediction_logs.lines(tmp_path / "log")) == REQUESTS
    assert f"wait_in_{way}, stuck_server.py" in server.output()


def test_a_second_sigterm_does_not_prolong_the_grace_period_for_ever(start_stuck_server, rows: list[Row]) -> None:
    server: Server = start_stuck_server("python")
    body = json.dumps({"instances": [rows[0] | {"area": STUCK_AREA}]}).encode() + b" " * LARGE_BODY_BYTES
    client = threading.Thread(target=send, args=(f"{server.url}/v1/models/regression:predict", body))
    client.start()
    time.sleep(0.3)
    started = time.monotonic()
    while server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        assert time.monotonic() - started < MAX_SECONDS
    client.join(30)
    assert server.process.returncode == STUCK_EXIT_CODE
