"""Run a member of the consumer group, which polls records, predicts them and delivers the results until it is stopped.

Three threads work on consecutive batches, so that the next batch is polled and processed while the last one is
committed: the caller's thread polls and coordinates, one thread processes, one delivers (`BatchPipeline`). Recovery is
the same after any failure: all batches in flight are cancelled, and polling resumes from the committed offsets.
"""

from itertools import chain, repeat
from threading import Event
from time import monotonic

from kafka import errors as kafka_errors
from loguru import logger

from model_name.errors import DependencyError
from model_name.kafka.client import KafkaClientFactory, cluster_error, format_error, translate_errors
from model_name.kafka.producers import FENCED_ERRORS, RecordsRejectedError
from model_name.kafka.worker.delivery import AtLeastOnceDelivery, Delivery, ExactlyOnceDelivery
from model_name.kafka.worker.delivery_observer import DeliveryObserver, WorkerStats
from model_name.kafka.worker.group_consumer import GroupConsumer, PolledRecords
from model_name.kafka.worker.pipeline import Batch, BatchPipeline, StaleBatchError
from model_name.kafka.worker.processor import ProcessedBatch, RecordProcessor, TopicRouter
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.kafka.worker.worker_settings import WorkerSettings
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import PredictionLog
from model_name.serving.tracing import Tracing

POLL_SECONDS = 0.5  # longest poll, which a stop signal waits for
LAG_INTERVAL_SECONDS = 1.0  # between two updates of the lag metric
RETRY_BACKOFF_SECONDS = (0.1, 0.3, 1.0, 2.0)  # before each attempt to recover; the last one repeats
MAX_CONSECUTIVE_FAILURES = 5  # of errors that retrying may never cure
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
        group_consumer: Consumer of the input topic.
        delivery: Delivery of the results.
        pipeline: Batches in flight.
        is_broker_down: Whether the broker did not respond when it was last contacted.
    """

    def __init__(
        self,
        plane: DataPlane,
        settings: WorkerSettings,
        clients: KafkaClientFactory,
        metrics: WorkerMetrics,
        log: PredictionLog | None = None,
        *,
        tracing: Tracing | None = None,
    ) -> None:
        """Connect to the cluster and check that the topics exist.

        Args:
            plane: Data plane that predicts; it should be warm.
            settings: Settings of the worker, including the name of its instance.
            clients: Factory of the clients of the cluster.
            metrics: Metrics to update.
            log: Prediction log, if there is one.
            tracing: Tracing of records that belong to a trace; None if it is off.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
            NotFoundError: A topic does not exist.
        """
        self.settings = settings
        self.clients = clients
        self.metrics = metrics
        self.is_broker_down = False
        partitions = clients.partition_counts([settings.input, settings.output, settings.dead_letter])
        self.group_consumer = GroupConsumer(clients, settings)
        with translate_errors(clients.servers):
            delivery_type = ExactlyOnceDelivery if settings.is_exact else AtLeastOnceDelivery
            self.delivery: Delivery = delivery_type(clients, settings, self.group_consumer.consumer)
        self.pipeline = BatchPipeline(
            RecordProcessor(plane, settings.limits, tracing),
            TopicRouter(settings.output, settings.dead_letter, partitions[settings.input], partitions),
            self.delivery,
            timeout_seconds=settings.transaction_seconds,
            on_delivered=self._on_delivered,
        )
        self._observer = DeliveryObserver(plane.bundle.manifest, metrics, log)
        self._consecutive_failures = 0
        self._last_step = self._last_contact = monotonic()
        self._last_lag_update = 0.0

    @property
    def stats(self) -> WorkerStats:
        """Totals since the start."""
        return self._observer.stats

    @property
    def is_ready(self) -> bool:
        """Whether the worker has joined the group."""
        return self.group_consumer.has_joined

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
        try:
            self.group_consumer.subscribe()
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
            if self.group_consumer.needs_seek and self.pipeline.is_empty:
                self.group_consumer.seek_to_committed()
            if not self.group_consumer.needs_seek and not self.pipeline.is_full:
                self._submit_batch(self.group_consumer.poll(POLL_SECONDS))
            elif not self.pipeline.is_empty and not self.pipeline.wait_for_oldest(POLL_SECONDS):
                self._submit_batch(self.group_consumer.poll_paused())  # a slow model must not lose its partitions
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
            self.group_consumer.close()
        except kafka_errors.KafkaError as err:
            logger.warning("leaving the group failed: {}", format_error(err))
        self.delivery.close(0 if undelivered else 1)

    def _submit_batch(self, polled: PolledRecords | None) -> None:
        """Submit polled records to the pipeline, and update the lag from time to time."""
        if polled is not None:
            self.pipeline.submit(polled.records, polled.member)
        if not self.group_consumer.needs_seek and monotonic() - self._last_lag_update > LAG_INTERVAL_SECONDS:
            self._last_lag_update = monotonic()
            self.metrics.set_lag(self.group_consumer.lags())

    def _on_delivered(self, batch: Batch, processed: ProcessedBatch, seconds: float) -> None:
        """Record a committed batch; runs on the thread that delivers."""
        self.group_consumer.positions.update(batch.offsets)
        self._observer.on_delivered(processed, seconds)

    def _collect_delivered(self) -> None:
        """Collect the delivered batches.

        Raises:
            KafkaError: The delivery of a batch failed.
        """
        while self.pipeline.collect_next():
            self._consecutive_failures = 0
            self._mark_broker_up()

    def _ping_coordinator(self) -> None:
        """Contact the coordinator of the group, since no delivery shows that it responds."""
        self._last_contact = monotonic()
        try:
            self.group_consumer.ping_coordinator()
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
        self._check_repeated_failures(error)
        while not self.pipeline.is_empty and not stop.is_set():  # their thread must no longer use the producer
            self.pipeline.wait_for_cancelled(POLL_SECONDS)
            self._last_step = monotonic()
        backoff = chain(RETRY_BACKOFF_SECONDS, repeat(RETRY_BACKOFF_SECONDS[-1]))
        while not stop.wait(next(backoff)):
            self._last_step = monotonic()
            try:
                self.delivery.recover()
                self.group_consumer.needs_seek = True
                self.group_consumer.poll_paused(POLL_SECONDS)  # rejoins: an expelled member may commit nothing
                self._mark_broker_up()
            except FATAL_ERRORS as err:
                raise cluster_error(self.clients.servers, err) from err
            except (kafka_errors.KafkaError, DependencyError) as err:
                self.is_broker_down = True
                logger.warning("recovery failed, retrying: {}", format_error(err))
            else:
                return

    def _check_repeated_failures(self, error: BaseException) -> None:
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
