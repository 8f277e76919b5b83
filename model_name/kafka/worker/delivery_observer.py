"""Count delivered batches, log their dead letters and write their predictions to the prediction log."""

from dataclasses import dataclass
from math import inf
from time import monotonic, time

from loguru import logger

from model_name.kafka.worker.processor import ProcessedBatch
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.serving.batching.observer import log_predictions
from model_name.serving.bundle import Manifest
from model_name.serving.prediction_log.log import PredictionLog

WARN_INTERVAL_SECONDS = 10.0  # between two log lines about dead letters


@dataclass(slots=True)
class WorkerStats:
    """Totals of a worker since its start.

    Attributes:
        predicted: Records with a result.
        dead_letters: Records without a result.
        batches: Batches that were delivered.
        failures: Batches that failed and were polled again.
    """

    predicted: int = 0
    dead_letters: int = 0
    batches: int = 0
    failures: int = 0


class DeliveryObserver:
    """Records what a worker has delivered: totals, metrics, log lines and the prediction log.

    Attributes:
        stats: Totals since the start.
    """

    def __init__(self, manifest: Manifest, metrics: WorkerMetrics, log: PredictionLog | None) -> None:
        """Create an observer with totals of zero.

        Args:
            manifest: Manifest of the model that predicts.
            metrics: Metrics to update.
            log: Prediction log, if there is one.
        """
        self.stats = WorkerStats()
        self._manifest, self._metrics, self._log = manifest, metrics, log
        self._last_warned, self._unreported = -inf, 0

    def on_delivered(self, processed: ProcessedBatch, seconds: float) -> None:
        """Record a committed batch.

        Args:
            processed: Results and failures of the batch.
            seconds: Duration of its delivery.
        """
        dead_letters = len(processed.failed)
        self.stats.predicted += len(processed.requests) - dead_letters
        self.stats.dead_letters += dead_letters
        self.stats.batches += 1
        self._metrics.observe_batch(processed, seconds, time())
        if processed.failed:
            self._log_dead_letters(processed)
        if self._log is not None:
            log_predictions(self._log, self._manifest, processed.groups)

    def on_failure(self) -> None:
        """Record a batch that failed."""
        self.stats.failures += 1
        self._metrics.failures.inc()

    def _log_dead_letters(self, processed: ProcessedBatch) -> None:
        """Log one dead letter with its reason; those of the next ten seconds are only counted, in the next line."""
        self._unreported += len(processed.failed)
        if monotonic() - self._last_warned < WARN_INTERVAL_SECONDS:
            return
        position, (error, _) = next(iter(processed.failed.items()))
        source, reason = processed.requests[position].source, str(error).partition("\n")[0]
        others = f" ({self._unreported - 1:,} more since the last warning)" if self._unreported > 1 else ""
        logger.warning("{} is a dead letter: {}{}", source, reason, others)
        self._last_warned, self._unreported = monotonic(), 0
