"""Trace of a request: its ids, and when the phases of its batch began and ended."""

import re
from dataclasses import dataclass, field

from model_name.serving.bundle import Manifest

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
TRACERESPONSE = "traceresponse"
MAX_TRACEPARENT_CHARACTERS = 512
VALID_TRACEPARENT = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace_id>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<rest>-.*)?"
)


@dataclass(slots=True)
class RequestTrace:
    """Trace of a request, which its batch fills in and from which spans are made when the request ends.

    Attributes:
        trace_id: Id of the trace, in hexadecimal digits.
        headers: `traceparent`, and `tracestate` if there is one, for what is caused by the request.
        is_sampled: Whether the phases are needed, because the spans are exported.
        enqueued: Time at which the request was added to the queue; this and the other times are by `perf_counter`.
        phases: Start and end of each phase that the request has reached: queue, decode, compute, encode.
        rows: Number of rows that were predicted.
        batch_requests: Number of requests in the batch.
        manifest: Manifest of the model of the batch; None before the batch starts.
    """

    trace_id: str
    headers: dict[str, str]
    is_sampled: bool
    enqueued: float = 0.0
    phases: dict[str, tuple[float, float]] = field(default_factory=dict)
    rows: int = 0
    batch_requests: int = 0
    manifest: Manifest | None = None

    def start_batch(self, started: float, requests: int, manifest: Manifest) -> None:
        """Record that a batch starts with the request; what an earlier attempt recorded is dropped."""
        self.phases = {"queue": (self.enqueued, started)}
        self.batch_requests = requests
        self.manifest = manifest


def parse_trace_id(traceparent: str) -> str:
    """Return the id of the trace in a `traceparent` header of W3C Trace Context; empty if the header is invalid."""
    match = VALID_TRACEPARENT.fullmatch(traceparent[:MAX_TRACEPARENT_CHARACTERS])
    if match is None or (match["version"] == "00" and match["rest"]):
        return ""
    return match["trace_id"]
