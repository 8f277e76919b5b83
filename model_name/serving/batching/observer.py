"""Observer of batches: it updates the metrics and feeds the prediction log."""

from collections.abc import Iterable, Sequence
from time import monotonic

from model_name.serving.batching.requests import BatchResult, InferenceRequest, PredictedGroup
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.blocks import LoggedBatch
from model_name.serving.prediction_log.log import PredictionLog
from model_name.serving.server_metrics import ServerMetrics


def log_predictions(log: PredictionLog, manifest: Manifest, groups: Iterable[PredictedGroup]) -> None:
    """Add predictions that were just made to a prediction log."""
    finished_at = monotonic()
    for group in groups:
        log.put(LoggedBatch(manifest, group.requests, group.rows, group.inputs, group.outputs, finished_at))


class BatchObserver:
    """Batch callback of a server.

    Attributes:
        metrics: Metrics of the server.
        log: Prediction log, if the server has one.
    """

    def __init__(self, metrics: ServerMetrics, log: PredictionLog | None) -> None:
        """Connect the log to the metrics.

        Args:
            metrics: Metrics of the server.
            log: Prediction log, if the server has one.
        """
        self.metrics = metrics
        self.log = log
        self._written = 0
        self._cpu_seconds = 0.0
        if log is not None:
            metrics.bind_log(log)

    def __call__(self, plane: DataPlane, requests: Sequence[InferenceRequest], result: BatchResult) -> None:
        """Record a batch, in the thread that inferred it."""
        self.metrics.batch_requests.observe(len(requests))
        for group in result.groups:
            self.metrics.batch_rows.observe(len(group.outputs.prediction))
        if self.log is not None:
            log_predictions(self.log, plane.bundle.manifest, result.groups)

    def start(self) -> None:
        """Start the thread of the log."""
        if self.log is not None:
            self.log.start()

    def flush_metrics(self) -> None:
        """Add what was written since the last call to the metrics."""
        if self.log is not None:
            written, cpu_seconds = self.log.written, self.log.cpu_seconds
            self.metrics.log_written.inc(written - self._written)
            self.metrics.log_cpu_seconds.inc(cpu_seconds - self._cpu_seconds)
            self._written, self._cpu_seconds = written, cpu_seconds

    def close(self, seconds: float) -> None:
        """Write the buffered rows.

        Args:
            seconds: Time after which the rows that are left are dropped.
        """
        if self.log is not None:
            self.log.close(seconds)
            self.flush_metrics()
