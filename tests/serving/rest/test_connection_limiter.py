"""Maximum number of connections, with those whose TLS handshake is not complete."""

from __future__ import annotations

from typing import Any

import pytest

from model_name.serving.rest import connection_limiter
from model_name.serving.rest.connection_limiter import MAX_SURPLUS_CONNECTIONS, ConnectionLimiter, RefusingProtocol
from model_name.serving.rest.protocol import InferenceHttpProtocol

MAXIMUM = 3
HANDSHAKE_SECONDS = 10.0


class Clock:
    """Clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of the limiter."""
    clock = Clock()
    monkeypatch.setattr(connection_limiter, "monotonic", clock)
    return clock


class HandshakingProtocol(InferenceHttpProtocol):
    """Protocol of a connection in its handshake, without an event loop."""

    def __init__(self, *, is_surplus: bool = False) -> None:
        self.is_surplus = is_surplus
        self.transport = None  # type: ignore[assignment]  # as uvicorn's before a connection is made


def test_handshakes_count_until_they_end_or_time_out(clock: Clock) -> None:
    refused: list[None] = []
    limiter = ConnectionLimiter(
        HandshakingProtocol,
        set(),
        MAXIMUM,
        on_refused=lambda: refused.append(None),
        next_request_id=lambda: "1",
        handshake_seconds=HANDSHAKE_SECONDS,
    )
    protocols: list[Any] = [limiter.make_protocol() for _ in range(MAXIMUM)]
    assert [protocol.is_surplus for protocol in protocols] == [False] * MAXIMUM
    # When the maximum is in a handshake, then further ones are surplus, and at last refused
    surplus: list[Any] = [limiter.make_protocol() for _ in range(MAX_SURPLUS_CONNECTIONS)]
    assert all(protocol.is_surplus for protocol in surplus)
    assert isinstance(limiter.make_protocol(), RefusingProtocol)
    assert len(refused) == MAX_SURPLUS_CONNECTIONS + 1
    # When handshakes have failed, and their connections are freed
    surplus.clear()
    del protocols[0]
    clock.now += 1
    fresh: list[Any] = [limiter.make_protocol()]
    assert fresh[0].is_surplus is False
    # When the handshakes of the others have timed out
    clock.now += HANDSHAKE_SECONDS + 1
    fresh += [limiter.make_protocol() for _ in range(MAXIMUM)]
    assert [protocol.is_surplus for protocol in fresh] == [False] * (MAXIMUM + 1)
