"""Requests are computed off the event loop, as many at once as have come, and none of them is another one's trouble."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

import numpy as np
import pytest

from model_name.core.schemas import Outputs
from model_name.errors import BusyError, DataError, DependencyError, ModelNameError
from model_name.serving.batching import batcher
from model_name.serving.batching.batcher import LARGE_BODY_BYTES, AdaptiveBatcher
from model_name.serving.batching.executor import InferenceResponse
from model_name.serving.batching.requests import BatchResult, InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.tensors import DATATYPES
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request
from model_name.serving.request_errors import ClientDisconnectedError
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

POISON = 13.0  # an area that breaks the model
SLOW_ROWS = 100  # of a request from where on it waits at its own gate


class Plane(DataPlane):
    """A data plane that waits until it may answer, counts what it is given and breaks on one area.

    Attributes:
        gate: Closed, it holds up small requests.
        slow_gate: Closed, it holds up large ones.
        rows: Of each forward pass.
        on_run: Called in it.
    """

    def __init__(self) -> None:
        super().__init__(plane_of(manifest_of(table_of())).bundle)
        self.gate, self.slow_gate = threading.Event(), threading.Event()
        self.gate.set()
        self.slow_gate.set()
        self.rows: list[int] = []
        self.on_run: Callable[[], Any] = lambda: None

    def predict_matrix(self, matrix: Any, *, interval: float | None = None) -> Outputs:
        self.rows.append(len(matrix))
        self.on_run()
        assert (self.slow_gate if len(matrix) >= SLOW_ROWS else self.gate).wait(30)
        if (matrix[:, 0] == POISON).any():
            raise RuntimeError("the graph broke")
        return super().predict_matrix(matrix, interval=interval)


class Noted:
    """A batcher, and the sizes of its batches."""

    def __init__(self, **limits: Any) -> None:
        self.plane = Plane()
        self.batches: list[int] = []
        self.batcher = AdaptiveBatcher(self.plane, Limits(**limits), observe=self._observe)

    def _observe(self, plane: DataPlane, requests: Sequence[InferenceRequest], answered: BatchResult) -> None:
        self.batches.append(len(requests))

    def ask(self, request: InferenceRequest) -> asyncio.Task[InferenceResponse]:
        """Ask, without waiting for the answer."""
        return asyncio.create_task(self.batcher.infer(request))

    async def ask_first(self) -> asyncio.Task[InferenceResponse]:
        """Have the lane held up by a request that it computes, until the gate is opened."""
        self.plane.gate.clear()
        first = self.ask(row())
        await until(lambda: self.plane.rows == [1])
        return first


def row(area: Any = 61.5, number: int = 1, **more: Any) -> V1Request:
    """A request of some equal rows."""
    return V1Request(json.dumps({"instances": [EXAMPLE | {"area": area}] * number} | more).encode(), "1")


def large(number: int = 400) -> V1Request:
    """One that has a lane of its own."""
    request = row(number=number)
    assert request.size > LARGE_BODY_BYTES
    return request


async def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.002)


def scene(scenario: Callable[[Noted], Coroutine[Any, Any, Any]], **limits: Any) -> Noted:
    """Play a scenario with a batcher, and end it."""
    noted = Noted(**limits)
    try:
        asyncio.run(asyncio.wait_for(scenario(noted), 30))
    finally:
        noted.plane.gate.set()
        noted.plane.slow_gate.set()
        noted.batcher.close()
    return noted


def predictions(response: InferenceResponse) -> list[float]:
    return cast(list[float], json.loads(response.payload)["predictions"])


# No wait


def test_the_event_loop_is_free_during_a_forward_pass() -> None:
    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        await asyncio.sleep(0.05)
        assert not first.done()
        noted.plane.gate.set()
        assert predictions(await first) == [12.5]

    scene(scenario)


@pytest.fixture
def long_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment that a busy machine does not exceed by chance."""
    monkeypatch.setattr(batcher, "INLINE_BUDGET_SECONDS", 0.1)


def test_what_is_over_in_a_moment_is_computed_where_it_came(long_moment: None) -> None:
    threads: list[str] = []

    async def scenario(noted: Noted) -> None:
        noted.plane.on_run = lambda: threads.append(threading.current_thread().name)
        for _ in range(20):
            await noted.batcher.infer(row())
        noted.plane.on_run = lambda: (threads.append(threading.current_thread().name), time.sleep(0.6))
        for _ in range(3):
            await noted.batcher.infer(row())
        assert len(predictions(await noted.batcher.infer(large()))) == 400

    scene(scenario)
    # Nobody knows of the first how long it takes, and of the first slow one that it is.
    assert (threads[0], threads[19:]) == ("lane-small", ["MainThread"] * 2 + ["lane-small"] * 2 + ["lane-large"])


def test_a_batch_that_is_much_larger_than_those_before_is_computed_by_a_thread(long_moment: None) -> None:
    threads: list[str] = []

    async def scenario(noted: Noted) -> None:
        noted.plane.on_run = lambda: threads.append(threading.current_thread().name)
        for _ in range(20):
            await noted.batcher.infer(row())
        noted.batcher._small.seconds = 0.05  # half a moment: twice as much may just be too much
        await noted.batcher.infer(row())
        noted.batcher._small.seconds = 0.05
        await noted.batcher.infer(row(number=5))

    scene(scenario)
    assert threads[-2:] == ["MainThread", "lane-small"]


def test_a_batch_that_is_computed_where_it_came_has_no_more_than_it_may(long_moment: None) -> None:
    async def scenario(noted: Noted) -> None:
        for _ in range(20):
            await noted.batcher.infer(row())
        responses = await asyncio.gather(*(noted.batcher.infer(row()) for _ in range(10)))
        assert [predictions(response) for response in responses] == [[12.5]] * 10
        assert (noted.batcher.pending, noted.batcher.queued) == (set(), 0)

    assert scene(scenario, batch_requests=4).batches == [1] * 20 + [4, 4, 2]


def test_who_comes_alone_does_not_wait_for_others() -> None:
    seconds = []

    async def scenario(noted: Noted) -> None:
        for _ in range(20):
            started = time.perf_counter()
            await noted.batcher.infer(row())
            seconds.append(time.perf_counter() - started)

    noted = scene(scenario)
    assert noted.batches == [1] * 20
    assert min(seconds) < 0.01


@pytest.mark.parametrize(
    ("most", "batches"), [pytest.param(64, [1, 10], id="all"), pytest.param(4, [1, 4, 4, 2], id="as many as may be")]
)
def test_those_who_come_while_another_is_computed_are_computed_together(most: int, batches: list[int]) -> None:
    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        others = [noted.ask(row(number=number + 1)) for number in range(10)]
        await until(lambda: noted.batcher.queued == 10)
        noted.plane.gate.set()
        assert [len(predictions(response)) for response in await asyncio.gather(first, *others)] == [1, *range(1, 11)]

    noted = scene(scenario, batch_requests=most)
    assert noted.batches == batches
    assert sum(noted.plane.rows) == 1 + sum(range(1, 11))
    assert len(noted.plane.rows) == len(batches)


def test_a_large_request_does_not_delay_small_ones() -> None:
    async def scenario(noted: Noted) -> None:
        noted.plane.slow_gate.clear()
        slow = noted.ask(large())
        await until(lambda: noted.plane.rows == [400])
        for _ in range(3):
            assert predictions(await noted.batcher.infer(row())) == [12.5]
        assert not slow.done()
        noted.plane.slow_gate.set()
        assert len(predictions(await slow)) == 400

    scene(scenario)


# Neighbours


def test_a_bad_request_fails_alone() -> None:
    bad = {
        "area: not a number": row("wide"),
        "area: 900.0 is above 500.0": row(900),
        "the request holds no row": V1Request(b'{"instances": []}', "2"),
        "the body is not JSON": V1Request(b"{", "3"),
        "the body.inputs: is missing": V2Request(b"{}", "4", name="flats"),
        "there is no prediction interval of level 0.5": row(parameters={"interval": 0.5}),
    }

    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        good = [noted.ask(row(number=2)), noted.ask(row(parameters={"interval": 0.9}))]
        refused = [noted.ask(request) for request in bad.values()]
        good.append(noted.ask(row(number=3)))
        await until(lambda: noted.batcher.queued == len(good) + len(refused))
        noted.plane.gate.set()
        await asyncio.gather(first, *good)
        for reason, task in zip(bad, await asyncio.gather(*refused, return_exceptions=True), strict=True):
            assert isinstance(task, DataError)
            assert task.message.startswith(reason)
        assert [len(predictions(task.result())) for task in good] == [2, 1, 3]

    assert scene(scenario).batches == [1, 9]


def test_a_request_that_breaks_the_model_fails_alone_and_the_lane_goes_on() -> None:
    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        tasks = [noted.ask(row(POISON if number == 3 else 61.5)) for number in range(6)]
        await until(lambda: noted.batcher.queued == 6)
        noted.plane.gate.set()
        await first
        responses = await asyncio.gather(*tasks, return_exceptions=True)
        failure = responses.pop(3)
        assert isinstance(failure, ModelNameError)
        assert (failure.http_status, failure.message) == (500, "the model failed: RuntimeError")
        assert [predictions(response) for response in responses if isinstance(response, InferenceResponse)] == [[12.5]] * 5
        assert predictions(await noted.batcher.infer(row())) == [12.5]

    noted = scene(scenario)
    assert noted.batches == [1, 1, 1, 1, 1, 1, 1]  # one by one after the break, without the poisoned one, and the last


def test_a_model_that_breaks_on_a_large_request_goes_on() -> None:
    async def scenario(noted: Noted) -> None:
        for _ in range(2):
            with pytest.raises(ModelNameError, match="the model failed: RuntimeError"):
                await noted.batcher.infer(row(POISON, 400))
        assert len(predictions(await noted.batcher.infer(large()))) == 400

    scene(scenario)


# Work that nobody waits for


class Gone:
    """A connection whose client has left."""

    def is_closing(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("how", "kind", "reason"),
    [
        pytest.param("cancelled", asyncio.CancelledError, "", id="cancelled"),
        pytest.param("closed", ClientDisconnectedError, "the client has left", id="closed"),
        pytest.param("too long", DependencyError, "the answer takes too long", id="too long"),
    ],
)
def test_what_nobody_waits_for_is_never_computed(how: str, kind: type[BaseException], reason: str) -> None:
    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        requests = [row(number=number) for number in (10, 20, 30)]
        tasks = [noted.ask(request) for request in requests]
        kept = noted.ask(row(number=2))
        await until(lambda: noted.batcher.queued == 4)
        for request, task in zip(requests, tasks, strict=True):
            if how == "cancelled":
                task.cancel()
            elif how == "closed":
                request.connection = cast(Any, Gone())
            else:
                request.received_at -= 61
        if how == "too long":
            noted.batcher.evict_expired()
        await asyncio.sleep(0)
        noted.plane.gate.set()
        await first
        assert predictions(await kept) == [12.5] * 2
        noted.batcher.evict_expired()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(kind, reason)] * 3
        assert (noted.batcher.pending, noted.batcher.pending_bytes) == (set(), 0)

    assert scene(scenario).plane.rows == [1, 2]


def test_who_leaves_while_being_computed_leaves_nothing_behind() -> None:
    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        first.cancel()
        await asyncio.sleep(0.01)
        noted.plane.gate.set()
        assert predictions(await noted.batcher.infer(row())) == [12.5]
        assert (noted.batcher.pending, noted.batcher.pending_bytes, noted.batcher.queued) == (set(), 0, 0)

    scene(scenario)


# The queue


@pytest.mark.parametrize(
    ("limits", "waiting"),
    [
        pytest.param({"queued_requests": 3}, 3, id="requests"),
        pytest.param({"queued_bytes": 4 * row().size}, 3, id="bytes, with those that are computed"),
    ],
)
def test_a_full_queue_is_told_and_empties(limits: dict[str, int], waiting: int) -> None:
    async def scenario(noted: Noted) -> None:
        tasks = [await noted.ask_first(), *(noted.ask(row()) for _ in range(waiting))]
        await until(lambda: noted.batcher.queued == waiting)
        with pytest.raises(BusyError, match="too many requests wait already; try again in a second"):
            await noted.batcher.infer(row())
        noted.plane.gate.set()
        await asyncio.gather(*tasks)
        assert predictions(await noted.batcher.infer(row())) == [12.5]

    assert sum(scene(scenario, **limits).plane.rows) == waiting + 2


def test_one_body_that_is_longer_than_the_queue_is_taken_where_nothing_waits() -> None:
    async def scenario(noted: Noted) -> None:
        assert len(predictions(await noted.batcher.infer(large()))) == 400

    scene(scenario, queued_bytes=10)


# A new bundle, and the end


def test_a_new_plane_answers_from_the_next_batch_on() -> None:
    async def scenario(noted: Noted) -> None:
        first = await noted.ask_first()
        second = noted.ask(row())
        noted.batcher.plane = plane_of(manifest_of(table_of(), version="8"))
        noted.plane.gate.set()
        responses = await asyncio.gather(first, second)
        assert [response.manifest.version for response in responses] == ["7", "8"]

    scene(scenario)


def test_the_end_comes_after_what_waits() -> None:
    async def scenario(noted: Noted) -> None:
        tasks = [await noted.ask_first(), *(noted.ask(row()) for _ in range(3)), noted.ask(large())]
        await until(lambda: noted.batcher.queued == 3)
        noted.plane.gate.set()
        await asyncio.to_thread(noted.batcher.close)
        await asyncio.gather(*tasks)

    before = set(threading.enumerate())
    noted = scene(scenario)
    assert np.sum(noted.plane.rows) == 404
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.name.startswith("lane-")]
    assert left == []


def test_a_column_that_is_missing_is_not_made_up_in_a_batch() -> None:
    plane = plane_of(manifest_of(table_of()))
    names = [name for name in EXAMPLE if name in plane.names]
    bodies = [{"inputs": [tensor_of(name, plane) for name in names[skip:]]} for skip in (0, 1, len(names))]
    requests = [V2Request(json.dumps(body).encode(), "1", name="flats") for body in bodies]
    good, *bad = infer_batch(plane, requests, Limits()).responses
    assert json.loads(good)["outputs"]
    assert all(isinstance(reply, DataError) and "column is missing" in reply.message for reply in bad)


def tensor_of(name: str, plane: DataPlane) -> dict[str, Any]:
    return {"name": name, "shape": [1], "datatype": DATATYPES[plane.kinds[name]][0], "data": [EXAMPLE[name]]}
