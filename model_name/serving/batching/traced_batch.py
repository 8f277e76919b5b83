"""Batches that record when their phases begin and end. They replace the others while requests are traced."""

from collections.abc import Mapping, Sequence
from time import perf_counter

from typing_extensions import override

from model_name.serving.batching.batcher import InferBatch
from model_name.serving.batching.request_trace import RequestTrace
from model_name.serving.batching.requests import (
    BatchResult,
    DecodedRequest,
    InferenceBatch,
    InferenceRequest,
    PredictedGroup,
    infer_batch,
)
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits


def trace_batches(infer: InferBatch) -> InferBatch:
    """Make the function that infers batches as another one does, and records their phases in the traced requests."""

    def infer_traced(plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> BatchResult:
        traces = sampled_traces(requests).values()
        if not traces:
            return infer(plane, requests, limits)
        if infer is infer_batch:
            return infer_batch(plane, requests, limits, TracedBatch)
        started = perf_counter()
        for trace in traces:
            trace.start_batch(started, len(requests), plane.bundle.manifest)
        try:
            return infer(plane, requests, limits)
        finally:
            ended = perf_counter()
            for trace in traces:
                trace.phases["compute"] = started, ended

    return infer_traced


def sampled_traces(requests: Sequence[InferenceRequest]) -> dict[int, RequestTrace]:
    """Select the traces of requests whose spans are exported, by position."""
    return {
        position: trace
        for position, request in enumerate(requests)
        if (trace := request.trace) is not None and trace.is_sampled
    }


class TracedBatch(InferenceBatch):
    """Batch that records its phases in its traced requests; requests that share a phase have the same times for it."""

    def __init__(self, plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> None:
        """Record that the requests no longer wait."""
        super().__init__(plane, requests, limits)
        self._traces = sampled_traces(requests)
        self._started = perf_counter()
        for trace in self._traces.values():
            trace.start_batch(self._started, len(requests), plane.bundle.manifest)

    @override
    def decode(self) -> Mapping[int, DecodedRequest]:
        decoded = super().decode()
        ended = perf_counter()
        for trace in self._traces.values():
            trace.phases["decode"] = self._started, ended
        return decoded

    @override
    def predict(self, positions: Sequence[int], level: float | None) -> None:
        """Predict some requests; if one is invalid and they are split, their phase starts with the first attempt."""
        started = perf_counter()
        traces = self._traces_at(positions)
        for trace in traces:
            trace.phases.setdefault("compute", (started, started))
        super().predict(positions, level)
        ended = perf_counter()
        for trace in traces:
            first, last = trace.phases["compute"]
            if last == first:  # neither `encode` nor a part of the split requests has set it: the request failed
                trace.phases["compute"] = first, ended

    @override
    def encode(self, positions: Sequence[int], group: PredictedGroup) -> None:
        started = perf_counter()
        super().encode(positions, group)
        ended = perf_counter()
        for position, rows in zip(positions, group.rows, strict=True):
            trace = self._traces.get(position)
            if trace is not None:
                trace.phases["compute"] = trace.phases["compute"][0], started
                trace.phases["encode"] = started, ended
                trace.rows = rows.stop - rows.start

    def _traces_at(self, positions: Sequence[int]) -> list[RequestTrace]:
        return [trace for position in positions if (trace := self._traces.get(position)) is not None]
