"""Requests by the byte, which no client of HTTP would send."""

import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Answer(NamedTuple):
    """One answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


def http(method: str, path: str, body: bytes | None = None, *headers: str, version: str = "1.1") -> bytes:
    """A request; one with a body has its length."""
    length = [] if body is None else [f"content-length: {len(body)}"]
    head = [f"{method} {path} HTTP/{version}", "host: here", *length, *headers, "", ""]
    return "\r\n".join(head).encode("latin-1") + (body or b"")


@contextmanager
def connected(port: int, seconds: float = 20.0) -> Iterator[socket.socket]:
    """A connection to this machine."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as connection:
        yield connection


def exchange(port: int, *parts: bytes, pause: float = 0.0, seconds: float = 20.0, ends: bool = False) -> bytes:
    """What comes back for some bytes: until the server ends, or for some seconds where it does not.

    Args:
        port: Of the server.
        parts: What is sent.
        pause: Between two of them, in seconds.
        seconds: That nothing may come before it is taken as all.
        ends: Whether the client says that it has sent all.
    """
    with connected(port, seconds) as connection:
        send(connection, parts, pause)
        if ends:
            connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def send(connection: socket.socket, parts: Iterable[bytes], pause: float = 0.0) -> None:
    """Send what the server still takes."""
    try:
        for part in parts:
            connection.sendall(part)
            if pause:
                time.sleep(pause)
    except (BrokenPipeError, ConnectionResetError):  # it has answered, and ended
        pass


def read_all(connection: socket.socket) -> bytes:
    """All until the end."""
    found = b""
    try:
        while part := connection.recv(1 << 16):
            found += part
    except (TimeoutError, ConnectionResetError):
        pass
    return found


def answers(raw: bytes) -> list[Answer]:
    """The answers in what came back; raises where it is no HTTP."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        protocol, status, _ = line.split(" ", 2)
        assert protocol == "HTTP/1.1", line
        if status == "100":
            continue
        headers = dict(field.split(": ", 1) for field in lines)
        length = int(headers.get("content-length", 0))
        found.append(Answer(int(status), headers, raw[:length]))
        raw = raw[length:]
    return found


def ended_after(connection: socket.socket) -> float:
    """Seconds until the server ends the connection."""
    started = time.monotonic()
    while connection.recv(1 << 16):
        pass
    return time.monotonic() - started
