"""Server process of a benchmark: start, readiness, requests, memory and stop."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

READY_SECONDS = 120.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.02
LOG_TAIL_CHARACTERS = 3000  # of the log in an error message


class ServerProcess:
    """A running server.

    Attributes:
        http_port: Port of REST.
        grpc_port: Port of gRPC.
        ready_seconds: Seconds from the start of the process until its readiness probe returned 200.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, http_port: int, grpc_port: int) -> None:
        """Wrap a process that was just started."""
        self.started = time.perf_counter()
        self.process = process
        self.log = log
        self.http_port = http_port
        self.grpc_port = grpc_port
        self.ready_seconds = 0.0

    def wait_until_ready(self, path: str) -> None:
        """Poll a path until it returns 200.

        Raises:
            SystemExit: The process ended, or was not ready within `READY_SECONDS`.
        """
        while time.perf_counter() - self.started < READY_SECONDS:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended:\n{self.log_tail()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(path)[0] == http.client.OK:
                    self.ready_seconds = time.perf_counter() - self.started
                    return
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"{path} was not answered in {READY_SECONDS:.0f} s:\n{self.log_tail()}")

    def get(self, path: str) -> tuple[int, bytes]:
        """Send a GET request; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=READY_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def post(self, path: str, body: str) -> bytes:
        """Post a JSON body; return the body of the response.

        Raises:
            SystemExit: The status of the response is not 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=READY_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"{path} answered {response.status}: {content[:500]!r}\n{self.log_tail()}")
        return content

    def call(self, method: str, message: bytes) -> bytes:
        """Call a gRPC method with an encoded message; return the encoded response.

        Raises:
            SystemExit: The status of the call is not OK.
        """
        import grpc  # type: ignore[import-untyped]

        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            try:
                reply: bytes = channel.unary_unary(method)(message, timeout=READY_SECONDS)
            except grpc.RpcError as err:
                raise SystemExit(f"{method}: {err}\n{self.log_tail()}") from err
        return reply

    def resident_mb(self) -> float:
        """Return the resident memory of the process and its descendants, in 10^6 bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in process_tree(self.process.pid))
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL_CHARACTERS:]


@contextlib.contextmanager
def run_server(
    command: Sequence[str], ports: tuple[int, int], log: Path, env: Mapping[str, str]
) -> Iterator[ServerProcess]:
    """Run a server in a session of its own within a context, with its output in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | env, start_new_session=True)
        try:
            yield ServerProcess(process, log, *ports)
        finally:
            stop_server(process)


def stop_server(process: subprocess.Popen[bytes]) -> None:
    """Stop a process and its descendants, by SIGKILL after `STOP_SECONDS`."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the process leads a session of its own
    process.wait()


def process_tree(pid: int) -> list[int]:
    """List a process and its descendants."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(member for child in children for member in process_tree(child))]


def free_ports(count: int) -> list[int]:
    """Find unused ports."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
