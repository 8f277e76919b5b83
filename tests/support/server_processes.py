"""Real servers in processes of their own."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

START_SECONDS = 120.0  # on a busy machine without compiled bytecode; 5 s on an idle one with it
STOP_SECONDS = 60.0
LOG_LINES = 60  # in the report of a failure


@dataclass
class Server:
    """Server process and its address."""

    process: subprocess.Popen[bytes]
    log: Path
    name: str
    http_port: int
    grpc_port: int
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_url(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def is_ready(self) -> bool:
        try:
            return self.client.get(f"/v1/models/{self.name}").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def wait(self) -> "Server":
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                pytest.fail(f"{self.name} is not ready; exit code {code}\n{self.output()}")
            time.sleep(0.1)
        return self

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> int:
        """Stop the server as Kubernetes would; return its exit code."""
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


StartServer = Callable[..., Server]
SERVERS: list[Server] = []


def launch_server(
    module: str, *args: str, name: str, log: Path, env: dict[str, str], cwd: Path | None = None
) -> Server:
    """Start `python -m MODULE` on free ports; call `wait` on the result."""
    http_port, grpc_port = free_ports(2)
    ports = ["--http_port", str(http_port), "--grpc_port", str(grpc_port)]
    with log.open("wb") as file:
        command = [sys.executable, "-m", module, *args, *ports]
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=cwd)
    SERVERS.append(Server(process, log, name, http_port, grpc_port))
    return SERVERS[-1]


def stop_servers() -> None:
    """Stop all servers that were started."""
    for server in SERVERS:
        server.stop()


def free_ports(count: int) -> Sequence[int]:
    """Find ports of the loopback interface that are free."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Add the output of the servers to the report of a failed test."""
    report = yield
    if report.failed:
        for server in SERVERS:
            lines = server.output().splitlines()[-LOG_LINES:]
            report.sections.append((f"server {server.name}", "\n".join(lines)))
    return report
