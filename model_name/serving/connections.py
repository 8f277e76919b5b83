"""Connections of HTTP: how they begin, how long they may dawdle, and how the last of them end without a reset."""

import asyncio
import ctypes
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LINGER_SECONDS = 0.5  # that a connection without a request is kept at the end: its next request may be on its way
SO_ATTACH_FILTER = 26  # of Linux; `socket` does not name it
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # the one instruction of a socket filter (BPF): return 0, keep no byte


class Connection(HttpToolsProtocol):
    """Uvicorn's, which also knows since when it waits for its client.

    Attributes:
        waiting_since: For the rest of the headers, or for a request; None while a request is answered.
        is_idle: Whether nothing of a request has come.
    """

    waiting_since: float | None = None
    is_idle = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self.waiting_since = monotonic()
        self.extensions = {"model_name.connection": transport}

    def on_message_begin(self) -> None:
        """Wait for the rest of the headers."""
        super().on_message_begin()
        self.waiting_since = monotonic()
        self.is_idle = False
        self.scope["extensions"] = self.extensions

    def on_headers_complete(self) -> None:
        """Wait for nothing: the body has its own time."""
        self.waiting_since = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request, for which the keep-alive timer has an end."""
        super().on_response_complete()
        if not self.pipeline:
            self.waiting_since = monotonic()
            self.is_idle = True

    @property
    def has_answered(self) -> bool:
        """Whether it is one that is kept alive."""
        return self.cycle is not None


def close_slow(connections: Iterable[Any], header_seconds: float) -> None:
    """Close those that have not said what they want in time."""
    latest = monotonic() - header_seconds
    for connection in list(connections):
        is_kept_alive = connection.is_idle and connection.has_answered
        if connection.waiting_since is not None and connection.waiting_since < latest and not is_kept_alive:
            connection.transport.close()


def close_connections(connections: Iterable[Any]) -> None:
    """Close those on which no request is to be expected, and let the others end with their answers."""
    latest = monotonic() - LINGER_SECONDS
    for connection in list(connections):
        if connection.is_idle and connection.waiting_since is not None and connection.waiting_since < latest:
            connection.transport.close()


class Listener:
    """Accepts connections, and ends without resetting one that the kernel has accepted already."""

    def __init__(self, host: str, port: int, backlog: int) -> None:
        """Listen."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._backlog = backlog
        self._socket = socket.create_server((host, port), family=family, backlog=backlog)
        self._socket.setblocking(False)

    async def start(self, make: Callable[[], Connection], context: ssl.SSLContext | None) -> None:
        """Accept."""
        self._make = make
        self._context = context
        # The server is given a copy: when it stops, the socket goes on to exist, with what waits there.
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(make, sock=self._socket.dup(), ssl=context, backlog=self._backlog)

    async def end(self) -> None:
        """Refuse new connections, and serve those that the kernel has accepted."""
        # From here on the kernel drops whoever knocks, to be refused on their next try, when the socket is closed. To
        # close it at once would reset who waits there to be accepted.
        program = ctypes.create_string_buffer(DROP_ALL)
        with suppress(OSError):  # not Linux
            self._socket.setsockopt(
                socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program))
            )
        self._server.close()
        loop = asyncio.get_running_loop()
        with suppress(BlockingIOError):
            while True:
                accepted, _ = self._socket.accept()
                accepted.setblocking(False)
                with suppress(OSError):
                    await loop.connect_accepted_socket(self._make, accepted, ssl=self._context)
        self._socket.close()
