"""Statistics of the batches of a model, as Triton's statistics extension defines them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic, time

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import BatchResult, InferenceRequest

MAX_LISTED_ROWS = 1024  # of a batch in the statistics by size, whose number is bounded so
MAX_VERSIONS = 2  # with statistics: batches of the previous version may end after the first one of the new version


@dataclass(slots=True)
class PhaseSeconds:
    """Number of batches of one size, and the time that their phases took.

    Attributes:
        count: Number of batches.
        decode: Seconds of decoding.
        predict: Seconds of validation, features, forward passes and decisions.
        encode: Seconds of encoding.
    """

    count: int = 0
    decode: float = 0.0
    predict: float = 0.0
    encode: float = 0.0


@dataclass(slots=True)
class VersionStatistics:
    """Statistics of one version of the model since it was first served.

    The times of requests are sums over requests: each has the whole time of its batch.

    Attributes:
        last_inference: Time of the last successful inference in Unix seconds; 0 before the first one.
        rows: Number of predicted rows.
        batches: Number of forward passes.
        succeeded: Number of requests with a prediction.
        success_seconds: Time from the message or body of these requests to their encoded responses.
        queue_seconds: Time for which they waited for their batch.
        phases: Number of these requests, and the time of each phase.
        failed: Number of requests whose batch ended in an error for them.
        fail_seconds: Time from their message or body to that error.
        by_rows: Batches by their number of rows, up to `MAX_LISTED_ROWS`.
    """

    last_inference: float = 0.0
    rows: int = 0
    batches: int = 0
    succeeded: int = 0
    success_seconds: float = 0.0
    queue_seconds: float = 0.0
    phases: PhaseSeconds = field(default_factory=PhaseSeconds)
    failed: int = 0
    fail_seconds: float = 0.0
    by_rows: dict[int, PhaseSeconds] = field(default_factory=dict)


class ModelStatistics:
    """Statistics by version of the model. Thread-safe; counts once per batch, in less than 2 µs."""

    def __init__(self) -> None:
        """Start without a batch."""
        self._lock = Lock()
        self._versions: dict[str, VersionStatistics] = {}

    def of_version(self, version: str) -> VersionStatistics:
        """Return the statistics of a version; those without a batch if it has had none."""
        return self._versions.get(version) or VersionStatistics()

    def add(self, version: str, requests: Sequence[InferenceRequest], result: BatchResult, started: float) -> None:
        """Add a batch, in any thread.

        Args:
            version: Version of the model.
            requests: Requests of the batch.
            result: Responses to them.
            started: Start of the batch by `monotonic`.
        """
        ended = monotonic()
        groups = result.groups
        if len(groups) == 1 and len(groups[0].requests) == len(requests):  # the common case
            succeeded: Sequence[InferenceRequest] = requests
        else:
            outcomes = zip(requests, result.responses, strict=True)  # explanations are in no group
            succeeded = [request for request, response in outcomes if not isinstance(response, ModelNameError)]
        count, failed = len(succeeded), len(requests) - len(succeeded)
        arrivals = sum([request.pending_since for request in succeeded])
        decode, encode = result.decode_seconds, result.encode_seconds
        predict = ended - started - decode - encode
        with self._lock:
            statistics = self._versions.get(version) or self._add_version(version)
            if count:
                statistics.last_inference = time()
                statistics.succeeded += count
                statistics.success_seconds += ended * count - arrivals
                statistics.queue_seconds += started * count - arrivals
                phases = statistics.phases
                phases.count += count
                phases.decode += decode * count
                phases.predict += predict * count
                phases.encode += encode * count
            if failed:
                all_arrivals = sum([request.pending_since for request in requests])
                statistics.failed += failed
                statistics.fail_seconds += ended * failed - (all_arrivals - arrivals)
            for group in groups:
                rows = len(group.outputs.prediction)
                statistics.rows += rows
                statistics.batches += 1
                if rows <= MAX_LISTED_ROWS:
                    by_rows = statistics.by_rows.get(rows)
                    if by_rows is None:
                        by_rows = statistics.by_rows[rows] = PhaseSeconds()
                    by_rows.count += 1
                    by_rows.decode += decode
                    by_rows.predict += predict
                    by_rows.encode += encode

    def _add_version(self, version: str) -> VersionStatistics:
        """Start the statistics of a version, and drop those of versions long before it."""
        while len(self._versions) >= MAX_VERSIONS:
            del self._versions[next(iter(self._versions))]
        return self._versions.setdefault(version, VersionStatistics())
