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


class ProbedServer:
    """Health server whose probes return what a test sets."""

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
def probed() -> Iterator[ProbedServer]:
    probed = ProbedServer()
    yield probed
    probed.server.close()


def test_a_failing_probe_returns_503_with_the_reason(probed: ProbedServer) -> None:
    assert probed.get("/healthz") == (200, "ok\n")
    assert probed.get("/readyz") == (503, "not in the group yet\n")
    probed.failures = {"live": "no step for 400 seconds", "ready": ""}
    assert probed.get("/healthz?verbose") == (503, "no step for 400 seconds\n")
    assert probed.get("/readyz") == (200, "ok\n")


def test_metrics_are_served_from_the_registry(probed: ProbedServer) -> None:
    status, body = probed.get("/metrics")
    assert status == 200
    assert "records_total 3.0" in body


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/healthz", 501)])
def test_other_requests_are_rejected(probed: ProbedServer, method: str, path: str, status: int) -> None:
    assert probed.get(path, method)[0] == status


def test_idle_connections_do_not_block_others(probed: ProbedServer) -> None:
    idle = [socket.create_connection(("127.0.0.1", probed.server.port)) for _ in range(5)]
    assert probed.get("/healthz") == (200, "ok\n")
    for connection in idle:
        connection.close()


def test_a_disconnected_client_is_not_logged(probed: ProbedServer, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        connection = socket.create_connection(("127.0.0.1", probed.server.port))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset at close
        connection.send(b"GET /metrics HT")
        time.sleep(0.05)
        connection.close()
    time.sleep(0.2)
    assert probed.get("/healthz") == (200, "ok\n")
    assert capfd.readouterr().err == ""


def test_a_port_in_use_is_reported(probed: ProbedServer) -> None:
    with pytest.raises(ConfigError, match=f"--http-port {probed.server.port}: Address already in use"):
        HealthServer("127.0.0.1", probed.server.port, live=str, ready=str, registry=probed.registry)


def test_a_closed_server_releases_its_port(probed: ProbedServer) -> None:
    port = probed.server.port
    probed.server.close()
    again = HealthServer("127.0.0.1", port, live=str, ready=str, registry=probed.registry)
    again.close()
