"""What a worker tells Prometheus. No label takes a value that a client chooses."""

from collections.abc import Mapping

from kafka import TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from model_name.kafka.worker.processor import ProcessedBatch
from model_name.serving.bundle import Manifest
from model_name.serving.server_metrics import SECONDS, SIZES

LATENCY_BUCKETS = (*SECONDS, 60, 300, 1800, 7200)


class WorkerMetrics:
    """The metrics of one worker."""

    def __init__(self, slot: str) -> None:
        """Register them."""
        self.registry = registry = CollectorRegistry()
        self.slot = slot
        self.records = Counter(
            "model_name_kafka_records",
            "Records that were delivered, by what became of them.",
            ["result"],
            registry=registry,
        )
        self.rows = Counter("model_name_kafka_rows", "Rows that were predicted and delivered.", registry=registry)
        self.failures = Counter(
            "model_name_kafka_failed_batches", "Batches that were not delivered and are read again.", registry=registry
        )
        self.lag = Gauge(
            "model_name_kafka_lag", "Records of a partition that are not delivered.", ["partition"], registry=registry
        )
        self.batch = Histogram(
            "model_name_kafka_batch_records", "Records that shared a commit.", buckets=SIZES[:12], registry=registry
        )
        self.predicting = Histogram(
            "model_name_kafka_predict_seconds", "To predict a batch.", buckets=SECONDS, registry=registry
        )
        self.delivering = Histogram(
            "model_name_kafka_deliver_seconds", "To write a batch and to commit it.", buckets=SECONDS, registry=registry
        )
        self.latency = Histogram(
            "model_name_kafka_latency_seconds",
            "From the time of the oldest record of a batch to the commit of the results.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.log_dropped = Counter(
            "model_name_log_dropped_rows",
            "Rows that the prediction log had no room or no place for.",
            registry=registry,
        )
        self.info = Gauge(
            "model_name_model_info", "1.", ["name", "semver", "version", "run_id", "slot"], registry=registry
        )
        for result in ("predicted", "dead_letter"):
            self.records.labels(result)

    def serve(self, manifest: Manifest) -> None:
        """Say which model it is."""
        self.info.labels(manifest.name, manifest.semver, manifest.version, manifest.run_id, self.slot).set(1)

    def delivered(self, predicted: ProcessedBatch, seconds: float, now: float) -> None:
        """Count a batch.

        Args:
            predicted: What became of it.
            seconds: That its delivery took.
            now: In seconds since 1970.
        """
        dead = len(predicted.failed)
        self.records.labels("predicted").inc(len(predicted.requests) - dead)
        self.records.labels("dead_letter").inc(dead)
        self.rows.inc(sum(len(group.outputs.prediction) for group in predicted.groups))
        self.batch.observe(len(predicted.requests))
        self.predicting.observe(predicted.seconds)
        self.delivering.observe(seconds)
        oldest = min(request.record.timestamp for request in predicted.requests)
        self.latency.observe(max(0.0, now - oldest / 1000))

    def behind(self, lags: Mapping[TopicPartition, int]) -> None:
        """Say how far behind the present partitions are, and no others."""
        self.lag.clear()
        for partition, lag in lags.items():
            self.lag.labels(str(partition.partition)).set(lag)
