"""The worker: polls, predicts and delivers, until it is told to stop.

Three threads pass batches on, so that the next is polled and predicted while the last is committed: the caller's polls
and decides, one predicts, one delivers. When a delivery fails, all that is under way is dropped and read again from
the committed offsets, which is the one way back from whatever it was.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from math import inf
from threading import Event
from time import monotonic, time
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from loguru import logger

from model_name.errors import DependencyError
from model_name.kafka.client import KafkaClientFactory, format_error, translate_errors, cluster_error
from model_name.kafka.records import ConsumerRecord
from model_name.kafka.worker.delivery import AtLeastOnceDelivery, Delivery, ExactlyOnceDelivery, RecordsRejectedError, to_offset_metadata
from model_name.kafka.worker.processor import ProcessedBatch, RecordProcessor, TopicRouter
from model_name.kafka.worker.threads import DaemonExecutor
from model_name.kafka.worker.worker_config import WorkerSettings
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.serving.batching.observer import log_predictions
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import PredictionLog

POLL_SECONDS = 0.5  # that a poll waits for records, and a signal for the poll
MAX_IN_FLIGHT_BATCHES = 2  # batches: one is delivered while the next is predicted
OFFSET_TIMEOUT_MS = 10_000  # to read or write an offset
LAG_INTERVAL_SECONDS = 1.0  # between two looks at how far behind it is
WARN_INTERVAL_SECONDS = 10.0  # between two lines of the log about dead letters
PING_TIMEOUT_MS = 2000  # for a coordinator that is only asked whether it is there
RETRY_BACKOFF_SECONDS = (0.1, 0.3, 1.0, 2.0)  # seconds before each try to recover, the last one again and again
MAX_CONSECUTIVE_FAILURES = 5  # times in a row, of what may never end
MAX_FETCH_BYTES = 16 * 2**20  # that wait in this process at most, from each broker
FENCED_ERRORS = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)
UNREACHABLE_ERRORS = (kafka_errors.KafkaTimeoutError, kafka_errors.KafkaConnectionError, kafka_errors.NodeNotReadyError)
"""What says that there is no answer."""

FATAL_ERRORS = (
    kafka_errors.AuthorizationError,
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedVersionError,
    kafka_errors.InvalidTransactionTimeoutError,
    kafka_errors.InvalidSessionTimeoutError,
    kafka_errors.InconsistentGroupProtocolError,
)
"""What does not go away by trying again."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that share a commit.

    Attributes:
        records: By partition and in their order.
        member: Of the group, when they were polled.
        run: What of; those of an earlier run are dropped.
    """

    records: Mapping[TopicPartition, Sequence[ConsumerRecord]]
    member: Any
    run: int

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """The next to be read."""
        return {partition: records[-1].offset + 1 for partition, records in self.records.items()}


@dataclass(slots=True)
class WorkerStats:
    """What a worker has done.

    Attributes:
        predicted: Records with a result.
        dead_letters: Records without.
        batches: Delivered.
        failures: Batches that had to be read again.
    """

    predicted: int = 0
    dead_letters: int = 0
    batches: int = 0
    failures: int = 0


class StaleBatchError(Exception):
    """The batch is of an earlier run."""


class Worker:
    """One member of the group.

    Attributes:
        totals: What it has done.
        is_ready: Whether it takes part in the group.
        is_cut_off: Whether the broker is away, as far as it knows.
    """

    def __init__(
        self,
        plane: DataPlane,
        settings: WorkerSettings,
        connection: KafkaClientFactory,
        telemetry: WorkerMetrics,
        log: PredictionLog | None = None,
    ) -> None:
        """Connect, and check that all is there that is needed.

        Args:
            plane: What predicts; it should be warm.
            settings: Of the worker, with the name of its instance.
            connection: To the cluster.
            telemetry: What is counted.
            log: Where the predictions are noted, if they are.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
            NotFoundError: A topic does not exist.
        """
        self.settings = settings
        self.connection = connection
        self.telemetry = telemetry
        self.log = log
        self.totals = WorkerStats()
        self.is_ready = self.is_cut_off = False
        self.predictor = RecordProcessor(plane, settings.limits)
        partitions = connection.partitions([settings.input, settings.output, settings.dead_letter])
        self.topics = TopicRouter(settings.output, settings.dead_letter, partitions[settings.input], partitions)
        self.consumer = self._consumer()
        with translate_errors(connection.servers):
            kind = ExactlyOnceDelivery if settings.is_exact else AtLeastOnceDelivery
            self.delivery: Delivery = kind(connection, settings, self.consumer)
        self._predicting, self._delivering = DaemonExecutor("predicting"), DaemonExecutor("delivering")
        self._under_way: deque[tuple[Future[ProcessedBatch], float]] = deque()
        self._delivering_since = inf
        self._run = 0
        self._failed_in_a_row = 0
        self._beat = self._heard = monotonic()
        self._looked = 0.0
        self._told, self._untold = -inf, 0
        self._is_new = True  # what this worker reads: to be read from the committed offsets
        self._next: dict[TopicPartition, int] = {}

    @property
    def stuck_for(self) -> float:
        """Seconds since it last made a step, or since the oldest batch began."""
        begun = [since for _, since in list(self._under_way)]
        return monotonic() - min([self._beat, *begun])

    @property
    def _is_hanging(self) -> bool:
        """Whether a delivery takes longer than its transaction may."""
        return monotonic() - self._delivering_since > self.settings.transaction_seconds

    def run(self, stop: Event) -> None:
        """Work until told to stop, and leave the group.

        Args:
            stop: Set by whoever wants it to end; what is under way is delivered first.

        Raises:
            DependencyError: The cluster refuses what the worker needs.
        """
        self.consumer.subscribe([self.settings.input], listener=RebalanceListener(self))
        try:
            # Who leads the group before it knows the topic shares out nothing.
            with translate_errors(self.connection.servers):
                self.consumer.partitions_for_topic(self.settings.input)
            while not stop.is_set():
                self.turn(stop)
        finally:
            self.finish()

    def turn(self, stop: Event) -> None:
        """One step: take what has come, see what was delivered, mend what failed."""
        self._beat = monotonic()
        try:
            self._settle()
            if self._is_hanging:
                raise kafka_errors.KafkaTimeoutError("the broker does not answer")
            if self._is_new and not self._under_way:
                self._rewind()
            if len(self._under_way) < MAX_IN_FLIGHT_BATCHES and not self._is_new:
                self._take(self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000)))
            elif self._under_way and not wait([self._under_way[0][0]], POLL_SECONDS).done:
                self._keep_membership()
            if not self._under_way and monotonic() - self._heard > self.settings.session_seconds / 2:
                self._ask()
        except FATAL_ERRORS as err:
            raise cluster_error(self.connection.servers, err) from err
        except RecordsRejectedError as err:  # a bare dead letter
            raise DependencyError(f"{self.settings.dead_letter}: takes no dead letter: {err}") from err
        except Exception as err:  # noqa: BLE001  the outermost loop: a broker that fails in a new way is tried again
            self._recover(err, stop)

    def _take(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]]) -> None:
        """Pass records on, if there are any; none that were polled while the group was rebalanced."""
        member = self.consumer.group_metadata()
        if records and not self._is_new and member.generation_id < 0:
            self._is_new = True  # expelled just now; an offset without a generation would be taken from anybody
        if self._is_new:
            return
        if records:
            batch = Batch(records, member, self._run)
            predicted = self._predicting.submit(self._predict, batch)
            self._under_way.append((self._delivering.submit(self._deliver, batch, predicted), monotonic()))
        if monotonic() - self._looked > LAG_INTERVAL_SECONDS:
            self._looked = monotonic()
            ends = {partition: self.consumer.highwater(partition) for partition in self.consumer.assignment()}
            self.telemetry.behind(
                {partition: end - self._next.get(partition, end) for partition, end in ends.items() if end is not None}
            )

    def _consumer(self) -> KafkaConsumer:
        settings = self.settings
        return self.connection.consumer(
            group_id=settings.group,
            client_id=settings.instance,
            auto_offset_reset="earliest",  # of what is left, where the committed records are deleted
            max_poll_records=settings.max_poll_records,
            session_timeout_ms=int(settings.session_seconds * 1000),
            heartbeat_interval_ms=int(settings.session_seconds * 1000 / 4),
            partition_assignment_strategy=[StickyPartitionAssignor],
            fetch_max_bytes=MAX_FETCH_BYTES,
            max_partition_fetch_bytes=max(settings.max_record_bytes, 2**20),
        )

    def _predict(self, batch: Batch) -> ProcessedBatch:
        if batch.run != self._run:
            raise StaleBatchError
        return self.predictor.predict([*chain.from_iterable(batch.records.values())])

    def _deliver(self, batch: Batch, predicting: "Future[Predicted]") -> ProcessedBatch:
        """Write what became of a batch; what the broker refuses becomes dead letters."""
        predicted = predicting.result()
        if batch.run != self._run:
            raise StaleBatchError
        self._delivering_since = started = monotonic()
        while True:
            try:
                self.delivery.deliver(predicted.outgoing(self.topics), batch.offsets, batch.member)
                break
            except RecordsRejectedError as err:
                told = next(iter(err.positions.values()))
                logger.warning("{} records are too large or refused: {}", len(err.positions), told)
                predicted.refuse(err)
            except BaseException:
                if batch.run == self._run:
                    self._run += 1  # whatever follows on this lane was read too far
                    self._delivering_since = inf
                raise
        if batch.run != self._run:
            raise StaleBatchError  # after all; whoever took its place has looked at the offsets
        self._delivering_since = inf
        self._next.update(batch.offsets)
        self._note(predicted, monotonic() - started)
        return predicted

    def _note(self, predicted: ProcessedBatch, seconds: float) -> None:
        """Count what is committed, and log it."""
        dead = len(predicted.failed)
        self.totals.predicted += len(predicted.requests) - dead
        self.totals.dead_letters += dead
        self.totals.batches += 1
        self.telemetry.delivered(predicted, seconds, time())
        if predicted.failed:
            self._tell(predicted)
        if self.log is not None:
            log_predictions(self.log, self.predictor.plane.bundle.manifest, predicted.groups)

    def _tell(self, predicted: ProcessedBatch) -> None:
        """Say of a dead letter why it is one, and of those that come soon after it how many they are."""
        self._untold += len(predicted.failed)
        if monotonic() - self._told < WARN_INTERVAL_SECONDS:
            return
        position, (error, _) = next(iter(predicted.failed.items()))
        source, reason = predicted.requests[position].source, str(error).partition("\n")[0]
        others = f"; and {self._untold - 1:,} more since the last line" if self._untold > 1 else ""
        logger.warning("{} is a dead letter: {}{}", source, reason, others)
        self._told, self._untold = monotonic(), 0

    def _ask(self) -> None:
        """Hear from the coordinator of the group, where no delivery shows that it is there."""
        self._heard = monotonic()
        try:
            self.consumer.committed(TopicPartition(self.settings.input, 0), timeout_ms=PING_TIMEOUT_MS)
        except FATAL_ERRORS:
            raise
        except kafka_errors.KafkaError as err:
            if not self.is_cut_off:
                logger.warning("the broker is away: {}", format_error(err))
            self.is_cut_off = True
            return
        self._found()

    def _found(self) -> None:
        """Note that the broker answers."""
        self._heard = monotonic()
        if self.is_cut_off:
            logger.info("the broker answers again")
            self.is_cut_off = False

    def _settle(self) -> None:
        """Take from the list what is delivered.

        Raises:
            KafkaError: A delivery failed.
        """
        while self._under_way and self._under_way[0][0].done():
            future, _ = self._under_way.popleft()
            future.result()
            self._failed_in_a_row = 0
            self._found()

    def _keep_membership(self, seconds: float = 0.0) -> None:
        """Poll for nothing, while there is no room for more: a slow model keeps its partitions."""
        assigned = self.consumer.assignment()
        self.consumer.pause(*assigned)
        try:
            self._take(self.consumer.poll(timeout_ms=int(seconds * 1000)))
        finally:
            with suppress(kafka_errors.KafkaError, KeyError):
                self.consumer.resume(*assigned & self.consumer.assignment())

    def _recover(self, error: BaseException, stop: Event) -> None:
        """Drop what is under way, and go back to what is committed as soon as that can be done.

        Raises:
            DependencyError: It cannot be done, however often it is tried.
        """
        self._run += 1
        self.totals.failures += 1
        self.telemetry.failures.inc()
        self.is_cut_off |= isinstance(error, UNREACHABLE_ERRORS)
        logger.warning("a batch is read again: {}", format_error(error))
        self._check_patience(error)
        while self._under_way and not stop.is_set():  # whoever holds the producer must be done with it
            wait([future for future, _ in self._under_way], POLL_SECONDS)
            self._under_way = deque(one for one in self._under_way if not one[0].done())
            self._beat = monotonic()
            if self._is_hanging:  # or is left to itself, with a producer that the next one fences off
                self._delivering, self._delivering_since = DaemonExecutor("delivering"), inf
                self._under_way.clear()
        pauses = chain(RETRY_BACKOFF_SECONDS, repeat(RETRY_BACKOFF_SECONDS[-1]))
        while not stop.wait(next(pauses)):
            self._beat = monotonic()
            try:
                self.delivery.recover()
                self._is_new = True
                self._keep_membership(POLL_SECONDS)  # or join again: an expelled member may commit nothing
                self._found()
                return
            except FATAL_ERRORS as err:
                raise cluster_error(self.connection.servers, err) from err
            except (kafka_errors.KafkaError, DependencyError) as err:
                self.is_cut_off = True
                logger.warning("not yet: {}", format_error(err))

    def _check_patience(self, error: BaseException) -> None:
        """Count failures without a success between them; those of a broker that is away do not count.

        Raises:
            DependencyError: Another worker has the same name.
            BaseException: It is a defect, and comes again and again.
        """
        is_fenced = isinstance(error, FENCED_ERRORS)
        if not is_fenced and isinstance(error, kafka_errors.KafkaError | OSError | StaleBatchError):
            return
        self._failed_in_a_row += 1
        if self._failed_in_a_row < MAX_CONSECUTIVE_FAILURES:
            return
        if is_fenced:
            name = self.settings.instance
            raise DependencyError(f"another worker calls itself {name}", hint="give each an `instance` of its own")
        raise error

    def _rewind(self) -> None:
        """Go on where the committed offsets say, and commit where the group begins.

        The client keeps its place in a partition that it has again after a rebalance, whatever became of the records
        before that place. Nothing of this worker may be under way.

        Raises:
            KafkaError: The offsets cannot be read or written.
        """
        self._is_new = False  # what changes from here on is new again
        begun: dict[TopicPartition, int] = {}
        for partition in self.consumer.assignment():
            offset = self.consumer.committed(partition, timeout_ms=OFFSET_TIMEOUT_MS)
            if offset is None:
                find = (
                    self.consumer.beginning_offsets if self.settings.start == "earliest" else self.consumer.end_offsets
                )
                offset = begun[partition] = find([partition], timeout_ms=OFFSET_TIMEOUT_MS)[partition]
            self.consumer.seek(partition, offset)
            self._next[partition] = offset
        if begun:
            self.consumer.commit(to_offset_metadata(begun), timeout_ms=OFFSET_TIMEOUT_MS)

    def finish(self) -> None:
        """Deliver what is under way, leave the group, and let go of all."""
        wait([future for future, _ in self._under_way], self.settings.stop_seconds)
        left = [future for future, _ in self._under_way if not future.done() or future.exception()]
        if left:
            logger.warning("{} batches were not delivered; others read them again", len(left))
        try:
            self.consumer.close(autocommit=False, timeout_ms=1000)
        except kafka_errors.KafkaError as err:
            logger.warning("the group was not told: {}", format_error(err))
        self.delivery.close(0 if left else 1)

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Note what this worker reads from now on."""
        self.is_ready = self._is_new = True
        self._next.clear()
        logger.info("reads {}", ", ".join(f"{one.topic}[{one.partition}]" for one in sorted(partitions)) or "nothing")


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells a worker what it reads. What it loses needs no word: a commit for that is refused by the broker."""

    def __init__(self, worker: Worker) -> None:
        """Tell this one."""
        self.worker = worker

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing to do."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """As of the client."""
        self.worker.assigned(assigned)
