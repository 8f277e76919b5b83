"""Messages of hostile, slow and large gRPC calls to a real server."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from model_name.serving.assembly import TOKEN_ENV
from tests.support.clients import kserve_request, to_arrays
from tests.support.counts import count
from tests.support.memory import MEBIBYTE, resident_mebibytes, wait_for_memory

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row

NAME, TOKEN = "regression", "s3cret"
SERVICE = "/inference.GRPCInferenceService/"
AUTHORIZED, UNAUTHORIZED = (("authorization", f"Bearer {TOKEN}"),), (("authorization", "Bearer wrong"),)
OPTIONS = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
MAX_CALLS, MAX_CONNECTIONS, BODY_SECONDS = 60, 60, 2.0
LARGE = b"\n" + bytes(30 * MEBIBYTE)  # a field whose length is missing
BUDGET_MEBIBYTES = 256
REFUSED_WHILE_SENDING = {"UNAUTHENTICATED", "CANCELLED"}
"""Statuses of a call that ends while its message is being sent: on a busy machine gRPC may lose the first one."""

Outcome = tuple[str, str]


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle], start_server: StartServer, serving_env: dict[str, str]) -> Server:
    """Start a server with a token and low limits."""
    limits = ["--grpc_max_concurrent_calls", str(MAX_CALLS), "--grpc_max_connections", str(MAX_CONNECTIONS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(serving_env, TOKEN_ENV, TOKEN)
        more = ["--body_seconds", str(BODY_SECONDS), "--drain_seconds", "0"]
        return start_server(bundles[NAME].directory, NAME, *limits, *more).wait()


@pytest.fixture
def message(server: Server, rows: list[Row]) -> bytes:
    """Encode a valid request."""
    encoded: bytes = kserve_request(server, to_arrays(rows), binary=True).to_grpc().SerializeToString()
    return encoded


@asynccontextmanager
async def open_channels(server: Server, number: int = 1) -> AsyncIterator[list[grpc.aio.Channel]]:
    """Open channels with a connection each."""
    channels = [grpc.aio.insecure_channel(server.grpc_url, options=OPTIONS) for _ in range(number)]
    try:
        yield channels
    finally:
        for channel in channels:
            await channel.close()


async def outcome(call: Awaitable[Any]) -> Outcome:
    """Await a call; return its status and the details."""
    try:
        await call
    except grpc.aio.AioRpcError as err:
        return err.code().name, err.details() or ""
    except asyncio.CancelledError:
        return "CANCELLED", ""
    return "OK", ""


def send(channel: grpc.aio.Channel, message: bytes, method: str = "ModelInfer", metadata: Any = AUTHORIZED) -> Any:
    """Call a method with a message."""
    return channel.unary_unary(SERVICE + method)(message, timeout=60, metadata=metadata)


def stall(channel: grpc.aio.Channel, method: str = f"{SERVICE}ModelInfer") -> Any:
    """Call a method without a message, and without an end of the messages."""
    return channel.stream_unary(method)(timeout=60, metadata=AUTHORIZED)


async def peak_memory(server: Server, calls: list[Awaitable[Any]]) -> tuple[Counter[Outcome], float]:
    """Await calls; return their outcomes and the peak of the server's resident memory in MiB."""
    tasks = [asyncio.ensure_future(outcome(call)) for call in calls]
    peak = 0.0
    while not all(task.done() for task in tasks):
        peak = max(peak, resident_mebibytes(server.process.pid))
        await asyncio.sleep(0.02)
    return Counter(task.result() for task in tasks), peak


def test_large_messages_without_a_token_take_no_memory(server: Server) -> None:
    before = resident_mebibytes(server.process.pid)

    async def scenario() -> tuple[Counter[Outcome], float]:
        async with open_channels(server, 12) as channels:
            return await peak_memory(server, [send(channel, LARGE, metadata=UNAUTHORIZED) for channel in channels])

    outcomes, peak = asyncio.run(scenario())
    codes = Counter(code for code, _ in outcomes.elements())
    assert set(codes) <= REFUSED_WHILE_SENDING
    assert codes["UNAUTHENTICATED"] > codes["CANCELLED"]
    assert peak - before < 100  # of 360 MiB that were sent


def test_large_messages_take_about_the_budget_and_their_memory_is_returned(server: Server, message: bytes) -> None:
    before = resident_mebibytes(server.process.pid)

    async def scenario() -> tuple[Counter[Outcome], float]:
        async with open_channels(server, count(reduced=16, full=24)) as channels:
            outcomes, peak = await peak_memory(server, [send(channel, LARGE) for channel in channels])
            assert await outcome(send(channels[0], message)) == ("OK", "")
            return outcomes, peak

    outcomes, peak = asyncio.run(scenario())
    assert {code for code, _ in outcomes} <= {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    assert outcomes.total() == count(reduced=16, full=24)
    assert peak - before < 2.5 * BUDGET_MEBIBYTES
    assert wait_for_memory(server.process.pid, 1.5 * before) < 1.5 * before


def test_a_call_without_a_message_is_refused(server: Server) -> None:
    async def scenario() -> Outcome:
        async with open_channels(server) as (channel,):
            call = stall(channel)
            await call.done_writing()
            return await outcome(call)

    assert asyncio.run(scenario()) == ("INVALID_ARGUMENT", "the call has no message")


@pytest.mark.parametrize(
    ("method", "seconds"),
    [
        pytest.param(f"{SERVICE}ModelInfer", BODY_SECONDS, id="with a token"),
        pytest.param(f"{SERVICE}ModelReady", 0.1, id="public"),
        pytest.param("/grpc.health.v1.Health/Check", 0.1, id="health"),
    ],
)
def test_a_stalled_call_ends_in_time_and_delays_no_other(
    server: Server, message: bytes, method: str, seconds: float
) -> None:
    async def scenario() -> None:
        async with open_channels(server) as (channel,):
            started = time.monotonic()
            calls = [stall(channel, method) for _ in range(10)]
            stalled = [asyncio.ensure_future(outcome(call)) for call in calls]
            # When another call follows, then it is answered while these wait for their messages
            await asyncio.wait_for(send(channel, message), 30)
            assert seconds < BODY_SECONDS or not any(task.done() for task in stalled)
            expected = ("DEADLINE_EXCEEDED", f"the message did not come within {seconds:g} s")
            assert set(await asyncio.gather(*stalled)) == {expected}
            assert time.monotonic() - started >= seconds
            assert not method.startswith(SERVICE) or "x-request-id" in dict(await calls[0].trailing_metadata())

    asyncio.run(scenario())


def test_calls_beyond_the_limit_are_refused_but_not_those_of_health(server: Server, message: bytes) -> None:
    async def scenario() -> None:
        async with open_channels(server, 2) as (channel, other):
            stalled = [stall(channel) for _ in range(MAX_CALLS)]
            await asyncio.gather(*[call.wait_for_connection() for call in stalled])
            refused = ("RESOURCE_EXHAUSTED", "too many calls are being handled already; try again in a second")
            deadline = time.monotonic() + BODY_SECONDS
            while await outcome(send(other, message)) != refused:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert await outcome(send(other, b"", "ServerReady")) == ("OK", "")
            check = other.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=30)
            assert health_pb2.HealthCheckResponse.FromString(await check).status == 1
            for call in stalled:
                call.cancel()
            deadline = time.monotonic() + 20
            while await outcome(send(other, message)) != ("OK", ""):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)

    asyncio.run(scenario())


def test_connections_beyond_the_limit_are_closed_and_closed_ones_are_not_counted(server: Server) -> None:
    async def scenario() -> None:
        async with open_channels(server, MAX_CONNECTIONS + 10) as channels:
            outcomes = await asyncio.gather(*[outcome(send(channel, b"", "ServerLive")) for channel in channels])
            codes = Counter(code for code, _ in outcomes)
            assert set(codes) == {"OK", "UNAVAILABLE"}
            assert codes["OK"] <= MAX_CONNECTIONS
        deadline = time.monotonic() + 20
        async with open_channels(server) as (channel,):
            while (await outcome(send(channel, b"", "ServerLive")))[0] != "OK":
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)

    asyncio.run(scenario())


# Hostile clients


async def large(channel: grpc.aio.Channel) -> Outcome:
    """Send a large message."""
    return await outcome(send(channel, LARGE))


async def large_without_a_token(channel: grpc.aio.Channel) -> Outcome:
    """Send a large message without a token."""
    return await outcome(send(channel, LARGE, metadata=UNAUTHORIZED))


async def large_to_a_public_method(channel: grpc.aio.Channel) -> Outcome:
    """Send a large message to a method that needs no token."""
    return await outcome(send(channel, LARGE, "ModelReady", UNAUTHORIZED))


async def aborted(channel: grpc.aio.Channel) -> Outcome:
    """Send a large message and cancel the call."""
    call = send(channel, LARGE)
    await asyncio.sleep(0.02)
    call.cancel()
    return await outcome(call)


async def stalled(channel: grpc.aio.Channel) -> Outcome:
    """Open a call, send nothing and cancel it."""
    call = stall(channel)
    await asyncio.sleep(0.2)
    call.cancel()
    return await outcome(call)


async def many_streams(channel: grpc.aio.Channel) -> Outcome:
    """Open many calls on a connection and cancel them at once."""
    calls = [send(channel, b"x" * 1000) for _ in range(10)]
    await asyncio.sleep(0.01)
    for call in calls:
        call.cancel()
    return (await asyncio.gather(*map(outcome, calls)))[0]


HOSTILE: list[Callable[[grpc.aio.Channel], Awaitable[Outcome]]] = [
    large,
    large_without_a_token,
    large_to_a_public_method,
    aborted,
    stalled,
    many_streams,
]


def test_hostile_clients_leave_no_memory_behind_and_others_are_answered(server: Server, message: bytes) -> None:
    # Given
    before = resident_mebibytes(server.process.pid)
    outcomes: Counter[str] = Counter()
    hostile: Counter[tuple[str, str]] = Counter()

    async def attack(act: Callable[[grpc.aio.Channel], Awaitable[Outcome]], until: float) -> None:
        while time.monotonic() < until:
            async with open_channels(server) as (channel,):
                hostile[act.__name__, (await act(channel))[0]] += 1

    async def scenario() -> None:
        async with open_channels(server) as (channel,):
            until = time.monotonic() + count(reduced=3, full=30)
            tasks = [asyncio.create_task(attack(act, until)) for act in HOSTILE for _ in range(2)]
            # When
            while not all(task.done() for task in tasks):
                outcomes[(await outcome(send(channel, message)))[0]] += 1
                await asyncio.sleep(0.01)
            await asyncio.gather(*tasks)

    asyncio.run(scenario())
    # Then
    assert set(outcomes) == {"OK"}
    assert {act for act, _ in hostile} == {act.__name__ for act in HOSTILE}
    assert {code for act, code in hostile if act == "large_without_a_token"} <= REFUSED_WHILE_SENDING
    assert wait_for_memory(server.process.pid, 1.5 * before) < 1.5 * before
