"""Soak with hostile clients: others get their responses all along, and the memory comes back."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import TYPE_CHECKING

import httpx

from tests.support.counts import count
from tests.support.memory import resident_bytes
from tests.support.sockets import connect, http_request

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import StartServer
    from tests.support.tables import Row

NAME = "regression"
PREDICT = f"/v1/models/{NAME}:predict"
SOAK_SECONDS = count(reduced=5.0, full=120.0)
CLIENTS_OF_A_KIND = 3
MAX_GROWTH = 1.5  # of the resident memory
RECOVERY_SECONDS = 30.0
REQUEST_SECONDS = 30.0  # for a response to a well-behaved client, on a busy machine
BOMB = gzip.compress(b" " * (60 * 2**20))
MANY_HEADERS = [f"x-{number}: {number}" for number in range(4000)]


def pipeline_without_reading(port: int, body: bytes) -> None:
    """Send 4 MB of requests and read no response."""
    block = (http_request("GET", "/v2/health/live") * 50 + http_request("POST", PREDICT, body)) * 10
    with connect(port, seconds=1) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(4 * 2**20 // len(block)):
            connection.sendall(block)


def send_slowly(port: int, body: bytes) -> None:
    """Send a body byte by byte."""
    with connect(port, seconds=1) as connection:
        connection.sendall(http_request("POST", PREDICT, None, f"content-length: {len(body)}"))
        for byte in body[:100]:
            connection.send(bytes([byte]))
            time.sleep(0.01)


def send_chunks_of_one_byte(port: int, _: bytes) -> None:
    """Send a body of a megabyte in chunks of one byte."""
    with connect(port) as connection:
        connection.sendall(http_request("POST", PREDICT, None, "transfer-encoding: chunked"))
        for _ in range(16):
            connection.sendall(b"1\r\n \r\n" * 2**16)
        connection.sendall(b"0\r\n\r\n")
        connection.recv(1 << 16)


def read_slowly(port: int, _: bytes) -> None:
    """Request pages and read them in small parts."""
    with connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(http_request("GET", "/openapi.json") * 500)
        for _ in range(10):
            connection.recv(100)
            time.sleep(0.1)


def stay_half_open(port: int, _: bytes) -> None:
    """Connect many times, and send nothing or half of the headers."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
    for connection in connections[::2]:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")
    time.sleep(1)
    for connection in connections:
        connection.close()


def abort_in_a_body(port: int, _: bytes) -> None:
    """Reset the connection in the middle of a body."""
    with connect(port) as connection:
        connection.sendall(http_request("POST", PREDICT, None, f"content-length: {10 * 2**20}") + b" " * 2**20)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_many_headers(port: int, body: bytes) -> None:
    """Send as many headers as are taken, and more."""
    for headers in (MANY_HEADERS[:3000], MANY_HEADERS * 4):
        with connect(port) as connection:
            connection.sendall(http_request("POST", PREDICT, body, *headers))
            connection.recv(1 << 16)


def send_bombs(port: int, _: bytes) -> None:
    """Send a body that is a thousand times as long when it is unpacked."""
    with connect(port) as connection:
        connection.sendall(http_request("POST", PREDICT, BOMB, "content-encoding: gzip"))
        connection.recv(1 << 16)


HOSTILE: list[Callable[[int, bytes], None]] = [
    pipeline_without_reading,
    send_slowly,
    send_chunks_of_one_byte,
    read_slowly,
    stay_half_open,
    abort_in_a_body,
    send_many_headers,
    send_bombs,
]


def test_hostile_clients_neither_keep_memory_nor_keep_others_from_responses(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row]
) -> None:
    # Given a server that has been in use
    times = ["--drain_seconds", "0", "--header_seconds", "2", "--body_seconds", "2", "--answer_seconds", "30"]
    server = start_server(bundles[NAME].directory, NAME, *times).wait()
    body = json.dumps({"instances": rows}).encode()
    for _ in range(100):
        server.client.post(PREDICT, content=body)
    expected = server.client.post(PREDICT, content=body).content
    before = resident_bytes(server.process.pid)
    is_over = Event()

    def attack(client: Callable[[int, bytes], None]) -> None:
        while not is_over.is_set():
            with suppress(OSError):  # the server may close the connection at any time
                client(server.http_port, body)
            is_over.wait(0.05)

    # When
    threads = [Thread(target=attack, args=[client]) for client in HOSTILE for _ in range(CLIENTS_OF_A_KIND)]
    for thread in threads:
        thread.start()
    responses: set[tuple[int, bytes]] = set()
    try:
        deadline = time.monotonic() + SOAK_SECONDS
        while time.monotonic() < deadline:
            with httpx.Client(base_url=server.url, timeout=REQUEST_SECONDS) as client:
                for _ in range(5):
                    response = client.post(PREDICT, content=body)
                    responses.add((response.status_code, response.content))
                assert client.get("/v2/health/live").status_code == 200
            time.sleep(0.05)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    # Then
    assert responses == {(200, expected)}
    deadline = time.monotonic() + RECOVERY_SECONDS
    while resident_bytes(server.process.pid) > MAX_GROWTH * before and time.monotonic() < deadline:
        time.sleep(0.5)
    after = resident_bytes(server.process.pid)
    assert after < MAX_GROWTH * before, f"{before >> 20} MiB before, {after >> 20} MiB after"
    assert "Traceback" not in server.output()
