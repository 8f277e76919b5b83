"""Process and deliver batches on two threads, in order, while the next batch is polled."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from itertools import chain
from math import inf
from time import monotonic
from typing import Any

from kafka import TopicPartition
from loguru import logger

from model_name.kafka.producers import RecordsRejectedError
from model_name.kafka.records import ConsumerRecord
from model_name.kafka.worker.delivery import Delivery
from model_name.kafka.worker.processor import ProcessedBatch, RecordProcessor, TopicRouter
from model_name.kafka.worker.threads import DaemonExecutor

MAX_IN_FLIGHT_BATCHES = 2  # one is delivered while the next is processed


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that share a commit.

    Attributes:
        records: Records by partition, in their order.
        member: Metadata of this member of the group at the time of the poll.
        epoch: Epoch of the pipeline in which the batch was submitted.
    """

    records: Mapping[TopicPartition, Sequence[ConsumerRecord]]
    member: Any
    epoch: int

    @property
    def offsets(self) -> dict[TopicPartition, int]:
        """Next offset to consume of each partition."""
        return {partition: records[-1].offset + 1 for partition, records in self.records.items()}


class StaleBatchError(Exception):
    """The batch belongs to an earlier epoch: its records are polled again."""


class BatchPipeline:
    """Processes batches on one thread and delivers them on another.

    The caller's thread submits batches and collects them once they are delivered. `cancel` begins a new epoch: batches
    of earlier epochs are not delivered any more.

    Attributes:
        epoch: Number of the current epoch.
    """

    def __init__(
        self,
        processor: RecordProcessor,
        router: TopicRouter,
        delivery: Delivery,
        *,
        timeout_seconds: float,
        on_delivered: Callable[[Batch, ProcessedBatch, float], None],
    ) -> None:
        """Start the threads.

        Args:
            processor: Processor that predicts the records of a batch.
            router: Router that chooses the topics and partitions of the results.
            delivery: Delivery that writes the results and commits the offsets.
            timeout_seconds: Time after which a delivery counts as stalled.
            on_delivered: Callback with each committed batch and the seconds that its delivery took. It runs on the
                thread that delivers.
        """
        self.epoch = 0
        self._processor, self._router, self._delivery = processor, router, delivery
        self._timeout_seconds, self._on_delivered = timeout_seconds, on_delivered
        self._process_thread, self._deliver_thread = DaemonExecutor("predicting"), DaemonExecutor("delivering")
        self._in_flight: deque[tuple[Future[ProcessedBatch], float]] = deque()  # with the time of submission
        self._delivery_started = inf

    @property
    def is_empty(self) -> bool:
        """Whether no batch is in flight."""
        return not self._in_flight

    @property
    def is_full(self) -> bool:
        """Whether no further batch may be submitted."""
        return len(self._in_flight) >= MAX_IN_FLIGHT_BATCHES

    @property
    def is_stalled(self) -> bool:
        """Whether a delivery takes longer than its transaction may."""
        return monotonic() - self._delivery_started > self._timeout_seconds

    @property
    def oldest_submission(self) -> float:
        """Time at which the oldest batch in flight was submitted, on the monotonic clock; infinite without one."""
        return min((submitted for _, submitted in list(self._in_flight)), default=inf)

    def submit(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord]], member: Any) -> None:
        """Process and deliver polled records."""
        batch = Batch(records, member, self.epoch)
        processing = self._process_thread.submit(self._process, batch)
        self._in_flight.append((self._deliver_thread.submit(self._deliver, batch, processing), monotonic()))

    def wait_for_oldest(self, timeout_seconds: float) -> bool:
        """Wait for the oldest batch in flight and return whether it is done."""
        return bool(wait([self._in_flight[0][0]], timeout_seconds).done)

    def collect_next(self) -> bool:
        """Remove the oldest batch if it is delivered, and return whether it was.

        Raises:
            KafkaError: The delivery of the batch failed.
            Exception: Processing or recording the batch failed.
        """
        if not self._in_flight or not self._in_flight[0][0].done():
            return False
        future, _ = self._in_flight.popleft()
        future.result()
        return True

    def cancel(self) -> None:
        """Begin a new epoch, so that no batch of an earlier one is delivered."""
        self.epoch += 1

    def wait_for_cancelled(self, timeout_seconds: float) -> None:
        """Wait for cancelled batches to end, and abandon a delivery that is stalled.

        An abandoned delivery keeps its thread and its producer, which the next producer fences off.
        """
        wait([future for future, _ in self._in_flight], timeout_seconds)
        self._in_flight = deque(entry for entry in self._in_flight if not entry[0].done())
        if self.is_stalled:
            self._deliver_thread, self._delivery_started = DaemonExecutor("delivering"), inf
            self._in_flight.clear()

    def drain(self, timeout_seconds: float) -> int:
        """Wait for all batches in flight and return the number of those that are not delivered."""
        futures = [future for future, _ in self._in_flight]
        wait(futures, timeout_seconds)
        return sum(not future.done() or future.exception() is not None for future in futures)

    def _process(self, batch: Batch) -> ProcessedBatch:
        self._check_epoch(batch)
        return self._processor.process([*chain.from_iterable(batch.records.values())])

    def _deliver(self, batch: Batch, processing: "Future[ProcessedBatch]") -> ProcessedBatch:
        """Deliver a batch once it is processed."""
        processed = processing.result()
        self._check_epoch(batch)
        self._delivery_started = started = monotonic()
        try:
            self._write(batch, processed)
        except BaseException:
            if batch.epoch == self.epoch:
                self.cancel()  # the batches after this one start beyond what is committed
                self._delivery_started = inf
            raise
        self._check_epoch(batch)  # cancelled meanwhile: the worker has already read the committed offsets
        self._delivery_started = inf
        self._on_delivered(batch, processed, monotonic() - started)
        return processed

    def _write(self, batch: Batch, processed: ProcessedBatch) -> None:
        """Write the results of a batch; rejected results become dead letters."""
        while True:
            try:
                self._delivery.deliver(processed.to_output_records(self._router), batch.offsets, batch.member)
            except RecordsRejectedError as err:
                first = next(iter(err.positions.values()))
                logger.warning("{} records of a batch are too large or rejected: {}", len(err.positions), first)
                processed.mark_rejected(err)
            else:
                return

    def _check_epoch(self, batch: Batch) -> None:
        """Check that a batch is not cancelled.

        Raises:
            StaleBatchError: The batch belongs to an earlier epoch.
        """
        if batch.epoch != self.epoch:
            raise StaleBatchError
