"""Requests are computed as many at once as have come: nobody waits for others to come.

What takes longer than a moment is computed off the event loop; `lanes.py` decides that.
"""

import asyncio
import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import partial
from time import time

from model_name.errors import BusyError, DependencyError, ModelNameError
from model_name.serving.batching.executor import Answer, Lane, Outcome, Tell, Waiting
from model_name.serving.batching.requests import Answered, Reply, Request, answer
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.request_errors import AbandonedError

logger = logging.getLogger("model_name.serving")

LIBC = ctypes.CDLL(None)
MEDIUM = 8 * 1024  # bytes of a body, from where on a forward pass is worth to be waited for by another thread
LARGE = 64 * 1024  # from where on it would keep others waiting
MEDIUM_REQUESTS = 8  # at once; more only have those answered late that came first
LITTER = 2**20  # bytes of a body that leaves memory to be given back
MOMENT = 0.005  # seconds for which the event loop may be held up


Compute = Callable[[DataPlane, Sequence[Request], Limits], Answered]
"""Answers a batch."""
Observer = Callable[[DataPlane, Sequence[Request], Answered], None]
"""What is told of each batch, in the thread that computed it."""


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


def give_back_memory() -> None:
    """Return to the system what a large request has used: the allocator of glibc would keep it."""
    if (trim := getattr(LIBC, "malloc_trim", None)) is not None:
        trim(0)


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
