"""Define the Prometheus metrics of a worker. No label value comes from a client."""

from collections.abc import Mapping

from kafka import TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from model_name.kafka.worker.processor import ProcessedBatch
from model_name.serving.bundle import Manifest
from model_name.serving.prediction_log.log import PredictionLog
from model_name.serving.server_metrics import BATCH_SIZE_BUCKETS, LATENCY_BUCKETS_SECONDS

END_TO_END_BUCKETS_SECONDS = (*LATENCY_BUCKETS_SECONDS, 60, 300, 1800, 7200)


class WorkerMetrics:
    """Metrics of one worker.

    Attributes:
        registry: Registry of these metrics alone.
        slot: Slot of the deployment, a label of the model info.
    """

    def __init__(self, slot: str) -> None:
        """Register the metrics."""
        self.registry = registry = CollectorRegistry()
        self.slot = slot
        self.records = Counter(
            "model_name_kafka_records",
            "Committed records, by result.",
            ["result"],
            registry=registry,
        )
        self.rows = Counter("model_name_kafka_rows", "Rows that were predicted and committed.", registry=registry)
        self.failures = Counter(
            "model_name_kafka_failed_batches", "Batches that failed and were polled again.", registry=registry
        )
        self.lag = Gauge(
            "model_name_kafka_lag", "Uncommitted records of a partition.", ["partition"], registry=registry
        )
        self.batch_records = Histogram(
            "model_name_kafka_batch_records", "Records per commit.", buckets=BATCH_SIZE_BUCKETS[:12], registry=registry
        )
        self.predict_seconds = Histogram(
            "model_name_kafka_predict_seconds",
            "Duration of predicting a batch.",
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self.deliver_seconds = Histogram(
            "model_name_kafka_deliver_seconds",
            "Duration of writing and committing a batch.",
            buckets=LATENCY_BUCKETS_SECONDS,
            registry=registry,
        )
        self.latency_seconds = Histogram(
            "model_name_kafka_latency_seconds",
            "Time from the timestamp of the oldest record of a batch to the commit of its results.",
            buckets=END_TO_END_BUCKETS_SECONDS,
            registry=registry,
        )
        self.log_dropped = Counter(
            "model_name_log_dropped_rows",
            "Rows that the prediction log dropped.",
            registry=registry,
        )
        self._log_waiting = Gauge(
            "model_name_log_waiting_rows", "Rows that wait to be written to the prediction log.", registry=registry
        )
        self._log_probability = Gauge(
            "model_name_log_sampling_probability",
            "Probability with which the prediction log samples a record now; 0 without a log.",
            registry=registry,
        )
        self.info = Gauge(
            "model_name_model_info", "1.", ["name", "semver", "version", "run_id", "slot"], registry=registry
        )
        for result in ("predicted", "dead_letter"):
            self.records.labels(result)

    def bind_log(self, log: PredictionLog) -> None:
        """Export what a prediction log drops and the state that it has when the metrics are scraped."""
        log.on_drop = self.log_dropped.inc
        self._log_waiting.set_function(lambda: log.waiting)
        self._log_probability.set_function(lambda: log.probability)

    def set_model_info(self, manifest: Manifest) -> None:
        """Set the labels of the served model."""
        self.info.labels(manifest.name, manifest.semver, manifest.version, manifest.run_id, self.slot).set(1)

    def observe_batch(self, processed: ProcessedBatch, seconds: float, now: float) -> None:
        """Count a committed batch.

        Args:
            processed: Results and failures of the batch.
            seconds: Duration of its delivery.
            now: Time of the commit, in seconds since 1970.
        """
        dead_letters = len(processed.failed)
        self.records.labels("predicted").inc(len(processed.requests) - dead_letters)
        self.records.labels("dead_letter").inc(dead_letters)
        self.rows.inc(sum(len(group.outputs.prediction) for group in processed.groups))
        self.batch_records.observe(len(processed.requests))
        self.predict_seconds.observe(processed.seconds)
        self.deliver_seconds.observe(seconds)
        oldest = min(request.record.timestamp for request in processed.requests)
        self.latency_seconds.observe(max(0.0, now - oldest / 1000))

    def set_lag(self, lags: Mapping[TopicPartition, int]) -> None:
        """Set the lag of the assigned partitions and remove that of all others."""
        self.lag.clear()
        for partition, lag in lags.items():
            self.lag.labels(str(partition.partition)).set(lag)
