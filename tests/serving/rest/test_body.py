"""Bodies over ASGI: bounded one by one and all together, and decompressed off the event loop."""

import asyncio
import gzip
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from model_name.errors import BusyError, DataError, TooLargeError
from model_name.serving.byte_budget import ByteBudget
from model_name.serving.limits import Limits
from model_name.serving.request_errors import RequestTimeoutError
from model_name.serving.rest import body
from model_name.serving.rest.body import BodyReader

LIMITS = Limits(body_bytes=100, queued_bytes=150, body_seconds=0.2)


def body_reader(limits: Limits) -> BodyReader:
    """Create a reader with a budget of its own."""
    return BodyReader(limits, ByteBudget(limits.queued_bytes))


class Client:
    """Client that sends a body part by part."""

    def __init__(self, reader: BodyReader, headers: dict[bytes, bytes] | None = None) -> None:
        self.messages: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self.reading = asyncio.create_task(reader.read(headers or {}, self.messages.get))

    async def send(self, size: int, *, is_last: bool = False) -> None:
        """Send some bytes, and let the server read them."""
        self.messages.put_nowait({"type": "http.request", "body": b"x" * size, "more_body": not is_last})
        await asyncio.sleep(0.01)


def test_bodies_are_bounded_all_together() -> None:
    async def scenario() -> None:
        reader = body_reader(LIMITS)
        first, second, third = (Client(reader) for _ in range(3))
        await first.send(80)
        await second.send(60)
        assert reader.budget.used == 140
        await third.send(20)
        with pytest.raises(BusyError, match="too many bytes of requests are held already"):
            await third.reading
        assert reader.budget.used == 140
        await first.send(0, is_last=True)
        assert await first.reading == b"x" * 80
        await second.send(30, is_last=True)
        assert await second.reading == b"x" * 90
        assert reader.budget.used == 0

    asyncio.run(scenario())


def test_a_single_body_may_exceed_the_limit_of_all_together() -> None:
    async def scenario() -> None:
        reader = body_reader(Limits(body_bytes=100, queued_bytes=10))
        client = Client(reader)
        await client.send(60)
        await client.send(20, is_last=True)
        assert await client.reading == b"x" * 80

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("send", "kind"),
    [
        pytest.param([90, 20], TooLargeError, id="too long"),
        pytest.param([90], RequestTimeoutError, id="too slow"),
        pytest.param([90, None], DataError, id="incomplete"),
    ],
)
def test_an_incomplete_body_is_not_counted_any_more(send: list[int | None], kind: type[Exception]) -> None:
    async def scenario() -> None:
        reader = body_reader(LIMITS)
        client = Client(reader)
        for size in send:
            if size is None:
                client.messages.put_nowait({"type": "http.disconnect"})
            else:
                await client.send(size)
        with pytest.raises(kind):
            await client.reading
        assert reader.budget.used == 0

    asyncio.run(scenario())


def test_a_compressed_body_is_decompressed_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    decompress = body.decompress  # its thread cannot be observed from outside

    def recorded(*args: Any) -> Iterator[bytes]:
        threads.append(threading.current_thread())
        yield from decompress(*args)

    async def scenario() -> None:
        client = Client(body_reader(Limits()), {b"content-encoding": b"gzip"})
        client.messages.put_nowait({"type": "http.request", "body": gzip.compress(b"a body")})
        assert await client.reading == b"a body"

    monkeypatch.setattr(body, "decompress", recorded)
    asyncio.run(scenario())
    assert threads
    assert threads[0] is not threading.main_thread()
