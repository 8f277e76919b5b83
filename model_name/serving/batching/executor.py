"""Queues of requests, and the threads or the event loop that run them in batches."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, takewhile
from math import inf
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, perf_counter, thread_time
from typing import Any, NamedTuple

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import InferenceRequest, Payload
from model_name.serving.bundle import Manifest
from model_name.serving.byte_budget import ByteBudget

# The shortest of so many wall times counts. When a model begins to stall, so many batches still run on the event loop.
WALL_TIME_BATCHES = 3
MAX_INLINE_BYTES = 64 * 1024  # of a batch on the event loop: the most expensive bodies take 0.3 ms a KiB
EMA_WINDOW_BATCHES = 5  # the weight of a new batch in the moving averages is 1 / EMA_WINDOW_BATCHES


class InferenceResponse(NamedTuple):
    """Response to one request.

    Attributes:
        payload: Encoded response.
        manifest: Manifest of the model that predicted.
    """

    payload: Payload
    manifest: Manifest


InferenceOutcome = InferenceResponse | ModelNameError
"""Response to a request, or the error in its place."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request without an outcome yet.

    Attributes:
        request: Request to infer.
        on_done: Callback that receives the outcome, once, on the event loop.
        is_done: Whether the outcome is known or no longer needed.
    """

    request: InferenceRequest
    on_done: Callable[[InferenceOutcome], None]
    is_done: bool = False

    @property
    def is_disconnected(self) -> bool:
        """Whether a response would reach no client."""
        return self.is_done or self.request.is_disconnected


class PendingRequests:
    """All requests without an outcome. Not thread-safe; use on the event loop.

    Attributes:
        requests: Pending requests, queued or being computed.
        budget: Budget in which the size of each body is reserved until its outcome is known.
    """

    def __init__(self, budget: ByteBudget) -> None:
        """Start empty."""
        self.requests: set[PendingRequest] = set()
        self.budget = budget

    def add(self, pending: PendingRequest) -> None:
        """Add a request.

        Raises:
            BusyError: The budget does not allow a body of this size.
        """
        self.budget.reserve(pending.request.size)
        self.requests.add(pending)

    def remove(self, pending: PendingRequest) -> None:
        """Remove a request whose outcome is known or no longer needed."""
        if not pending.is_done:
            pending.is_done = True
            self.requests.discard(pending)
            self.budget.release(pending.request.size)

    def resolve(self, pending: PendingRequest, outcome: InferenceOutcome) -> None:
        """Remove a request and call back with its outcome, unless it is done.

        Each callback runs in a callback of the event loop of its own, so that an exception in it affects no others.
        """
        if not pending.is_done:
            self.remove(pending)
            asyncio.get_running_loop().call_soon(pending.on_done, outcome)


class RunTimeEstimate:
    """Estimate of the run time of a batch, if it is not interrupted.

    The wall time of a batch includes the time for which its thread was preempted, throttled by a CPU quota or waiting
    for the interpreter. So the estimate is the average of the processor time. A batch that waits for a GPU takes little
    processor time, but always much wall time; so the estimate is at least the shortest recent wall time.

    Attributes:
        average_seconds: Moving average of the processor time of a batch; infinite before the first one.
        average_bytes: Moving average of the total size of the bodies in a batch.
    """

    __slots__ = ("_shortest", "_wall_seconds", "average_bytes", "average_seconds")

    def __init__(self) -> None:
        """Start without a batch."""
        self.average_seconds = inf
        self.average_bytes = 1.0
        self._wall_seconds: deque[float] = deque(maxlen=WALL_TIME_BATCHES)
        self._shortest = inf

    def update(self, wall_seconds: float, processor_seconds: float, size: float) -> None:
        """Add a batch.

        Args:
            wall_seconds: Wall time of the batch.
            processor_seconds: Processor time of the thread that ran it.
            size: Total size of the bodies in bytes.
        """
        self._wall_seconds.append(wall_seconds)
        self._shortest = min(self._wall_seconds)
        if self.average_seconds == inf:
            self.average_seconds, self.average_bytes = processor_seconds, size
        else:
            self.average_seconds += (processor_seconds - self.average_seconds) / EMA_WINDOW_BATCHES
            self.average_bytes += (size - self.average_bytes) / EMA_WINDOW_BATCHES

    def estimate(self, size: float) -> float:
        """Estimate the run time of a batch in seconds: the average, and proportionally more for a larger batch."""
        return max(self.average_seconds * max(1.0, size / self.average_bytes), self._shortest)


class BatchExecutor:
    """Run batches of requests on the event loop or on threads, whichever is expected to be faster.

    While one batch runs, requests queue up and form the next one; no request waits for others to arrive.

    A thread waits while the event loop holds the interpreter, and vice versa. So a batch runs on the event loop if
    recent batches were short enough not to delay it. If a thread still runs a batch then, requests wait for its end:
    under load they would otherwise stay on the thread, which never runs out of batches.

    Attributes:
        max_batch_size: Number of requests in a batch.
        inline_budget_seconds: Expected run time up to which a batch runs on the event loop.
        run_time: Estimate of the run time of a batch.
    """

    def __init__(
        self,
        name: str,
        max_batch_size: int,
        compute: Callable[[Sequence[PendingRequest]], Sequence[InferenceOutcome]],
        pending: PendingRequests,
        *,
        threads: int = 1,
        inline_budget_seconds: float = 0.0,
    ) -> None:
        """Start the threads.

        Args:
            name: Name of the threads.
            max_batch_size: Number of requests in a batch.
            compute: Function that infers a batch in any thread, and returns the outcomes in its order.
            pending: Requests without an outcome, to which the outcomes are delivered.
            threads: Number of threads.
            inline_budget_seconds: Expected run time up to which a batch runs on the event loop; by default none does.
        """
        self.max_batch_size = max_batch_size
        self.compute = compute
        self.inline_budget_seconds = inline_budget_seconds
        self.run_time = RunTimeEstimate()
        self._pending = pending
        self._queue: SimpleQueue[PendingRequest | None] = SimpleQueue()
        self._collected: list[PendingRequest] = []
        self._yields_left = 0
        self._threaded = 0  # requests in the queue or in the batch of a thread
        self._loop: asyncio.AbstractEventLoop
        self._threads = [Thread(target=self._run, name=f"batch-{name}", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def queue_depth(self) -> int:
        """Number of requests that wait for a batch."""
        return self._queue.qsize() + len(self._collected)

    def enqueue(self, pending: PendingRequest) -> None:
        """Add a request to the next batch. Not thread-safe; call on the event loop."""
        self._collected.append(pending)
        self._yields_left = pending.request.gather_yields
        if len(self._collected) == 1:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._dispatch)

    def close(self) -> None:
        """End the threads after the queued requests; `join` waits for them."""
        for _ in self._threads:
            self._queue.put(None)

    def join(self, seconds: float | None = None) -> bool:
        """Wait for the end of the threads, and return whether they have ended.

        Args:
            seconds: Time after which the wait ends; None to wait until they have ended.
        """
        deadline = None if seconds is None else monotonic() + seconds
        for thread in self._threads:
            thread.join(None if deadline is None else max(0.0, deadline - monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _dispatch(self) -> None:
        """Run the collected requests or hand them to the threads, once no more are about to arrive.

        A batch of only the first request would hold the interpreter while further requests are being received.
        """
        if self._yields_left and len(self._collected) < self.max_batch_size:
            self._yields_left -= 1
            self._loop.call_soon(self._dispatch)
            return
        batch, rest = self._collected[: self.max_batch_size], self._collected[self.max_batch_size :]
        if not batch:
            return
        size = _total_bytes(batch)
        if self.run_time.estimate(size) < self.inline_budget_seconds:
            if self._threaded:  # `_deliver_threaded` dispatches again: the thread would never run out of batches
                return
            if size > MAX_INLINE_BYTES:
                batch = batch[: _count_within(batch, MAX_INLINE_BYTES)]
                rest = self._collected[len(batch) :]
            self._collected = rest
            if rest:
                self._loop.call_soon(self._dispatch)
            self._deliver(batch, self._run_timed(batch))
            return
        collected, self._collected = self._collected, []
        self._threaded += len(collected)
        for pending in collected:
            self._queue.put(pending)

    def _run(self) -> None:
        """Run batches from the queue until it holds None."""
        while (first := self._queue.get()) is not None:
            batch = [first, *self._drain_queue()]
            outcomes = self._run_timed(batch)
            self._call_on_loop(self._deliver_threaded, batch, outcomes)
            del first, batch, outcomes  # would keep the bodies until the next request

    def _run_timed(self, batch: Sequence[PendingRequest]) -> Sequence[InferenceOutcome]:
        """Run a batch and update the estimate of the run time."""
        started, processor_started = perf_counter(), thread_time()
        outcomes = self.compute(batch)
        self.run_time.update(perf_counter() - started, thread_time() - processor_started, _total_bytes(batch))
        return outcomes

    def _deliver(self, batch: Sequence[PendingRequest], outcomes: Sequence[InferenceOutcome]) -> None:
        """Deliver the outcomes of a batch. Not thread-safe; call on the event loop."""
        for pending, outcome in zip(batch, outcomes, strict=True):
            self._pending.resolve(pending, outcome)

    def _deliver_threaded(self, batch: Sequence[PendingRequest], outcomes: Sequence[InferenceOutcome]) -> None:
        """Deliver the outcomes of a batch that a thread ran, and dispatch requests that waited for its end."""
        self._threaded -= len(batch)
        self._deliver(batch, outcomes)
        if self._collected and not self._threaded:
            self._loop.call_soon(self._dispatch)

    def _call_on_loop(self, call: Callable[..., None], *args: Any) -> None:
        """Schedule a call on the event loop from a thread, unless the loop is closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def _drain_queue(self) -> list[PendingRequest]:
        """Take further queued requests, up to the size of a batch."""
        drained: list[PendingRequest] = []
        while len(drained) < self.max_batch_size - 1:
            try:
                pending = self._queue.get_nowait()
            except Empty:
                break
            if pending is None:  # ends `_run` after this batch
                self._queue.put(None)
                break
            drained.append(pending)
        return drained


def _count_within(batch: Sequence[PendingRequest], size: int) -> int:
    """Count the first requests whose bodies have some bytes in all; at least one."""
    sizes = accumulate(pending.request.size for pending in batch)
    return max(1, sum(1 for _ in takewhile(size.__ge__, sizes)))


def _total_bytes(batch: Sequence[PendingRequest]) -> float:
    """Sum the sizes of the bodies of a batch; at least one byte."""
    return max(1.0, sum([pending.request.size for pending in batch]))
