"""A server process: started, waited for, asked, measured and stopped."""

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
LOG_CHARACTERS = 3000  # of a server that ended, in the message


class Running:
    """A server that was started.

    Attributes:
        http_port: Of REST.
        grpc_port: Of gRPC.
        ready_seconds: From the start of the process until its readiness was answered by 200.
    """

    def __init__(self, process: subprocess.Popen[bytes], log: Path, http_port: int, grpc_port: int) -> None:
        """Hold a process that was just started."""
        self.started = time.perf_counter()
        self.process = process
        self.log = log
        self.http_port = http_port
        self.grpc_port = grpc_port
        self.ready_seconds = 0.0

    def wait_until_ready(self, path: str) -> None:
        """Ask until the answer is 200.

        Raises:
            SystemExit: It ended, or was not ready in time.
        """
        while time.perf_counter() - self.started < READY_SECONDS:
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended:\n{self.last_words()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get(path)[0] == http.client.OK:
                    self.ready_seconds = time.perf_counter() - self.started
                    return
            time.sleep(POLL_SECONDS)
        raise SystemExit(f"{path} was not answered in {READY_SECONDS:.0f} s:\n{self.last_words()}")

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and the body of a path."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=READY_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def post(self, path: str, body: str) -> bytes:
        """The reply to a body.

        Raises:
            SystemExit: It is not 200.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=READY_SECONDS)
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            reply = response.read()
        if response.status != http.client.OK:
            raise SystemExit(f"{path} answered {response.status}: {reply[:500]!r}\n{self.last_words()}")
        return reply

    def call(self, method: str, message: bytes) -> bytes:
        """The reply to a message of gRPC.

        Raises:
            SystemExit: The status is not OK.
        """
        import grpc  # type: ignore[import-untyped]

        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            try:
                reply: bytes = channel.unary_unary(method)(message, timeout=READY_SECONDS)
            except grpc.RpcError as err:
                raise SystemExit(f"{method}: {err}\n{self.last_words()}") from err
        return reply

    def resident_mb(self) -> float:
        """What the process and those that it started hold in memory, in 10^6 bytes."""
        pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in family(self.process.pid))
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def last_words(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-LOG_CHARACTERS:]


@contextlib.contextmanager
def running(command: Sequence[str], ports: tuple[int, int], log: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """A server in a session of its own, while the block runs; what it writes goes to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | env, start_new_session=True)
        try:
            yield Running(process, log, *ports)
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End it and all that it started, by force if it takes long."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # the session that it leads
    process.wait()


def family(pid: int) -> list[int]:
    """A process and those that descend from it."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(member for child in children for member in family(child))]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
