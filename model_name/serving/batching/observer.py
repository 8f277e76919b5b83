"""What is noted of each batch that was answered: in the metrics, and in the prediction log."""

from collections.abc import Iterable, Sequence
from time import time

from model_name.serving.batching.requests import BatchResult, PredictedGroup, InferenceRequest
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import LoggedBatch, LoggedRequest, PredictionLog
from model_name.serving.server_metrics import ServerMetrics


def log_predictions(log: PredictionLog, manifest: Manifest, groups: Iterable[PredictedGroup]) -> None:
    """Have the log write what is answered just now."""
    now = time()
    for group in groups:
        # A list is sooner made than what a generator gives, and this is done for each request.
        asked = [
            LoggedRequest(one.id, one.protocol, one.received_at, now - one.received_at, rows)
            for one, rows in zip(group.requests, group.rows, strict=True)
        ]
        log.put(LoggedBatch(manifest, group.columns, group.outputs, asked))


class BatchObserver:
    """Told of each batch by the lane that computed it."""

    def __init__(self, metrics: ServerMetrics, log: PredictionLog | None) -> None:
        """Note what happens.

        Args:
            telemetry: What is counted.
            log: Where the rows go, if they do.
        """
        self.metrics = metrics
        self.log = log
        self._written = 0
        if log is not None:
            log.on_drop = metrics.log_dropped.inc

    def __call__(self, plane: DataPlane, requests: Sequence[InferenceRequest], answered: BatchResult) -> None:
        """Note a batch."""
        self.metrics.batch_requests.observe(len(requests))
        for group in answered.groups:
            self.metrics.batch_rows.observe(len(group.outputs.prediction))
        if self.log is not None:
            log_predictions(self.log, plane.bundle.manifest, answered.groups)

    def start(self) -> None:
        """Begin to write."""
        if self.log is not None:
            self.log.start()

    def flush_metrics(self) -> None:
        """Tell the metrics how far the log is."""
        if self.log is not None:
            written = self.log.written
            self.metrics.log_written.inc(written - self._written)
            self._written = written

    def close(self, seconds: float) -> None:
        """Write what waits to be written."""
        if self.log is not None:
            self.log.close(seconds)
            self.flush_metrics()
