"""No request blocks the event loop for more than 20 ms, whatever its shape, and the probe is answered meanwhile."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest

from model_name.serving.batching.batcher import LARGE_BODY_BYTES, MEDIUM_BODY_BYTES
from model_name.serving.bundle import Bundle
from tests.support import adversarial_bodies
from tests.support.counts import count
from tests.support.server_processes import Server, launch_server
from tests.support.tables import Row
from tests.support.watched_server import TICK_SECONDS, watch

MAX_BLOCKED_SECONDS = 0.02
ATTEMPTS = 4  # a collection of garbage or a busy machine may add to one of them
SIZES = count(
    reduced=(MEDIUM_BODY_BYTES - 600, LARGE_BODY_BYTES - 6000),
    full=(2000, MEDIUM_BODY_BYTES - 600, LARGE_BODY_BYTES - 6000, 2**20),
)
EVERY = count(reduced=3, full=1)  # of the shapes is sent
WARM_UP_REQUESTS = 50
CODES = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.NOT_FOUND,
    }
)
BLOCKED = re.compile(r"^blocked ([0-9.]+) until ([0-9.]+)$", re.MULTILINE)


class Shape(NamedTuple):
    """A request of a shape, and how it is sent."""

    name: str
    send: Callable[[], None]


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle], serving_env: dict[str, str], tmp_path_factory: Any) -> Iterator[Server]:
    log: Path = tmp_path_factory.mktemp("watched") / "server.log"
    arguments = ["--bundle", str(bundles["regression"].directory)]
    started = launch_server("tests.support.watched_server", *arguments, name="regression", log=log, env=serving_env)
    yield started.wait()
    started.stop()


def blocked_seconds(server: Server, since: float) -> float:
    """Return the longest time for which the event loop was blocked since a monotonic time."""
    time.sleep(0.01)
    return max((float(seconds) for seconds, end in BLOCKED.findall(server.output()) if float(end) > since), default=0)


def shapes_of(server: Server, row: Row, size: int) -> Iterator[Shape]:
    """Generate the requests of all protocols of a size."""
    url, name = server.url, server.name

    def post(path: str, body: bytes, headers: dict[str, str]) -> Callable[[], None]:
        def send() -> None:
            response = server.client.post(f"{url}{path}", content=body, headers=headers)
            assert response.status_code < 500, response.text

        return send

    channel = grpc.insecure_channel(server.grpc_url)
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

    def call(message: bytes) -> Callable[[], None]:
        def send() -> None:
            called = infer.future(message, timeout=60)
            called.exception()  # waits
            assert called.code() in CODES

        return send

    predict, inference = f"/v1/models/{name}:predict", f"/v2/models/{name}/infer"
    for key, shape in adversarial_bodies.v1_shapes(row).items():
        yield Shape(f"v1: {key}", post(predict, shape(size), {"content-type": "application/json"}))
    for key, shape in adversarial_bodies.v2_shapes(row).items():
        yield Shape(f"v2: {key}", post(inference, shape(size), {"content-type": "application/json"}))
    for key, shape in adversarial_bodies.event_shapes(row).items():
        yield Shape(f"event: {key}", post(predict, shape(size), {"content-type": "application/cloudevents+json"}))
    for key, binary in adversarial_bodies.binary_shapes(row).items():
        body, length = binary(size)
        yield Shape(f"binary: {key}", post(inference, body, {"inference-header-content-length": str(length)}))
    for key, shape in adversarial_bodies.message_shapes(row, name).items():
        yield Shape(f"grpc: {key}", call(shape(size)))


def warm_up(server: Server, rows: list[Row]) -> None:
    """Send cheap requests, also long ones, so that the next small ones run on the event loop."""
    document = b'{"instances": [' + adversarial_bodies.dumped(rows[0]) + b"]}"
    for size in (0, MEDIUM_BODY_BYTES - len(document) - 100):
        for _ in range(WARM_UP_REQUESTS):
            response = server.client.post(f"/v1/models/{server.name}:predict", content=document + b" " * size)
            assert response.status_code == 200


@pytest.fixture
def probe(server: Server) -> Iterator[list[int]]:
    """Poll the liveness probe during a test; the statuses are collected."""
    statuses: list[int] = []
    is_over = threading.Event()

    def poll() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while not is_over.wait(0.02):
                statuses.append(client.get("/v2/health/live").status_code)

    thread = threading.Thread(target=poll)
    thread.start()
    yield statuses
    is_over.set()
    thread.join()


@pytest.mark.parametrize("size", SIZES)
def test_no_shape_of_a_body_blocks_the_event_loop(server: Server, rows: list[Row], size: int, probe: list[int]) -> None:
    # Given a server that runs small requests on its event loop
    warm_up(server, rows)
    # When a client sends bodies of every shape
    suspects = []
    for position, shape in enumerate(shapes_of(server, rows[0], size)):
        if position % EVERY == size % EVERY:
            started = time.monotonic()
            shape.send()
            if blocked_seconds(server, started) > MAX_BLOCKED_SECONDS:
                suspects.append(shape)
    # Then none of them blocks the event loop each time that it is sent
    for shape in suspects:
        times = []
        for _ in range(ATTEMPTS):
            warm_up(server, rows)
            started = time.monotonic()
            shape.send()
            times.append(blocked_seconds(server, started))
            if times[-1] <= MAX_BLOCKED_SECONDS:
                break
        assert min(times) <= MAX_BLOCKED_SECONDS, (shape.name, size, times)
    assert set(probe) == {200}


def test_many_requests_at_once_do_not_add_up_on_the_event_loop(server: Server, rows: list[Row]) -> None:
    # Given the shape that costs most for its size, after cheap requests of the same size
    body = adversarial_bodies.v2_shapes(rows[0])["a matrix of lists"](MEDIUM_BODY_BYTES - 1500)
    times = []
    for _ in range(ATTEMPTS):
        warm_up(server, rows)
        # When many clients send it at once
        started = time.monotonic()

        def send() -> None:
            assert (
                httpx.post(f"{server.url}/v2/models/{server.name}/infer", content=body, timeout=60).status_code == 400
            )

        threads = [threading.Thread(target=send) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        times.append(blocked_seconds(server, started))
        if times[-1] <= MAX_BLOCKED_SECONDS:
            break
    # Then they do not run in one batch on the event loop
    assert min(times) <= MAX_BLOCKED_SECONDS, times


def test_a_computation_on_the_event_loop_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    async def block() -> None:
        watch(asyncio.get_running_loop(), time.thread_time())
        await asyncio.sleep(2 * TICK_SECONDS)
        started = time.thread_time()
        while time.thread_time() < started + 2 * MAX_BLOCKED_SECONDS:
            pass
        await asyncio.sleep(2 * TICK_SECONDS)

    asyncio.run(block())
    assert max(float(seconds) for seconds, _ in BLOCKED.findall(capsys.readouterr().err)) >= 2 * MAX_BLOCKED_SECONDS
