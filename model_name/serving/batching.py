"""Requests are computed as many at once as have come: nobody waits for others to come.

What takes longer than a moment is computed off the event loop. A batch of small requests usually takes less, and then
handing it to a thread and back would cost a third of the throughput; see `Lane`.
"""

import asyncio
import ctypes
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter, time
from typing import Any, NamedTuple

from model_name.errors import BusyError, DependencyError, ModelNameError
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.refusals import AbandonedError
from model_name.serving.requests import Answered, Reply, Request, answer

logger = logging.getLogger("model_name.serving")

LIBC = ctypes.CDLL(None)
MEDIUM = 8 * 1024  # bytes of a body, from where on a forward pass is worth to be waited for by another thread
LARGE = 64 * 1024  # from where on it would keep others waiting
MEDIUM_REQUESTS = 8  # at once; more only have those answered late that came first
LITTER = 2**20  # bytes of a body that leaves memory to be given back
MOMENT = 0.005  # seconds for which the event loop may be held up
REACH = 5  # batches back, about, that their mean goes


class Answer(NamedTuple):
    """A reply, and what it was made by."""

    reply: Reply
    manifest: Manifest


Outcome = Answer | ModelNameError
"""An answer, or why there is none."""


@dataclass(slots=True, eq=False)
class Waiting:
    """A request, and who waits for its answer.

    Attributes:
        request: The request.
        tell: Called once with what becomes of it, on the event loop.
        is_over: Whether nobody waits any more.
    """

    request: Request
    tell: Callable[[Outcome], None]
    is_over: bool = False

    @property
    def is_abandoned(self) -> bool:
        """Whether an answer would reach nobody."""
        return self.is_over or self.request.is_abandoned


Compute = Callable[[DataPlane, Sequence[Request], Limits], Answered]
"""Answers a batch."""
Observer = Callable[[DataPlane, Sequence[Request], Answered], None]
"""What is told of each batch, in the thread that computed it."""
Tell = Callable[..., None]
"""Calls a function with arguments, on the event loop."""


class Batcher:
    """Small requests are computed together, large ones by themselves beside them.

    Those between are read by one thread while the forward pass of others, which needs no interpreter, runs in another.
    """

    def __init__(
        self, plane: DataPlane, limits: Limits, *, observe: Observer = lambda *_: None, compute: Compute = answer
    ) -> None:
        """Answer from a data plane, which may be replaced: the next batch is computed by the new one.

        Args:
            plane: What answers first.
            limits: How much may wait.
            observe: Told of each batch.
            compute: Answers a batch.
        """
        self.plane = plane
        self.limits = limits
        self.observe = observe
        self.compute = compute
        self.waiting: set[Waiting] = set()
        self.waiting_bytes = 0
        self._has_litter = False
        self._small = Lane("small", limits.batch_requests, self._compute, moment=MOMENT)
        self._medium = Lane("medium", min(MEDIUM_REQUESTS, limits.batch_requests), self._compute, threads=2)
        self._large = Lane("large", 1, self._compute)
        self._lanes = (self._small, self._medium, self._large)

    @property
    def queued(self) -> int:
        """How many requests wait to be computed."""
        return sum([lane.depth for lane in self._lanes])

    async def answer(self, request: Request) -> Answer:
        """Wait for the answer to a request.

        Raises:
            BusyError: Too many wait already.
            DependencyError: It took too long.
            AbandonedError: The client has left.
            ModelNameError: The request is refused; the message says why.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = self.submit(request, partial(_settle, future))
        try:
            return await future
        finally:
            self._forget(waiting)
            del waiting, future  # hold the error that is raised, which holds this frame

    def submit(self, request: Request, tell: Callable[[Outcome], None]) -> Waiting:
        """Have a request answered; to be called on the event loop.

        Args:
            request: The request.
            tell: Called once with its answer, or with why there is none as of `answer`; on the event loop, later.

        Raises:
            BusyError: Too many wait already.
        """
        if self.queued >= self.limits.queued_requests or (
            self.waiting and self.waiting_bytes + request.size > self.limits.queued_bytes
        ):
            raise BusyError("too many requests wait already; try again in a second")
        waiting = Waiting(request, tell)
        self.waiting.add(waiting)
        self.waiting_bytes += request.size
        self._lane_of(request).put(waiting)
        return waiting

    def tidy(self) -> None:
        """Give up on what waits too long or for nobody, and memory back; to be called on the event loop each second."""
        if self._has_litter:
            self._has_litter = False
            give_back_memory()
        oldest = time() - self.limits.answer_seconds
        for waiting in [*self.waiting]:
            if waiting.request.is_abandoned:
                self._end(waiting, AbandonedError("the client has left"))
            elif waiting.request.received < oldest:
                self._end(waiting, DependencyError("the answer takes too long"))

    def close(self) -> None:
        """End the lanes after what they have been given."""
        for lane in self._lanes:
            lane.close()

    def _lane_of(self, request: Request) -> "Lane":
        if request.size <= MEDIUM:
            return self._small
        return self._medium if request.size <= LARGE else self._large

    def _compute(self, batch: Sequence[Waiting], tell: Tell) -> None:
        """Answer a batch, in any thread."""
        gone = [waiting for waiting in batch if waiting.is_abandoned]
        if gone:  # what they sent counts until they are told
            tell(self._release, gone)
        batch = [waiting for waiting in batch if waiting not in gone]
        if not batch:
            return
        plane = self.plane
        requests = [waiting.request for waiting in batch]
        try:
            answered = self.compute(plane, requests, self.limits)
            self.observe(plane, requests, answered)
        # The outermost loop of a server: whatever a model does to one batch, the next one is computed.
        except Exception as err:
            if len(batch) > 1:
                for waiting in batch:
                    self._compute([waiting], tell)
                return
            logger.exception("request %s failed", requests[0].id)
            answered = Answered([_failure(err)])
        self._has_litter |= batch[0].request.size > LITTER
        tell(self._deliver, batch, answered.replies, plane.bundle.manifest)

    def _deliver(self, batch: Sequence[Waiting], replies: Sequence[Reply | ModelNameError], manifest: Manifest) -> None:
        for waiting, reply in zip(batch, replies, strict=True):
            self._end(waiting, _bare(reply) if isinstance(reply, ModelNameError) else Answer(reply, manifest))

    def _release(self, gone: Sequence[Waiting]) -> None:
        for waiting in gone:
            self._end(waiting, AbandonedError("the client has left"))

    def _end(self, waiting: Waiting, outcome: Outcome) -> None:
        """Tell who waits, in a turn of the event loop of its own: what fails there is not the neighbours' trouble."""
        if not waiting.is_over:
            self._forget(waiting)
            asyncio.get_running_loop().call_soon(waiting.tell, outcome)

    def _forget(self, waiting: Waiting) -> None:
        if not waiting.is_over:
            waiting.is_over = True
            self.waiting.discard(waiting)
            self.waiting_bytes -= waiting.request.size


class Lane:
    """Takes what waits, computes it, and takes what has come meanwhile: in threads of its own, or on the event loop.

    A thread waits for the interpreter while the event loop has it, and the event loop while the thread has it. So what
    is over in a moment is computed where it came, once the batches before have shown that it is.
    """

    def __init__(
        self,
        name: str,
        most: int,
        compute: Callable[[Sequence[Waiting], Tell], None],
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
        self._queue: SimpleQueue[Waiting | None] = SimpleQueue()
        self._gathered: list[Waiting] = []
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

    def put(self, waiting: Waiting) -> None:
        """Have one computed, with those that the event loop has at hand; to be called from there."""
        self._gathered.append(waiting)
        self._turns = waiting.request.turns
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

    def _timed(self, batch: Sequence[Waiting], tell: Tell) -> None:
        started = perf_counter()
        self.compute(batch, tell)
        seconds, size = perf_counter() - started, _size(batch)
        if self.seconds == inf:
            self.seconds, self.bytes = seconds, size
        else:
            self.seconds += (seconds - self.seconds) / REACH
            self.bytes += (size - self.bytes) / REACH

    def _expected(self, batch: Sequence[Waiting]) -> float:
        """Seconds that a batch may take: as those before, and longer by as much as it is larger."""
        return self.seconds * max(1.0, _size(batch) / self.bytes)

    def _more(self) -> list[Waiting]:
        """What else waits."""
        found: list[Waiting] = []
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


def give_back_memory() -> None:
    """Return to the system what a large request has used: the allocator of glibc would keep it."""
    if (trim := getattr(LIBC, "malloc_trim", None)) is not None:
        trim(0)


def _size(batch: Sequence[Waiting]) -> float:
    """Bytes; at least one."""
    return max(1.0, sum([waiting.request.size for waiting in batch]))


def _at_once(call: Callable[..., None], *args: Any) -> None:
    """Call from the event loop."""
    call(*args)


def _settle(future: "asyncio.Future[Answer]", outcome: Outcome) -> None:
    if future.done():  # cancelled
        return
    if isinstance(outcome, ModelNameError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _bare(err: ModelNameError) -> ModelNameError:
    """An error without what it came through: the frames hold the batch, which holds the error, and all its bodies."""
    err.__traceback__ = err.__cause__ = err.__context__ = None
    return err


def _failure(err: Exception) -> ModelNameError:
    return ModelNameError(f"the model failed: {type(err).__name__}")
