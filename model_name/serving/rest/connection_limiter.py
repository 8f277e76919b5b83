"""Maximum number of REST connections, and what happens beyond it."""

import asyncio
import weakref
from collections.abc import Callable, Collection
from time import monotonic
from typing import Protocol

import orjson
from typing_extensions import override

from model_name.serving.rest.fast_path import serialize_response
from model_name.serving.rest.messages import (
    CONNECTION_CLOSE,
    REQUEST_ID,
    RETRY_AFTER,
    SECURITY_HEADERS,
    HttpResponse,
    response_headers,
)
from model_name.serving.rest.protocol import InferenceHttpProtocol

MAX_SURPLUS_CONNECTIONS = 64  # that serve probes; further ones get 503 before anything is read
MAX_HANDSHAKE_CHECKS_PER_SECOND = 10.0


class ProtocolFactory(Protocol):
    """Creates the protocol of a connection."""

    def __call__(self, *, is_surplus: bool = False) -> InferenceHttpProtocol:
        """Create the protocol of a connection, which may be beyond the maximum number."""


class ConnectionLimiter:
    """Creates the protocol of each connection; beyond the maximum number, one that only answers probes, or none.

    The probes of the kubelet come on connections of their own. Idle clients must not make it restart the server.
    """

    def __init__(
        self,
        create: ProtocolFactory,
        connections: Collection[InferenceHttpProtocol],
        maximum: int,
        *,
        on_refused: Callable[[], None],
        next_request_id: Callable[[], str],
        handshake_seconds: float = 0.0,
    ) -> None:
        """Start with the connections that are open.

        Args:
            create: Creates the protocol of a connection.
            connections: Protocols of the open connections.
            maximum: Maximum number of connections.
            on_refused: Called for each connection beyond the maximum number.
            next_request_id: Generates an id for a response to no request.
            handshake_seconds: Time limit of a TLS handshake, during which a connection is not open yet; 0 without TLS.
        """
        self.connections = connections
        self.maximum = maximum
        self._create = create
        self._on_refused = on_refused
        self._next_request_id = next_request_id
        self._handshake_seconds = handshake_seconds
        self._handshakes: list[tuple[weakref.ref[InferenceHttpProtocol], float]] = []
        self._next_check = 0.0

    def make_protocol(self) -> asyncio.Protocol:
        """Create the protocol of a connection that was just accepted."""
        count = self._count()
        if count < self.maximum:
            protocol = self._create()
        else:
            self._on_refused()
            if count >= self.maximum + MAX_SURPLUS_CONNECTIONS:
                return RefusingProtocol(self._next_request_id())
            protocol = self._create(is_surplus=True)
        if self._handshake_seconds:
            self._handshakes.append((weakref.ref(protocol), monotonic() + self._handshake_seconds))
        return protocol

    def _count(self) -> int:
        """Count the open connections and those in their handshake; the latter are checked only near the maximum."""
        count = len(self.connections) + len(self._handshakes)
        now = monotonic()
        if self._handshakes and count >= self.maximum and now >= self._next_check:
            self._next_check = now + 1 / MAX_HANDSHAKE_CHECKS_PER_SECOND
            self._handshakes = [(ref, end) for ref, end in self._handshakes if end > now and _is_in_handshake(ref())]
            count = len(self.connections) + len(self._handshakes)
        return count


def _is_in_handshake(protocol: InferenceHttpProtocol | None) -> bool:
    return protocol is not None and protocol.transport is None


class RefusingProtocol(asyncio.Protocol):
    """Protocol of a connection that gets 503 and is closed at once."""

    def __init__(self, request_id: str) -> None:
        """Respond with the id of a request, although none is read."""
        self._request_id = request_id

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        response = HttpResponse(orjson.dumps({"error": "this server has too many connections"}), 503)
        headers = response_headers(
            response, [(REQUEST_ID, self._request_id.encode())], [RETRY_AFTER, CONNECTION_CLOSE, *SECURITY_HEADERS]
        )
        transport.write(serialize_response(response, headers))
        transport.close()
