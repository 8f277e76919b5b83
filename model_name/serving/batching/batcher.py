"""Adaptive batching: all requests that are queued when an executor is free are inferred together."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from time import monotonic

from model_name.errors import BusyError, DependencyError, ModelNameError
from model_name.serving.batching.executor import (
    BatchExecutor,
    InferenceOutcome,
    InferenceResponse,
    PendingRequest,
    PendingRequests,
)
from model_name.serving.batching.requests import BatchResult, InferenceRequest, infer_batch
from model_name.serving.batching.statistics import ModelStatistics
from model_name.serving.byte_budget import ByteBudget
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.request_errors import ClientDisconnectedError, one_line
from model_name.serving.runtime.memory import trim_heap

logger = logging.getLogger("model_name.serving")

MEDIUM_BODY_BYTES = 8 * 1024  # size of a body from which a second thread should decode during the forward pass
LARGE_BODY_BYTES = 64 * 1024  # size of a body from which a request would delay others in its batch
MAX_MEDIUM_BATCH_SIZE = 8  # requests; a larger batch only delays the first of them
TRIM_THRESHOLD_BYTES = 2**20  # size of a body that leaves free heap memory worth returning
INLINE_BUDGET_SECONDS = 0.005  # for which a batch may block the event loop
WARN_INTERVAL_SECONDS = 60.0  # between two log lines about failures of the observer


InferBatch = Callable[[DataPlane, Sequence[InferenceRequest], Limits], BatchResult]
"""Infers a batch, in any thread."""
BatchCallback = Callable[[DataPlane, Sequence[InferenceRequest], BatchResult], None]
"""Observes a batch, in the thread that inferred it."""


class AdaptiveBatcher:
    """Infer small requests together, and large ones alone on another thread.

    Medium requests run on two threads: one decodes during the forward pass of the other, which
    releases the interpreter.

    Attributes:
        plane: Data plane of the next batch; it may be replaced at any time.
        limits: Limits of the queue and of a request.
        observe: Callback that receives each batch. An exception in it is logged and counted, and changes no response.
        compute: Function that infers a batch.
        budget: Budget of the bodies of all pending requests; transports also reserve what they are receiving.
        failed_observations: Number of batches for which the observer raised.
        statistics: Statistics of the batches, by version of the model.
    """

    def __init__(
        self,
        plane: DataPlane,
        limits: Limits,
        *,
        observe: BatchCallback = lambda *_: None,
        compute: InferBatch = infer_batch,
    ) -> None:
        """Start the executors.

        Args:
            plane: First data plane.
            limits: Limits of the queue and of a request.
            observe: Callback that receives each batch.
            compute: Function that infers a batch.
        """
        self.plane = plane
        self.limits = limits
        self.observe = observe
        self.compute = compute
        self.failed_observations = 0
        self.statistics = ModelStatistics()
        self._next_warning = 0.0
        self._warn_lock = Lock()
        self._needs_trim = False
        self.budget = ByteBudget(limits.queued_bytes)
        self._pending = PendingRequests(self.budget)
        max_medium = min(MAX_MEDIUM_BATCH_SIZE, limits.batch_requests)
        self._small = BatchExecutor(
            "small",
            limits.batch_requests,
            self._run_batch,
            self._pending,
            inline_budget_seconds=INLINE_BUDGET_SECONDS,
        )
        self._medium = BatchExecutor("medium", max_medium, self._run_batch, self._pending, threads=2)
        self._large = BatchExecutor("large", 1, self._run_batch, self._pending)
        self._executors = (self._small, self._medium, self._large)

    @property
    def queued(self) -> int:
        """Number of requests that wait for a batch."""
        return sum([executor.queue_depth for executor in self._executors])

    @property
    def pending(self) -> set[PendingRequest]:
        """Requests without an outcome, queued or being computed."""
        return self._pending.requests

    @property
    def pending_bytes(self) -> int:
        """Number of bytes that are reserved in the budget, also by transports."""
        return self.budget.used

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Infer a request in the next batch.

        Raises:
            BusyError: The queue is full.
            DependencyError: The response takes longer than `limits.answer_seconds`.
            ClientDisconnectedError: The client has closed its connection.
            ModelNameError: The request is invalid, or the model failed.
        """
        future: asyncio.Future[InferenceResponse] = asyncio.get_running_loop().create_future()
        pending = self.submit(request, partial(_set_future, future))
        try:
            return await future
        finally:
            self._pending.remove(pending)
            del pending, future  # a cycle: they refer to the error, and its traceback to this frame

    def submit(self, request: InferenceRequest, on_done: Callable[[InferenceOutcome], None]) -> PendingRequest:
        """Add a request to the next batch. Not thread-safe; call on the event loop.

        Args:
            request: Request to infer.
            on_done: Callback that receives the outcome as `infer` returns or raises it: once, later, on the event loop.

        Raises:
            BusyError: The queue is full, or the budget of bytes.
        """
        max_queued = self.limits.queued_requests
        if len(self._pending.requests) >= max_queued and self.queued >= max_queued:  # counting the queued takes longer
            raise BusyError("too many requests wait already; try again in a second")
        pending = PendingRequest(request, on_done)
        self._pending.add(pending)
        self._executor_for(request).enqueue(pending)
        return pending

    def evict_expired(self) -> None:
        """Fail requests that wait too long or whose client disconnected, and return free memory to the system.

        Not thread-safe; call on the event loop, each second.
        """
        if self._needs_trim:
            self._needs_trim = False
            trim_heap()
        oldest = monotonic() - self.limits.answer_seconds
        for pending in [*self._pending.requests]:
            if pending.request.is_disconnected:
                self._pending.resolve(pending, _disconnected())
            elif pending.request.pending_since < oldest:
                self._pending.resolve(pending, DependencyError("the answer takes too long"))

    def close(self, seconds: float | None = None) -> bool:
        """Run the queued requests and end the threads; return whether they have ended.

        Args:
            seconds: Time after which threads that still compute are left; None to wait until they have ended.
        """
        for executor in self._executors:
            executor.close()
        deadline = None if seconds is None else monotonic() + seconds
        ended = [
            executor.join(None if deadline is None else max(0.0, deadline - monotonic()))
            for executor in self._executors
        ]
        return all(ended)

    def _executor_for(self, request: InferenceRequest) -> BatchExecutor:
        if request.size <= MEDIUM_BODY_BYTES:
            return self._small
        return self._medium if request.size <= LARGE_BODY_BYTES else self._large

    def _run_batch(self, batch: Sequence[PendingRequest]) -> list[InferenceOutcome]:
        """Infer a batch without the requests whose clients disconnected, in any thread."""
        connected = [pending.request for pending in batch if not pending.is_disconnected]
        if len(connected) == len(batch):
            return self._infer(connected)
        outcomes = dict(zip(connected, self._infer(connected), strict=True))
        return [outcomes.get(pending.request) or _disconnected() for pending in batch]

    def _infer(self, requests: Sequence[InferenceRequest]) -> list[InferenceOutcome]:
        """Infer requests together; if the model raises, each of them alone."""
        if not requests:
            return []
        plane = self.plane
        started = monotonic()
        try:
            result = self.compute(plane, requests, self.limits)
        # The outermost loop of a server: whatever a model does to one batch, the next one is computed.
        except Exception as err:
            if len(requests) > 1:
                return [outcome for request in requests for outcome in self._infer([request])]
            logger.exception("request %s failed", one_line(requests[0].id))  # the client may have chosen it
            failure = _internal_error(err)
            self.statistics.add(plane.bundle.manifest.version, requests, BatchResult([failure]), started)
            return [failure]
        finally:  # not before: `evict_expired` may run meanwhile; large requests are alone in their batch
            self._needs_trim |= requests[0].size > TRIM_THRESHOLD_BYTES
        manifest = plane.bundle.manifest
        self.statistics.add(manifest.version, requests, result, started)
        self._observe_batch(plane, requests, result)
        return [
            _without_traceback(response)
            if isinstance(response, ModelNameError)
            else InferenceResponse(response, manifest)
            for response in result.responses
        ]

    def _observe_batch(self, plane: DataPlane, requests: Sequence[InferenceRequest], result: BatchResult) -> None:
        """Call the observer; count its failures, and log one per `WARN_INTERVAL_SECONDS`."""
        try:
            self.observe(plane, requests, result)
        # Whatever an observer raises, the responses are sent.
        except Exception:
            with self._warn_lock:
                self.failed_observations += 1
                is_due = monotonic() >= self._next_warning
                if is_due:
                    self._next_warning = monotonic() + WARN_INTERVAL_SECONDS
            if is_due:
                logger.exception(
                    "the observer failed for a batch, %d times so far; metrics or the prediction log lack it",
                    self.failed_observations,
                )


def _set_future(future: "asyncio.Future[InferenceResponse]", outcome: InferenceOutcome) -> None:
    if future.done():  # cancelled
        return
    if isinstance(outcome, ModelNameError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def _without_traceback(err: ModelNameError) -> ModelNameError:
    """Drop the traceback: its frames refer to the batch, which refers to the error and to all bodies."""
    err.__traceback__ = err.__cause__ = err.__context__ = None
    return err


def _internal_error(err: Exception) -> ModelNameError:
    return ModelNameError(f"the model failed: {type(err).__name__}")


def _disconnected() -> ClientDisconnectedError:
    return ClientDisconnectedError("the client has left")
