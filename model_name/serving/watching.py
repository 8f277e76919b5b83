"""What is noted of each batch that was answered: in the metrics, and in the prediction log."""

from collections.abc import Sequence
from time import time

from model_name.serving.dataplane import DataPlane
from model_name.serving.predictions import AnsweredBatch, AnsweredRequest, PredictionLog
from model_name.serving.requests import Answered, Request
from model_name.serving.telemetry import Telemetry


class Watcher:
    """Told of each batch by the lane that computed it."""

    def __init__(self, telemetry: Telemetry, log: PredictionLog | None) -> None:
        """Note what happens.

        Args:
            telemetry: What is counted.
            log: Where the rows go, if they do.
        """
        self.telemetry = telemetry
        self.log = log
        self._written = 0
        if log is not None:
            log.on_drop = telemetry.log_dropped.inc

    def __call__(self, plane: DataPlane, requests: Sequence[Request], answered: Answered) -> None:
        """Note a batch."""
        self.telemetry.batch_requests.observe(len(requests))
        now = time()
        for group in answered.groups:
            self.telemetry.batch_rows.observe(len(group.outputs.prediction))
            if self.log is None:
                continue
            asked = tuple(
                AnsweredRequest(one.id, one.protocol, one.received, now - one.received, rows)
                for one, rows in zip(group.requests, group.rows, strict=True)
            )
            self.log.put(AnsweredBatch(plane.bundle.manifest, group.columns, group.outputs, asked))

    def start(self) -> None:
        """Begin to write."""
        if self.log is not None:
            self.log.start()

    def count(self) -> None:
        """Tell the metrics how far the log is."""
        if self.log is not None:
            written = self.log.written
            self.telemetry.log_written.inc(written - self._written)
            self._written = written

    def close(self, seconds: float) -> None:
        """Write what waits to be written."""
        if self.log is not None:
            self.log.close(seconds)
            self.count()
