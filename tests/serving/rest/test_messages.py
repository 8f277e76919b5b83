"""Bodies that come in: bounded one by one and all together, and unpacked beside the event loop."""

import asyncio
import gzip
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

from model_name.errors import BusyError, DataError, TooLargeError
from model_name.serving.limits import Limits
from model_name.serving.request_errors import RequestTimeoutError
from model_name.serving.rest import messages
from model_name.serving.rest.messages import BodyReader

LIMITS = Limits(body_bytes=100, queued_bytes=150, body_seconds=0.2)


class Client:
    """Sends a body part by part, as it is told."""

    def __init__(self, intake: BodyReader, headers: dict[bytes, bytes] | None = None) -> None:
        self.parts: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.reading = asyncio.create_task(intake.body(headers or {}, self.parts.get))

    async def send(self, size: int, *, is_last: bool = False) -> None:
        """Send some bytes, and let them be read."""
        self.parts.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": not is_last})
        await asyncio.sleep(0.01)


def test_bodies_are_bounded_all_together() -> None:
    async def scenario() -> None:
        intake = BodyReader(LIMITS)
        first, second, third = (Client(intake) for _ in range(3))
        await first.send(80)
        await second.send(60)
        assert intake.size == 140
        await third.send(20)
        with pytest.raises(BusyError, match="too many bodies are being read already"):
            await third.reading
        assert intake.size == 140
        await first.send(0, is_last=True)
        assert await first.reading == b"x" * 80
        await second.send(30, is_last=True)
        assert await second.reading == b"x" * 90
        assert intake.size == 0

    asyncio.run(scenario())


def test_one_body_alone_may_be_longer_than_all_together() -> None:
    async def scenario() -> None:
        intake = BodyReader(Limits(body_bytes=100, queued_bytes=10))
        client = Client(intake)
        await client.send(60)
        await client.send(20, is_last=True)
        assert await client.reading == b"x" * 80

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("send", "kind"),
    [
        pytest.param([90, 20], TooLargeError, id="too long"),
        pytest.param([90], RequestTimeoutError, id="too slow"),
        pytest.param([90, None], DataError, id="cut off"),
    ],
)
def test_what_is_not_read_to_its_end_takes_no_room(send: list[int | None], kind: type[Exception]) -> None:
    async def scenario() -> None:
        intake = BodyReader(LIMITS)
        client = Client(intake)
        for size in send:
            if size is None:
                client.parts.put_nowait({"type": "http.disconnect"})
            else:
                await client.send(size)
        with pytest.raises(kind):
            await client.reading
        assert intake.size == 0

    asyncio.run(scenario())


def test_a_packed_body_is_unpacked_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    unpack = messages._decoded  # what runs there is not to be seen from outside

    def noted(*args: Any) -> bytes:
        threads.append(threading.current_thread())
        return unpack(*args)

    async def scenario() -> None:
        client = Client(BodyReader(Limits()), {b"content-encoding": b"gzip"})
        packed = gzip.compress(b"a body")
        client.parts.put_nowait({"type": "http.request", "body": packed})
        assert await client.reading == b"a body"

    monkeypatch.setattr(messages, "_decoded", noted)
    asyncio.run(scenario())
    assert threads
    assert threads[0] is not threading.main_thread()
