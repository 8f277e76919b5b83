"""HTTP protocol of a connection: uvicorn's, with a fast path, bounded memory and the times that time-outs need."""

import asyncio
import sys
from http import HTTPStatus
from secrets import token_hex
from time import monotonic
from typing import Any, cast

import orjson
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from model_name.serving.byte_budget import ByteBudget
from model_name.serving.rest.asgi_request import SURPLUS_EXTENSION, TRANSPORT_EXTENSION
from model_name.serving.rest.fast_path import FastRequest, FastRouter, serialize_response
from model_name.serving.rest.messages import (
    CONNECTION_CLOSE,
    REQUEST_ID,
    SECURITY_HEADERS,
    HttpResponse,
    response_headers,
)

MAX_HEADER_BYTES = 64 * 1024  # of the headers of a request, of its trailers, or between two parts of its body
SLICE_BYTES = 8 * 1024  # of received data that are parsed at once: of the requests in them, each takes some KB
PARSE_SECONDS = 0.005  # for which the data of one connection are parsed before the event loop runs others
CONTINUE = b"HTTP/1.1 100"
NO_DATA = memoryview(b"")
MAX_DISCARDED_BYTES = 64 * 2**20  # of a body whose request already has its response


class CorkedTransport:
    """Transport that sends the head of a response with the first part of its body: one system call instead of two.

    Attributes:
        is_receiving: Whether the body of a request is being received.
        is_lingering: Whether the connection is to be closed when that body is received.
    """

    __slots__ = ("_has_head", "_head", "_transport", "is_lingering", "is_receiving")

    def __init__(self, transport: asyncio.Transport) -> None:
        """Wrap the transport of a connection."""
        self._transport = transport
        self._head = b""
        self._has_head = False
        self.is_receiving = self.is_lingering = False

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
        """Send what is held back, and close the connection.

        A client that still sends a body would get a reset, and might lose the response: the rest is received first.
        """
        self.flush()
        if self.is_receiving:
            self.is_lingering = True
            if self._transport.can_write_eof():
                self._transport.write_eof()
        else:
            self._transport.close()

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else to the transport."""
        return getattr(self._transport, name)


class InferenceHttpProtocol(HttpToolsProtocol):
    """Protocol of one connection: uvicorn's, with a fast path and bounded memory.

    A request is parsed when the one before has its response and the client reads. What is received before that is
    held as it came, and reading is paused. A client that has ended its side of the connection gets its responses.

    Attributes:
        waiting_since: Time since which the client is expected to send headers, the rest of a body that nothing reads,
            or a request, by `monotonic`; None while a request is handled.
        is_between_requests: Whether nothing of the next request has been received.
        is_surplus: Whether the connection is beyond the maximum number: it has one request, which must be a probe.
    """

    waiting_since: float | None = None
    is_between_requests = True
    _is_in_head = False
    _running: Any = None  # cycle of the request that is handled; with pipelined requests not the last one, `cycle`
    _unparsed_bytes = 0  # received since the parser last reported headers or body: of headers, trailers, extensions
    _fast_request: FastRequest | None = None  # whose body is being received
    _held = NO_DATA  # received and not parsed
    _is_parsing_scheduled = False
    _reserved_bytes = 0  # of the held data and of responses that the client does not read
    _discarded_bytes = 0
    _is_broken = False  # whether the start of the next request cannot be found, so that nothing more is parsed
    _has_eof = False  # whether the client has ended its side, and waits for responses
    _unwritten: tuple[int, float] | None = None  # size of the write buffer, and the time since which it has this size

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        fast_router: FastRouter | None = None,
        budget: ByteBudget | None = None,
        *,
        is_surplus: bool = False,
    ) -> None:
        """Serve a connection.

        Args:
            config: Configuration of uvicorn, with the ASGI application.
            server_state: State that all connections share.
            fast_router: Finds requests that may bypass the application.
            budget: Budget of bytes that all connections share.
            is_surplus: Whether the connection is beyond the maximum number.
        """
        super().__init__(config, server_state, {})
        self._fast_router = None if is_surplus else fast_router
        self._budget = budget or ByteBudget(sys.maxsize)
        self.is_surplus = is_surplus

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.waiting_since = monotonic()
        self._extensions: dict[str, Any] = {TRANSPORT_EXTENSION: transport}
        if self.is_surplus:
            self._extensions[SURPLUS_EXTENSION] = True
        self._corked = CorkedTransport(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        # Garbage collection runs rarely, so a lost connection must not be part of a reference cycle.
        self.pipeline.clear()
        self._held = NO_DATA
        self._reserve(0)
        self.cycle = None  # type: ignore[assignment]
        self._running = self._fast_request = None

    @override
    def data_received(self, data: bytes) -> None:
        """Parse data, or hold them until the requests before have their responses."""
        cycle = self.cycle
        is_idle = cycle is None or cycle.response_complete
        if is_idle and not self._held and len(data) <= SLICE_BYTES and not self.flow.write_paused:
            self._parse(data)
            if self._fast_request is not None:
                self._continue_by_asgi()
        else:
            self._held = memoryview(b"".join((self._held, data)))
            self._parse_held()

    @override
    def eof_received(self) -> bool:  # type: ignore[override]  # as of asyncio
        """Keep the connection open until the complete requests of the client have their responses.

        Over TLS asyncio closes the connection in any case.
        """
        cycle = self.cycle
        if not self._held and (cycle is None or cycle.response_complete):
            return False
        if not self.is_between_requests and not self._is_in_head and cycle is not None:  # the last body is incomplete
            if cycle is self._running:
                return False
            cycle.disconnected = True
        self._has_eof = True
        self._corked.is_receiving = False
        return True

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._reserve_held()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        self._reserve_held()
        if self._held:
            self._schedule_parsing()

    def is_write_stalled(self, now: float, seconds: float) -> bool:
        """Report whether the client has read nothing of what is to be written for some time.

        Args:
            now: Current time by `monotonic`.
            seconds: Time limit.
        """
        size = self.transport.get_write_buffer_size() if self.transport is not None else 0
        if not size:
            self._unwritten = None
        elif self._unwritten is None or self._unwritten[0] != size:
            self._unwritten = (size, now)
        return self._unwritten is not None and self._unwritten[1] < now - seconds

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.waiting_since = monotonic()
        self.is_between_requests = False
        self._is_in_head = True
        self._unparsed_bytes = self._discarded_bytes = 0
        self.scope["extensions"] = self._extensions

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
        if self._fast_request is not None:
            self._fast_request.parts.append(body)
        elif not self.cycle.response_complete:
            super().on_body(body)
        else:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > MAX_DISCARDED_BYTES:
                self.transport.close()

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
        self._corked.is_receiving = False
        if self._corked.is_lingering:
            self.transport.close()
        elif not self.pipeline and not self._held:
            self.flow.resume_reading()  # a long body pauses it, and while it is paused no disconnect is noticed

    @override
    def on_response_complete(self) -> None:
        """Start the next pipelined request, parse held data, or wait for the client."""
        self._corked.flush()
        if self.transport.is_closing():
            return
        if self._corked.is_lingering:  # what follows is discarded
            self.pipeline.clear()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            if cycle.disconnected:  # its body was cut off
                self.transport.close()
                return
            self._start_asgi_task(cycle, app)
        else:
            self.waiting_since = monotonic()  # instead of uvicorn's timer per connection: see `close_stalled`
        if self._held:
            self._schedule_parsing()
        elif self._has_eof and self.cycle.response_complete:
            self.transport.close()
        elif not self.pipeline:
            self.flow.resume_reading()

    @property
    def has_had_request(self) -> bool:
        """Whether a request has been received on the connection."""
        return self.cycle is not None

    @property
    def _can_respond_now(self) -> bool:
        """Whether no earlier request is pending and the client reads what is written."""
        is_first = self.cycle is None or self.cycle.response_complete
        return is_first and not self.flow.write_paused and not self.access_log

    @property
    def _must_wait(self) -> bool:
        """Whether the next data have to wait: for responses to earlier requests, or for the client to read them."""
        if self.pipeline:
            return True
        if not self.is_between_requests:
            return False
        return self.flow.write_paused or (self.cycle is not None and not self.cycle.response_complete)

    def _parse_held(self) -> None:
        """Parse held data slice by slice, as far as they need not wait, and pause reading if some are left."""
        self._is_parsing_scheduled = False
        deadline = monotonic() + PARSE_SECONDS
        while self._held and not self._must_wait:
            data, self._held = self._held[:SLICE_BYTES], self._held[SLICE_BYTES:]
            self._parse(data)
            if self._is_broken or self.transport.is_closing():
                self._held = NO_DATA
            elif self._held and monotonic() > deadline:
                self._schedule_parsing()
                break
        if self._fast_request is not None:
            self._continue_by_asgi()
        self._reserve_held()
        self._pause_or_resume_reading()

    def _pause_or_resume_reading(self) -> None:
        """Read on unless something is held, or the body that is received waits to be read; close after the last."""
        cycle = self.cycle
        is_idle = cycle is None or cycle.response_complete
        if self._held:
            self.flow.pause_reading()
        elif self._has_eof and is_idle:
            self.transport.close()
        elif not self._must_wait and not self._is_broken and (is_idle or len(cycle.body) <= HIGH_WATER_LIMIT):
            self.flow.resume_reading()

    def _schedule_parsing(self) -> None:
        if not self._is_parsing_scheduled:
            self._is_parsing_scheduled = True
            self.loop.call_soon(self._parse_held)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse data; reject what is not HTTP, and headers without an end."""
        if self._is_broken or self.parser is None:
            return
        self._unparsed_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as err:
            self._ignore_upgrade(bytes(data[err.args[0] :]))
        except HttpParserError:
            self._send_bad_request(HTTPStatus.BAD_REQUEST, "the request is not HTTP")
            return
        if self._unparsed_bytes > MAX_HEADER_BYTES:
            reason = f"the headers have more than {MAX_HEADER_BYTES} bytes"
            self._send_bad_request(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, reason)

    def _continue_by_asgi(self) -> None:
        """Have the application read the rest of a body that did not come at once."""
        if self._fast_request is not None:
            parts, self._fast_request = self._fast_request.parts, None
            self._start_asgi_cycle()
            for part in parts:
                super().on_body(part)

    def _reserve_held(self) -> None:
        """Reserve the bytes of the held data, and of a response while the client does not read it."""
        unread = self.transport.get_write_buffer_size() if self.flow.write_paused else 0
        self._reserve(len(self._held) + unread)

    def _reserve(self, size: int) -> None:
        """Reserve the bytes that the connection holds, instead of those reserved before."""
        if size != self._reserved_bytes:
            self._budget.release(self._reserved_bytes)
            self._budget.hold(size)
            self._reserved_bytes = size

    def _start_asgi_cycle(self) -> None:
        super().on_headers_complete()
        self._corked.is_receiving = True
        if self.is_surplus:
            self.cycle.keep_alive = False
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
        self._parse(b"\r\n".join([*lines, b"", rest]))

    def _send_bad_request(self, status: HTTPStatus, reason: str) -> None:
        """Reject data that is not a request and close: the start of the next request cannot be found."""
        self._is_broken = True
        self._fast_request = None
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
