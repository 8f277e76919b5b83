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
from model_name.serving.batching.executor import InferenceResponse, BatchExecutor, InferenceOutcome, Tell, PendingRequest
from model_name.serving.batching.requests import BatchResult, Payload, InferenceRequest, infer_batch
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.request_errors import ClientDisconnectedError

logger = logging.getLogger("model_name.serving")

LIBC = ctypes.CDLL(None)
MEDIUM_BODY_BYTES = 8 * 1024  # bytes of a body, from where on a forward pass is worth to be waited for by another thread
LARGE_BODY_BYTES = 64 * 1024  # from where on it would keep others waiting
MAX_MEDIUM_BATCH_SIZE = 8  # at once; more only have those answered late that came first
TRIM_THRESHOLD_BYTES = 2**20  # bytes of a body that leaves memory to be given back
INLINE_BUDGET_SECONDS = 0.005  # seconds for which the event loop may be held up


InferBatch = Callable[[DataPlane, Sequence[InferenceRequest], Limits], BatchResult]
"""Answers a batch."""
BatchCallback = Callable[[DataPlane, Sequence[InferenceRequest], BatchResult], None]
"""What is told of each batch, in the thread that computed it."""


class AdaptiveBatcher:
    """Small requests are computed together, large ones by themselves beside them.

    Those between are read by one thread while the forward pass of others, which needs no interpreter, runs in another.
    """

    def __init__(
        self, plane: DataPlane, limits: Limits, *, observe: BatchCallback = lambda *_: None, compute: InferBatch = infer_batch
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
        self.pending: set[PendingRequest] = set()
        self.pending_bytes = 0
        self._has_litter = False
        self._small = BatchExecutor("small", limits.batch_requests, self._compute, moment=INLINE_BUDGET_SECONDS)
        self._medium = BatchExecutor("medium", min(MAX_MEDIUM_BATCH_SIZE, limits.batch_requests), self._compute, threads=2)
        self._large = BatchExecutor("large", 1, self._compute)
        self._lanes = (self._small, self._medium, self._large)

    @property
    def queued(self) -> int:
        """How many requests wait to be computed."""
        return sum([lane.depth for lane in self._lanes])

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Wait for the answer to a request.

        Raises:
            BusyError: Too many wait already.
            DependencyError: It took too long.
            AbandonedError: The client has left.
            ModelNameError: The request is refused; the message says why.
        """
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        waiting = self.submit(request, partial(_set_future, future))
        try:
            return await future
        finally:
            self._forget(waiting)
            del waiting, future  # hold the error that is raised, which holds this frame

    def submit(self, request: InferenceRequest, tell: Callable[[InferenceOutcome], None]) -> PendingRequest:
        """Have a request answered; to be called on the event loop.

        Args:
            request: The request.
            tell: Called once with its answer, or with why there is none as of `infer_batch`; on the event loop, later.

        Raises:
            BusyError: Too many wait already.
        """
        if self.queued >= self.limits.queued_requests or (
            self.pending and self.pending_bytes + request.size > self.limits.queued_bytes
        ):
            raise BusyError("too many requests wait already; try again in a second")
        waiting = PendingRequest(request, tell)
        self.pending.add(waiting)
        self.pending_bytes += request.size
        self._lane_of(request).put(waiting)
        return waiting

    def evict_expired(self) -> None:
        """Give up on what waits too long or for nobody, and memory back; to be called on the event loop each second."""
        if self._has_litter:
            self._has_litter = False
            give_back_memory()
        oldest = time() - self.limits.answer_seconds
        for waiting in [*self.pending]:
            if waiting.request.is_disconnected:
                self._end(waiting, ClientDisconnectedError("the client has left"))
            elif waiting.request.received_at < oldest:
                self._end(waiting, DependencyError("the answer takes too long"))

    def close(self) -> None:
        """End the lanes after what they have been given."""
        for lane in self._lanes:
            lane.close()

    def _lane_of(self, request: InferenceRequest) -> "BatchExecutor":
        if request.size <= MEDIUM_BODY_BYTES:
            return self._small
        return self._medium if request.size <= LARGE_BODY_BYTES else self._large

    def _compute(self, batch: Sequence[PendingRequest], tell: Tell) -> None:
        """Answer a batch, in any thread."""
        gone = [waiting for waiting in batch if waiting.is_disconnected]
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
            answered = BatchResult([_internal_error(err)])
        self._has_litter |= batch[0].request.size > TRIM_THRESHOLD_BYTES
        tell(self._deliver, batch, answered.responses, plane.bundle.manifest)

    def _deliver(self, batch: Sequence[PendingRequest], replies: Sequence[Payload | ModelNameError], manifest: Manifest) -> None:
        for waiting, reply in zip(batch, replies, strict=True):
            self._end(waiting, _without_traceback(reply) if isinstance(reply, ModelNameError) else InferenceResponse(reply, manifest))

    def _release(self, gone: Sequence[PendingRequest]) -> None:
        for waiting in gone:
            self._end(waiting, ClientDisconnectedError("the client has left"))

    def _end(self, waiting: PendingRequest, outcome: InferenceOutcome) -> None:
        """Tell who waits, in a turn of the event loop of its own: what fails there is not the neighbours' trouble."""
        if not waiting.is_over:
            self._forget(waiting)
            asyncio.get_running_loop().call_soon(waiting.tell, outcome)

    def _forget(self, waiting: PendingRequest) -> None:
        if not waiting.is_over:
            waiting.is_over = True
            self.pending.discard(waiting)
            self.pending_bytes -= waiting.request.size


def give_back_memory() -> None:
    """Return to the system what a large request has used: the allocator of glibc would keep it."""
    if (trim := getattr(LIBC, "malloc_trim", None)) is not None:
        trim(0)


def _set_future(future: "asyncio.Future[InferenceResponse]", outcome: InferenceOutcome) -> None:
    if future.done():  # cancelled
        return
    if isinstance(outcome, ModelNameError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _without_traceback(err: ModelNameError) -> ModelNameError:
    """An error without what it came through: the frames hold the batch, which holds the error, and all its bodies."""
    err.__traceback__ = err.__cause__ = err.__context__ = None
    return err


def _internal_error(err: Exception) -> ModelNameError:
    return ModelNameError(f"the model failed: {type(err).__name__}")
