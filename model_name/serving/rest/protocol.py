"""Connections of HTTP: how they begin, how long they may dawdle, and how the last of them end without a reset."""

import asyncio
import ctypes
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from model_name.serving.rest.fast_path import Shortcuts, Take, Visit, written
from model_name.serving.rest.messages import CONNECTION_CLOSE, SECURITY_HEADERS, HttpResponse, response_headers

MAX_HEADER_BYTES = 64 * 1024  # bytes of the headers of a request, of its trailers, or between two parts of its body
LINGER_SECONDS = 0.5  # that a connection without a request is kept at the end: its next request may be on its way
SO_ATTACH_FILTER = 26  # of Linux; `socket` does not name it
CONTINUE = b"HTTP/1.1 100"
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # the one instruction of a socket filter (BPF): return 0, keep no byte


class CorkedTransport:
    """A transport that sends the head of an answer with the first part of its body: one call of the system, not two."""

    __slots__ = ("_head", "_is_begun", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        """Hold back what belongs together."""
        self._transport = transport
        self._head = b""
        self._is_begun = False

    def write(self, data: bytes) -> None:
        """Send, but for a head."""
        if self._is_begun or data.startswith(CONTINUE):
            self._transport.write(self._head + data if self._head else data)
            self._head = b""
        else:
            self._head = data
            self._is_begun = True

    def end(self) -> None:
        """Send what is held back; the next answer has a head again."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._is_begun = False

    def close(self) -> None:
        """Send what is held back, and close."""
        self.end()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """All else is the transport's."""
        return getattr(self._transport, name)


class InferenceHttpProtocol(HttpToolsProtocol):
    """Uvicorn's, which also knows since when it waits for its client, how much it reads in vain, and a short way.

    Attributes:
        waiting_since: For the rest of the headers, for a body that nobody reads, or for a request; None while a request
            is answered.
        is_idle: Whether nothing of a request has come.
    """

    waiting_since: float | None = None
    is_idle = True
    _is_in_head = False
    _running: Any = None  # the request that is answered; of several that have come, not the last one
    _unread = 0  # bytes since something was understood: of headers, trailers or extensions of chunks
    _take: Take | None = None  # of the request that comes, if it has not gone the long way yet

    def __init__(self, config: Config, server_state: ServerState, shortcuts: Shortcuts = lambda *_: None) -> None:
        """Serve what a configuration names.

        Args:
            config: Of Uvicorn, with the application.
            server_state: What all connections share.
            shortcuts: Takes requests that come whole.
        """
        super().__init__(config, server_state, {})
        self._shortcuts = shortcuts
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait."""
        super().connection_made(transport)
        self.waiting_since = monotonic()
        self.extensions = {"model_name.connection": transport}
        self._corked = CorkedTransport(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Have nobody write to it any more."""
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Read, and refuse what is no HTTP or has no end."""
        self._unread += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as err:
            self._stay(data[err.args[0] :])
        except HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "the request is not HTTP")
            return
        if self._unread > MAX_HEADER_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the headers have more than {MAX_HEADER_BYTES} bytes")
        if self._take is not None:  # there is more to come
            self._take = None
            self._go_the_long_way()
            parts, self._parts = self._parts, []
            for part in parts:
                super().on_body(part)

    def on_message_begin(self) -> None:
        """Wait for the rest of the headers."""
        super().on_message_begin()
        self.waiting_since = monotonic()
        self.is_idle = False
        self._is_in_head = True
        self._unread = 0
        self.scope["extensions"] = self.extensions  # type: ignore[typeddict-item]  # an extension of ours

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; what follows a body is none."""
        if self._is_in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait for nothing: the body has its own time."""
        self._is_in_head = False
        self._unread = 0
        if self._wants_upgrade():
            return
        self.waiting_since = None
        if self._is_free and self.parser.get_method() == b"POST":
            self._take = self._shortcuts(self.url, self.headers)
        if self._take is None:
            self._go_the_long_way()

    def on_body(self, body: bytes) -> None:
        """Take a part of it."""
        self._unread = 0
        if self._take is None:
            super().on_body(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """Wait for the next request, if this one has been answered before it was read."""
        if self._wants_upgrade():
            return
        self._unread = 0
        self.is_idle = True
        if self._take is not None:
            take, body = self._take, b"".join(self._parts)
            self._take, self._parts = None, []
            keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
            self._running = visit = Visit(self, keep_alive=keep_alive)
            self.cycle = cast("Any", visit)
            take(body, self.transport, visit.reply)
            return
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # a long body has paused it, and who is not read from is not seen leaving

    def on_response_complete(self) -> None:
        """Wait for the rest of the request, or for the next one."""
        self._corked.end()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.waiting_since = monotonic()  # Uvicorn would start a timer, which `close_stalled` makes needless

    @property
    def has_answered(self) -> bool:
        """Whether it is one that is kept alive."""
        return self.cycle is not None

    @property
    def _is_free(self) -> bool:
        """Whether no request is before the one that comes, and nothing keeps an answer from going out at once."""
        is_first = self.cycle is None or self.cycle.response_complete
        return is_first and not self.flow.write_paused and not self.access_log

    def _go_the_long_way(self) -> None:
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", self._corked)  # its task has not begun

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _wants_upgrade(self) -> bool:
        """Whether a request asks to go on in another protocol."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _stay(self, rest: bytes) -> None:
        """Answer a request that would rather go on in another protocol, as clients of HTTP/2 in Java do.

        The parser takes none of its body: another one reads it anew, without the wish.
        """
        if not self._wants_upgrade():
            return
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in (b"connection", b"upgrade")]
        self.parser = HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        """Answer what is no request, and end after it: where the next one would begin, nobody knows."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False  # the requests before it are answered
            self.flow.pause_reading()
            return
        if cycle is not None and cycle.more_body and (cycle.response_complete or cycle is not self._running):
            # The rest of what has been answered, or of what is not to be answered yet.
            self.transport.close()
            return
        answer = HttpResponse(orjson.dumps({"error": reason}), status)
        headers = [*self.server_state.default_headers, *response_headers(answer, [CONNECTION_CLOSE, *SECURITY_HEADERS])]
        self.transport.write(written(answer, headers))
        self.transport.close()


def close_stalled(connections: Iterable[Any], header_seconds: float, keep_alive_seconds: float) -> None:
    """Close those that have not said what they want in time."""
    now = monotonic()
    for connection in list(connections):
        is_kept_alive = connection.is_idle and connection.has_answered
        patience = keep_alive_seconds if is_kept_alive else header_seconds
        if connection.waiting_since is not None and connection.waiting_since < now - patience:
            connection.transport.close()


def close_idle(connections: Iterable[Any]) -> None:
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
        self._socket.setblocking(False)  # noqa: FBT003  its only argument

    async def start(
        self, make: Callable[[], InferenceHttpProtocol], context: ssl.SSLContext | None, handshake_seconds: float
    ) -> None:
        """Accept."""
        self._make = make
        self._context = context
        # The server is given a copy: when it stops, the socket goes on to exist, with what waits there.
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            make,
            sock=self._socket.dup(),
            ssl=context,
            backlog=self._backlog,
            ssl_handshake_timeout=None if context is None else handshake_seconds,
        )

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
                accepted.setblocking(False)  # noqa: FBT003  as above
                with suppress(OSError):
                    await loop.connect_accepted_socket(self._make, accepted, ssl=self._context)
        self._socket.close()
