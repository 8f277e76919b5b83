"""The short way from a request to its answer, for one that has come whole.

Uvicorn makes a task, a scope and four messages of each request, which takes as long as to predict its row. Here it goes
from the parser to the batcher, and its answer from there to the socket. What may have to wait, for the rest of a body
or for a client that does not read, goes the long way.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from model_name.serving.rest.messages import CONNECTION_CLOSE, Headers, HttpResponse, response_headers

LONG = frozenset({b"transfer-encoding", b"content-encoding", b"expect"})
"""Headers of a request that goes the long way."""

Reply = Callable[[HttpResponse, Headers], None]
"""Sends an answer, with the headers of every answer."""
Take = Callable[[bytes, asyncio.BaseTransport, Reply], None]
"""Has a request answered, given its body and the transport that shows when the client leaves."""
Shortcuts = Callable[[bytes, Headers], Take | None]
"""What takes a request of this address and these headers; None if it is to go the long way."""


class Visit:
    """A request on the short way; Uvicorn sees one of its own cycles in it.

    Attributes:
        keep_alive: Whether the connection lives on after the answer.
        disconnected: Whether the client has left.
        response_complete: Whether it is answered.
    """

    __slots__ = ("_connection", "disconnected", "keep_alive", "response_complete")

    more_body = False
    message_event = asyncio.Event()  # that nobody waits for

    def __init__(self, connection: Any, *, keep_alive: bool) -> None:
        """Begin on a connection."""
        self._connection = connection
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False

    def reply(self, answer: HttpResponse, standing: Headers) -> None:
        """Send the answer, in one write."""
        connection = self._connection
        self.response_complete = True
        if self.disconnected or connection.transport.is_closing():
            return
        is_last = CONNECTION_CLOSE in standing
        if not self.keep_alive and not is_last:
            standing, is_last = [*standing, CONNECTION_CLOSE], True
        headers = [*connection.server_state.default_headers, *response_headers(answer, standing)]
        connection.transport.write(written(answer, headers))
        if is_last:
            connection.transport.close()
        connection.on_response_complete()


def written(answer: HttpResponse, headers: Headers) -> bytes:
    """An answer as it goes over the wire, with these headers."""
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[answer.status], *lines, b"\r\n", answer.body])
