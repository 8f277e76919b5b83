"""HTTP protocol of a connection: uvicorn's, with a fast path, bounded headers and the times that time-outs need."""

import asyncio
from http import HTTPStatus
from secrets import token_hex
from time import monotonic
from typing import Any, cast

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from model_name.serving.rest.asgi_request import TRANSPORT_EXTENSION
from model_name.serving.rest.fast_path import FastRequest, FastRouter, serialize_response
from model_name.serving.rest.messages import (
    CONNECTION_CLOSE,
    REQUEST_ID,
    SECURITY_HEADERS,
    HttpResponse,
    response_headers,
)

MAX_HEADER_BYTES = 64 * 1024  # of the headers of a request, of its trailers, or between two parts of its body
CONTINUE = b"HTTP/1.1 100"


class CorkedTransport:
    """Transport that sends the head of a response with the first part of its body: one system call instead of two."""

    __slots__ = ("_has_head", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        """Wrap the transport of a connection."""
        self._transport = transport
        self._head = b""
        self._has_head = False

    def write(self, data: bytes) -> None:
        """Send data, but hold back the head of a response."""
        if self._has_head or data.startswith(CONTINUE):
            self._transport.write(self._head + data if self._head else data)
            self._head = b""
        else:
            self._head = data
            self._has_head = True

    def flush(self) -> None:
        """Send what is held back; the next data is the head of another response."""
        if self._head:
            self._transport.write(self._head)
            self._head = b""
        self._has_head = False

    def close(self) -> None:
        """Send what is held back, and close the connection."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the transport."""
        return getattr(self._transport, name)


class InferenceHttpProtocol(HttpToolsProtocol):
    """Protocol of one connection: uvicorn's, with a fast path and bounded headers.

    Attributes:
        waiting_since: Time since which the client is expected to send headers, the rest of a body that nothing reads,
            or a request, by `monotonic`; None while a request is handled.
        is_between_requests: Whether nothing of the next request has been received.
    """

    waiting_since: float | None = None
    is_between_requests = True
    _is_in_head = False
    _running: Any = None  # cycle of the request that is handled; with pipelined requests not the last one, `cycle`
    _unparsed_bytes = 0  # received since the parser last reported headers or body: of headers, trailers, extensions
    _fast_request: FastRequest | None = None  # whose body is being received

    def __init__(self, config: Config, server_state: ServerState, fast_router: FastRouter | None = None) -> None:
        """Serve a connection.

        Args:
            config: Configuration of uvicorn, with the ASGI application.
            server_state: State that all connections share.
            fast_router: Finds requests that may bypass the application.
        """
        super().__init__(config, server_state, {})
        self._fast_router = fast_router

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.waiting_since = monotonic()
        self._extensions = {TRANSPORT_EXTENSION: transport}
        self._corked = CorkedTransport(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    @override
    def data_received(self, data: bytes) -> None:
        """Parse data; reject what is not HTTP, and headers without an end."""
        self._unparsed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as err:
            self._ignore_upgrade(data[err.args[0] :])
        except HttpParserError:
            self._send_bad_request(HTTPStatus.BAD_REQUEST, "the request is not HTTP")
            return
        if self._unparsed_bytes > MAX_HEADER_BYTES:
            reason = f"the headers have more than {MAX_HEADER_BYTES} bytes"
            self._send_bad_request(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
        if self._fast_request is not None:  # its body is not complete: the application reads it
            parts, self._fast_request = self._fast_request.parts, None
            self._start_asgi_cycle()
            for part in parts:
                super().on_body(part)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.waiting_since = monotonic()
        self.is_between_requests = False
        self._is_in_head = True
        self._unparsed_bytes = 0
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]  # not one of uvicorn's

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # trailers of a chunked body are dropped
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._unparsed_bytes = 0
        if self._wants_upgrade():
            return
        self.waiting_since = None  # the body has a time limit of its own
        if self._fast_router is not None and self._can_respond_now and self.parser.get_method() == b"POST":
            self._fast_request = self._fast_router.match(self, self.url, self.headers)
        if self._fast_request is None:
            self._start_asgi_cycle()

    @override
    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        if self._fast_request is None:
            super().on_body(body)
        else:
            self._fast_request.parts.append(body)

    @override
    def on_message_complete(self) -> None:
        if self._wants_upgrade():
            return
        self._unparsed_bytes = 0
        self.is_between_requests = True
        if self._fast_request is not None:
            request, self._fast_request = self._fast_request, None
            request.keep_alive = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
            self._running = request
            self.cycle = cast("Any", request)
            request.run()
            return
        super().on_message_complete()
        if not self.pipeline:
            self.flow.resume_reading()  # a long body pauses it, and while it is paused no disconnect is noticed

    @override
    def on_response_complete(self) -> None:
        """Start the next pipelined request, or wait for the client."""
        self._corked.flush()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.waiting_since = monotonic()  # instead of uvicorn's timer per connection: see `close_stalled`

    @property
    def has_had_request(self) -> bool:
        """Whether a request has been received on the connection."""
        return self.cycle is not None

    @property
    def _can_respond_now(self) -> bool:
        """Whether no earlier request is pending and the client reads what is written."""
        is_first = self.cycle is None or self.cycle.response_complete
        return is_first and not self.flow.write_paused and not self.access_log

    def _start_asgi_cycle(self) -> None:
        super().on_headers_complete()
        self.cycle.transport = cast("asyncio.Transport", self._corked)  # its task has not started

    @override
    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _wants_upgrade(self) -> bool:
        """Report whether the client offers to switch to another protocol."""
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Handle a request that offers to switch to another protocol as if it had no such offer.

        HTTP clients of Java send such requests. The parser does not parse their bodies, so a new parser is fed the
        request line, the other headers and the body.
        """
        if not self._wants_upgrade():
            return
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] not in (b"connection", b"upgrade")]
        self.parser = HttpRequestParser(self)
        self.data_received(b"\r\n".join([*lines, b"", rest]))

    def _send_bad_request(self, status: HTTPStatus, reason: str) -> None:
        """Reject data that is not a request and close: the start of the next request cannot be found."""
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and not cycle.more_body:
            cycle.keep_alive = False  # earlier requests are complete: they get their responses
            self.flow.pause_reading()
            return
        if cycle is not None and cycle.more_body and (cycle.response_complete or cycle is not self._running):
            # The data is the rest of a body whose request has its response, or has to wait for earlier ones.
            self.transport.close()
            return
        response = HttpResponse(orjson.dumps({"error": reason}), status)
        request_id = token_hex(8) if self._fast_router is None else self._fast_router.context.next_request_id()
        identity = [(REQUEST_ID, request_id.encode())]
        headers = [
            *self.server_state.default_headers,
            *response_headers(response, identity, [CONNECTION_CLOSE, *SECURITY_HEADERS]),
        ]
        self.transport.write(serialize_response(response, headers))
        self.transport.close()
