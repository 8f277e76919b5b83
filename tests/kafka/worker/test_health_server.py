"""The probes of a worker."""

import socket
import struct
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry, Counter

from model_name.errors import ConfigError
from model_name.kafka.worker.health_server import HealthServer


class State:
    """Server, and the state of its probes."""

    def __init__(self) -> None:
        self.failures = {"live": "", "ready": "not in the group yet"}
        self.registry = CollectorRegistry()
        Counter("records", "Of a test.", registry=self.registry).inc(3)
        self.server = HealthServer(
            "127.0.0.1",
            0,
            live=lambda: self.failures["live"],
            ready=lambda: self.failures["ready"],
            registry=self.registry,
        )

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        connection.request(method, path)
        response = connection.getresponse()
        body = response.read().decode()
        connection.close()
        return response.status, body


@pytest.fixture
def state() -> Iterator[State]:
    found = State()
    yield found
    found.server.close()


def test_a_failing_probe_returns_503_with_the_reason(state: State) -> None:
    assert state.get("/healthz") == (200, "ok\n")
    assert state.get("/readyz") == (503, "not in the group yet\n")
    state.failures = {"live": "no step for 400 seconds", "ready": ""}
    assert state.get("/healthz?verbose") == (503, "no step for 400 seconds\n")
    assert state.get("/readyz") == (200, "ok\n")


def test_metrics_are_served_from_the_registry(state: State) -> None:
    status, body = state.get("/metrics")
    assert status == 200
    assert "records_total 3.0" in body


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/healthz", 501)])
def test_other_requests_are_rejected(state: State, method: str, path: str, status: int) -> None:
    assert state.get(path, method)[0] == status


def test_idle_connections_do_not_block_others(state: State) -> None:
    idle = [socket.create_connection(("127.0.0.1", state.server.port)) for _ in range(5)]
    assert state.get("/healthz") == (200, "ok\n")
    for connection in idle:
        connection.close()


def test_a_disconnected_client_is_not_logged(state: State, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", state.server.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset at close
        connection.send(b"GET /metrics HT")
        time.sleep(0.05)
        connection.close()
    time.sleep(0.2)
    assert state.get("/healthz") == (200, "ok\n")
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_reported(state: State) -> None:
    with pytest.raises(ConfigError, match=f"--http-port {state.server.port}: Address already in use"):
        HealthServer("127.0.0.1", state.server.port, live=str, ready=str, registry=state.registry)


def test_a_closed_server_releases_its_port(state: State) -> None:
    port = state.server.port
    state.server.close()
    again = HealthServer("127.0.0.1", port, live=str, ready=str, registry=state.registry)
    again.close()
