"""A member of the consumer group that polls records, predicts them and delivers the results until it is stopped.

Three threads work on consecutive batches, so that the next batch is polled and processed while the last one is
committed: the caller's thread polls and decides, one thread processes, one delivers (`BatchPipeline`). There is one way
to recover, whatever failed: all batches in flight are cancelled, and polling resumes from the committed offsets.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, repeat
from threading import Event
from time import monotonic

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from loguru import logger
from typing_extensions import override

from model_name.errors import DependencyError
from model_name.kafka.client import KafkaClientFactory, cluster_error, format_error, translate_errors
from model_name.kafka.producers import FENCED_ERRORS, RecordsRejectedError
from model_name.kafka.records import ConsumerRecord
from model_name.kafka.worker.delivery import AtLeastOnceDelivery, Delivery, ExactlyOnceDelivery, to_offset_metadata
from model_name.kafka.worker.delivery_observer import DeliveryObserver, WorkerStats
from model_name.kafka.worker.pipeline import Batch, BatchPipeline, StaleBatchError
from model_name.kafka.worker.processor import ProcessedBatch, RecordProcessor, TopicRouter
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.kafka.worker.worker_settings import WorkerSettings
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import PredictionLog

POLL_SECONDS = 0.5  # longest wait of a poll, and so of a stop signal
OFFSET_TIMEOUT_MS = 10_000  # to read or commit an offset
LAG_INTERVAL_SECONDS = 1.0  # between two updates of the lag metric
PING_TIMEOUT_MS = 2000
RETRY_BACKOFF_SECONDS = (0.1, 0.3, 1.0, 2.0)  # before each attempt to recover; the last one repeats
MAX_CONSECUTIVE_FAILURES = 5  # of errors that retrying may never cure
MAX_FETCH_BYTES = 16 * 2**20  # fetched and not yet polled, from each broker
UNREACHABLE_ERRORS = (
    kafka_errors.KafkaTimeoutError,
    kafka_errors.KafkaConnectionError,
    kafka_errors.NodeNotReadyError,
)
"""Errors of a broker that does not respond."""

FATAL_ERRORS = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.InvalidTransactionTimeoutError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InconsistentGroupProtocolError,
)
"""Errors that retrying does not cure."""


class Worker:
    """One member of the consumer group.

    Attributes:
        settings: Settings of the worker.
        clients: Factory of the clients of the cluster.
        metrics: Metrics of the worker.
        consumer: Consumer of the input topic.
        delivery: Delivery of the results.
        pipeline: Batches in flight.
        is_ready: Whether the worker has joined the group.
        is_broker_down: Whether the broker did not respond when it was last contacted.
    """

    def __init__(
        self,
        plane: DataPlane,
        settings: WorkerSettings,
        clients: KafkaClientFactory,
        metrics: WorkerMetrics,
        log: PredictionLog | None = None,
    ) -> None:
        """Connect to the cluster and check that the topics exist.

        Args:
            plane: Data plane that predicts; it should be warm.
            settings: Settings of the worker, including the name of its instance.
            clients: Factory of the clients of the cluster.
            metrics: Metrics to update.
            log: Prediction log, if there is one.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
            NotFoundError: A topic does not exist.
        """
        self.settings = settings
        self.clients = clients
        self.metrics = metrics
        self.is_ready = self.is_broker_down = False
        partitions = clients.partition_counts([settings.input, settings.output, settings.dead_letter])
        self.consumer = self._create_consumer()
        with translate_errors(clients.servers):
            delivery_type = ExactlyOnceDelivery if settings.is_exact else AtLeastOnceDelivery
            self.delivery: Delivery = delivery_type(clients, settings, self.consumer)
        self.pipeline = BatchPipeline(
            RecordProcessor(plane, settings.limits),
            TopicRouter(settings.output, settings.dead_letter, partitions[settings.input], partitions),
            self.delivery,
            timeout_seconds=settings.transaction_seconds,
            on_delivered=self._on_delivered,
        )
        self._observer = DeliveryObserver(plane.bundle.manifest, metrics, log)
        self._consecutive_failures = 0
        self._last_step = self._last_contact = monotonic()
        self._last_lag_update = 0.0
        self._needs_seek = True  # the assignment has changed: polling must resume from the committed offsets
        self._positions: dict[TopicPartition, int] = {}  # committed, of the present assignment

    @property
    def stats(self) -> WorkerStats:
        """Totals since the start."""
        return self._observer.stats

    @property
    def seconds_since_progress(self) -> float:
        """Seconds since the last step, or since the oldest batch in flight was submitted."""
        return monotonic() - min(self._last_step, self.pipeline.oldest_submission)

    def run(self, stop: Event) -> None:
        """Poll, predict and deliver until `stop` is set, then leave the group.

        Args:
            stop: Event that ends the worker; batches in flight are delivered first.

        Raises:
            DependencyError: The cluster rejects what the worker needs.
        """
        self.consumer.subscribe([self.settings.input], listener=RebalanceListener(self))
        try:
            # A group leader without metadata of the topic assigns no partitions.
            with translate_errors(self.clients.servers):
                self.consumer.partitions_for_topic(self.settings.input)
            while not stop.is_set():
                self.step(stop)
        finally:
            self.shutdown()

    def step(self, stop: Event) -> None:
        """Collect delivered batches, poll the next one, and recover from failures.

        Raises:
            DependencyError: The cluster rejects what the worker needs.
        """
        self._last_step = monotonic()
        try:
            self._collect_delivered()
            if self.pipeline.is_stalled:
                raise kafka_errors.KafkaTimeoutError("the broker does not answer")
            if self._needs_seek and self.pipeline.is_empty:
                self._seek_to_committed()
            if not self._needs_seek and not self.pipeline.is_full:
                self._submit_batch(self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000)))
            elif not self.pipeline.is_empty and not self.pipeline.wait_for_oldest(POLL_SECONDS):
                self._poll_paused()
            if self.pipeline.is_empty and monotonic() - self._last_contact > self.settings.session_seconds / 2:
                self._ping_coordinator()
        except FATAL_ERRORS as err:
            raise cluster_error(self.clients.servers, err) from err
        except RecordsRejectedError as err:  # even a dead letter without value and headers
            raise DependencyError(f"{self.settings.dead_letter}: takes no dead letter: {err}") from err
        except Exception as err:  # noqa: BLE001  the outermost loop: any failure of a broker is retried
            self._recover(err, stop)

    def shutdown(self) -> None:
        """Deliver the batches in flight, leave the group and close all clients."""
        undelivered = self.pipeline.drain(self.settings.stop_seconds)
        if undelivered:
            logger.warning("{} batches were not delivered; other workers will process them", undelivered)
        try:
            self.consumer.close(autocommit=False, timeout_ms=1000)
        except kafka_errors.KafkaError as err:
            logger.warning("leaving the group failed: {}", format_error(err))
        self.delivery.close(0 if undelivered else 1)

    def on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Record a new assignment of partitions."""
        self.is_ready = self._needs_seek = True
        self._positions.clear()
        names = ", ".join(f"{one.topic}[{one.partition}]" for one in sorted(partitions))
        logger.info("assigned partitions: {}", names or "none")

    def _create_consumer(self) -> KafkaConsumer:
        settings = self.settings
        return self.clients.create_consumer(
            group_id=settings.group,
            client_id=settings.instance,
            auto_offset_reset="earliest",  # where the committed offset has been deleted by retention
            max_poll_records=settings.max_poll_records,
            session_timeout_ms=int(settings.session_seconds * 1000),
            heartbeat_interval_ms=int(settings.session_seconds * 1000 / 4),
            partition_assignment_strategy=[StickyPartitionAssignor],
            fetch_max_bytes=MAX_FETCH_BYTES,
            max_partition_fetch_bytes=max(settings.max_record_bytes, 2**20),
        )

    def _submit_batch(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Submit polled records to the pipeline, unless the group was rebalanced during the poll."""
        member = self.consumer.group_metadata()
        if records and not self._needs_seek and member.generation_id < 0:
            self._needs_seek = True  # expelled just now; the broker accepts offsets without a generation from anybody
        if self._needs_seek:
            return
        if records:
            self.pipeline.submit(records, member)
        if monotonic() - self._last_lag_update > LAG_INTERVAL_SECONDS:
            self._update_lag()

    def _update_lag(self) -> None:
        """Set the lag metric of the assigned partitions from the last fetch responses."""
        self._last_lag_update = monotonic()
        ends = {partition: self.consumer.highwater(partition) for partition in self.consumer.assignment()}
        self.metrics.set_lag(
            {partition: end - self._positions.get(partition, end) for partition, end in ends.items() if end is not None}
        )

    def _on_delivered(self, batch: Batch, processed: ProcessedBatch, seconds: float) -> None:
        """Record a committed batch; runs on the thread that delivers."""
        self._positions.update(batch.offsets)
        self._observer.on_delivered(processed, seconds)

    def _collect_delivered(self) -> None:
        """Collect the delivered batches.

        Raises:
            KafkaError: The delivery of a batch failed.
        """
        while self.pipeline.collect_next():
            self._consecutive_failures = 0
            self._mark_broker_up()

    def _poll_paused(self, seconds: float = 0.0) -> None:
        """Poll with all partitions paused, while the pipeline is full: a slow model must not lose its partitions."""
        assigned = self.consumer.assignment()
        self.consumer.pause(*assigned)
        try:
            self._submit_batch(self.consumer.poll(timeout_ms=int(seconds * 1000)))
        finally:
            with suppress(kafka_errors.KafkaError, KeyError):
                self.consumer.resume(*assigned & self.consumer.assignment())

    def _ping_coordinator(self) -> None:
        """Contact the coordinator of the group, since no delivery shows that it responds."""
        self._last_contact = monotonic()
        try:
            self.consumer.committed(TopicPartition(self.settings.input, 0), timeout_ms=PING_TIMEOUT_MS)
        except FATAL_ERRORS:
            raise
        except kafka_errors.KafkaError as err:
            if not self.is_broker_down:
                logger.warning("the broker does not respond: {}", format_error(err))
            self.is_broker_down = True
            return
        self._mark_broker_up()

    def _mark_broker_up(self) -> None:
        """Record that the broker responds."""
        self._last_contact = monotonic()
        if self.is_broker_down:
            logger.info("the broker responds again")
            self.is_broker_down = False

    def _recover(self, error: BaseException, stop: Event) -> None:
        """Cancel the batches in flight and resume from the committed offsets, as soon as the cluster allows it.

        Raises:
            DependencyError: Recovery is impossible, however often it is retried.
        """
        self.pipeline.cancel()
        self._observer.on_failure()
        self.is_broker_down |= isinstance(error, UNREACHABLE_ERRORS)
        logger.warning("a batch failed, resuming from the committed offsets: {}", format_error(error))
        self._check_patience(error)
        while not self.pipeline.is_empty and not stop.is_set():  # their thread must no longer use the producer
            self.pipeline.wait_for_cancelled(POLL_SECONDS)
            self._last_step = monotonic()
        backoff = chain(RETRY_BACKOFF_SECONDS, repeat(RETRY_BACKOFF_SECONDS[-1]))
        while not stop.wait(next(backoff)):
            self._last_step = monotonic()
            try:
                self.delivery.recover()
                self._needs_seek = True
                self._poll_paused(POLL_SECONDS)  # rejoins the group: an expelled member may commit nothing
                self._mark_broker_up()
            except FATAL_ERRORS as err:
                raise cluster_error(self.clients.servers, err) from err
            except (kafka_errors.KafkaError, DependencyError) as err:
                self.is_broker_down = True
                logger.warning("recovery failed, retrying: {}", format_error(err))
            else:
                return

    def _check_patience(self, error: BaseException) -> None:
        """Count consecutive failures, except those of an unreachable broker.

        Raises:
            DependencyError: Another worker uses the same instance name.
            BaseException: The same defect fails one batch after the other.
        """
        is_fenced = isinstance(error, FENCED_ERRORS)
        if not is_fenced and isinstance(error, kafka_errors.KafkaError | OSError | StaleBatchError):
            return
        self._consecutive_failures += 1
        if self._consecutive_failures < MAX_CONSECUTIVE_FAILURES:
            return
        if is_fenced:
            name = self.settings.instance
            raise DependencyError(f"another worker calls itself {name}", hint="give each an `instance` of its own")
        raise error

    def _seek_to_committed(self) -> None:
        """Seek each assigned partition to its committed offset; without one, commit where the group begins.

        After a rebalance the client keeps its position in a partition that it is assigned again, whatever became of the
        records before that position. No batch may be in flight.

        Raises:
            KafkaError: The offsets cannot be read or committed.
        """
        self._needs_seek = False  # before the requests, during which the assignment may change again
        initial: dict[TopicPartition, int] = {}
        for partition in self.consumer.assignment():
            offset = self.consumer.committed(partition, timeout_ms=OFFSET_TIMEOUT_MS)
            if offset is None:
                offset = initial[partition] = self._initial_offset(partition)
            self.consumer.seek(partition, offset)
            self._positions[partition] = offset
        if initial:
            self.consumer.commit(to_offset_metadata(initial), timeout_ms=OFFSET_TIMEOUT_MS)

    def _initial_offset(self, partition: TopicPartition) -> int:
        """Look up where a group without committed offsets begins."""
        is_earliest = self.settings.start == "earliest"
        look_up = self.consumer.beginning_offsets if is_earliest else self.consumer.end_offsets
        offset: int = look_up([partition], timeout_ms=OFFSET_TIMEOUT_MS)[partition]
        return offset


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes new assignments to a worker.

    Revoked partitions need no handling: the broker rejects commits for them.
    """

    def __init__(self, worker: Worker) -> None:
        """Create a listener for a worker."""
        self.worker = worker

    @override
    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Ignore revoked partitions."""

    @override
    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.worker.on_assigned(assigned)
