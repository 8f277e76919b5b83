"""Where batches are computed: on the event loop if they are over in a moment, in threads otherwise."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Any, NamedTuple

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import Payload, InferenceRequest
from model_name.serving.bundle import Manifest

EMA_WINDOW_BATCHES = 5  # batches back, about, that their mean goes


class InferenceResponse(NamedTuple):
    """A reply, and what it was made by."""

    payload: Payload
    manifest: Manifest


InferenceOutcome = InferenceResponse | ModelNameError
"""An answer, or why there is none."""


@dataclass(slots=True, eq=False)
class PendingRequest:
    """A request, and who waits for its answer.

    Attributes:
        request: The request.
        tell: Called once with what becomes of it, on the event loop.
        is_over: Whether nobody waits any more.
    """

    request: InferenceRequest
    tell: Callable[[InferenceOutcome], None]
    is_over: bool = False

    @property
    def is_disconnected(self) -> bool:
        """Whether an answer would reach nobody."""
        return self.is_over or self.request.is_disconnected


Tell = Callable[..., None]
"""Calls a function with arguments, on the event loop."""


class BatchExecutor:
    """Takes what waits, computes it, and takes what has come meanwhile: in threads of its own, or on the event loop.

    A thread waits for the interpreter while the event loop has it, and the event loop while the thread has it. So what
    is over in a moment is computed where it came, once the batches before have shown that it is.
    """

    def __init__(
        self,
        name: str,
        most: int,
        compute: Callable[[Sequence[PendingRequest], Tell], None],
        *,
        threads: int = 1,
        moment: float = 0.0,
    ) -> None:
        """Compute at most so many at once.

        Args:
            name: Of its threads.
            most: Requests in a batch.
            compute: Answers them.
            threads: How many.
            moment: Seconds for which a batch may hold up the event loop; none may by default.
        """
        self.most = most
        self.compute = compute
        self.moment = moment
        self.seconds = inf  # of a batch, in the running mean; not known yet
        self.bytes = 1.0  # of its requests
        self._queue: SimpleQueue[PendingRequest | None] = SimpleQueue()
        self._gathered: list[PendingRequest] = []
        self._turns = 0
        self._is_busy = False
        self._loop: asyncio.AbstractEventLoop
        self._threads = [Thread(target=self._run, name=f"lane-{name}", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """How many wait."""
        return self._queue.qsize() + len(self._gathered)

    def put(self, waiting: PendingRequest) -> None:
        """Have one computed, with those that the event loop has at hand; to be called from there."""
        self._gathered.append(waiting)
        self._turns = waiting.request.gather_yields
        if len(self._gathered) == 1:
            self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._hand_over)

    def close(self) -> None:
        """End after what is waiting."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _hand_over(self) -> None:
        # Who began with the first request would take the interpreter from those who are about to come.
        if self._turns and len(self._gathered) < self.most:
            self._turns -= 1
            self._loop.call_soon(self._hand_over)
            return
        batch, rest = self._gathered[: self.most], self._gathered[self.most :]
        if self._expected(batch) < self.moment and not self._is_busy and self._queue.empty():
            self._gathered = rest
            if rest:
                self._loop.call_soon(self._hand_over)
            self._timed(batch, _at_once)
            return
        gathered, self._gathered = self._gathered, []
        for waiting in gathered:
            self._queue.put(waiting)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            self._is_busy = True
            batch = [first, *self._more()]
            self._timed(batch, self._across)
            self._is_busy = False
            del first, batch  # or the last body would stay until the next one comes

    def _across(self, call: Callable[..., None], *args: Any) -> None:
        """Call on the event loop from a thread of the lane, if there is still anybody to tell."""
        self._is_busy = False  # before the next request of who is told looks whether it is
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call, *args)

    def _timed(self, batch: Sequence[PendingRequest], tell: Tell) -> None:
        started = perf_counter()
        self.compute(batch, tell)
        seconds, size = perf_counter() - started, _total_bytes(batch)
        if self.seconds == inf:
            self.seconds, self.bytes = seconds, size
        else:
            self.seconds += (seconds - self.seconds) / EMA_WINDOW_BATCHES
            self.bytes += (size - self.bytes) / EMA_WINDOW_BATCHES

    def _expected(self, batch: Sequence[PendingRequest]) -> float:
        """Seconds that a batch may take: as those before, and longer by as much as it is larger."""
        return self.seconds * max(1.0, _total_bytes(batch) / self.bytes)

    def _more(self) -> list[PendingRequest]:
        """What else waits."""
        found: list[PendingRequest] = []
        while len(found) < self.most - 1:
            try:
                waiting = self._queue.get_nowait()
            except Empty:
                break
            if waiting is None:  # the end, to be met by the loop
                self._queue.put(None)
                break
            found.append(waiting)
        return found


def _total_bytes(batch: Sequence[PendingRequest]) -> float:
    """Bytes; at least one."""
    return max(1.0, sum([waiting.request.size for waiting in batch]))


def _at_once(call: Callable[..., None], *args: Any) -> None:
    """Call from the event loop."""
    call(*args)
