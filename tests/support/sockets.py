"""Raw HTTP over sockets, for requests that no HTTP client would send."""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class RawResponse(NamedTuple):
    """Response as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes


def http_request(method: str, path: str, body: bytes | None = None, *headers: str, version: str = "1.1") -> bytes:
    """Build a request; a body adds its length."""
    length = [] if body is None else [f"content-length: {len(body)}"]
    head = [f"{method} {path} HTTP/{version}", "host: here", *length, *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + (body or b"")


@contextmanager
def connect(port: int, seconds: float = 20.0) -> Iterator[socket.socket]:
    """Connect to a port of this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        yield connection


def exchange(port: int, *parts: bytes, pause: float = 0.0, seconds: float = 20.0, ends: bool = False) -> bytes:
    """Send data and return what is received until the server closes the connection or is silent.

    Args:
        port: Port of the server.
        parts: Parts of the data.
        pause: Pause between two parts, in seconds.
        seconds: Silence after which nothing more is expected.
        ends: Whether the client closes its side after the data.
    """
    with connect(port, seconds) as connection:
        send_parts(connection, parts, pause)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        return receive_all(connection)


def send_parts(connection: socket.socket, parts: Iterable[bytes], pause: float = 0.0) -> None:
    """Send data as long as the server accepts it."""
    try:
        for part in parts:
            connection.sendall(part)
            if pause:
                time.sleep(pause)
    except (BrokenPipeError, ConnectionResetError):  # it has responded and closed
        pass


def receive_all(connection: socket.socket) -> bytes:
    """Receive until the connection is closed or silent."""
    received = b""
    try:
        while part := connection.recv(1 << 16):
            received += part
    except (TimeoutError, ConnectionResetError):
        pass
    return received


def parse_responses(raw: bytes) -> list[RawResponse]:
    """Parse the responses in received data; fail if it is not HTTP."""
    responses = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        protocol, status, _ = line.split(" ", 2)
        assert protocol == "HTTP/1.1", line
        if status == "100":
            continue
        headers = dict(field.split(": ", 1) for field in lines)
        length = int(headers.get("content-length", 0))
        responses.append(RawResponse(int(status), headers, raw[:length]))
        raw = raw[length:]
    return responses


def seconds_until_closed(connection: socket.socket) -> float:
    """Measure the seconds until the server closes the connection."""
    started = time.monotonic()
    while connection.recv(1 << 16):
        pass
    return time.monotonic() - started
