"""Write results and commit offsets: together in a transaction, or one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from threading import Thread
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from typing_extensions import override

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.producers import (
    PRODUCER_BATCH_BYTES,
    REJECTION_ERRORS,
    SIZE_ERRORS,
    RecordsRejectedError,
    RoutedRecord,
    close_producer,
    rejected_positions,
    send_records,
    wait_for_acks,
)
from model_name.kafka.worker.worker_settings import WorkerSettings

MAX_OVERHEAD_BYTES = 64 * 1024  # key and headers of a record
COMMIT_TIMEOUT_MS = 10_000


class Delivery(ABC):
    """Writes the results and dead letters of a batch and commits its offsets. One thread uses it at a time.

    Attributes:
        clients: Factory of the clients of the cluster.
        settings: Settings of the worker.
        consumer: Consumer whose group the offsets belong to.
        producer: Current producer; `recover` replaces it.
    """

    def __init__(self, clients: KafkaClientFactory, settings: WorkerSettings, consumer: KafkaConsumer) -> None:
        """Create the producer."""
        self.clients = clients
        self.settings = settings
        self.consumer = consumer
        self.producer = self.create_producer()

    @abstractmethod
    def create_producer(self) -> KafkaProducer:
        """Create a producer, after all transactions of earlier producers of this instance have ended."""

    @abstractmethod
    def deliver(self, records: Sequence[RoutedRecord], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """Write records and commit offsets of the input.

        May block forever: the client loses the response when the coordinator of the group or of the transaction fails
        at the wrong moment. Then call `recover` from another thread; the broker rejects what this call still sends.

        Args:
            records: Records in their order.
            offsets: Next offset to consume of each partition.
            member: Metadata of this member of the group at the time of the poll.

        Raises:
            RecordsRejectedError: The broker rejects some of the records, however often they are sent.
            KafkaError: The delivery failed, or its outcome is unknown.
        """

    def recover(self) -> None:
        """Replace the producer after an error, so that no transaction is open.

        Raises:
            KafkaError: No producer can be created yet.
        """
        # Closing waits for unsent records, hence the thread; meanwhile the new producer fences the old one off.
        old_producer, timeout_seconds = self.producer, 2 * self.settings.transaction_seconds
        Thread(target=close_producer, args=(old_producer, timeout_seconds), daemon=True).start()
        self.producer = self.create_producer()

    def close(self, timeout_seconds: float) -> None:
        """Close the producer."""
        close_producer(self.producer, timeout_seconds)

    def producer_options(self) -> dict[str, Any]:
        """Build the options that the producers of both deliveries share."""
        transaction_ms = int(self.settings.transaction_seconds * 1000)
        return {
            "max_request_size": self.settings.max_record_bytes + MAX_OVERHEAD_BYTES,
            "batch_size": PRODUCER_BATCH_BYTES,
            "max_block_ms": 10_000,
            "delivery_timeout_ms": max(transaction_ms, 21_000),  # must exceed the timeout of one request
            "client_id": self.settings.instance,
        }


class ExactlyOnceDelivery(Delivery):
    """Writes results and commits offsets in one transaction.

    The broker accepts offsets only from a member of the group in its present generation (KIP-447), so that a worker
    that lost its partitions cannot commit; consumers with `read_committed` never see what it wrote.
    """

    @override
    def create_producer(self) -> KafkaProducer:
        """Create a transactional producer; the broker aborts an open transaction of an earlier process."""
        producer = self.clients.create_producer(
            transactional_id=self.settings.instance,
            transaction_timeout_ms=int(self.settings.transaction_seconds * 1000),
            **self.producer_options(),
        )
        try:
            producer.init_transactions()
        except kafka_errors.KafkaError:
            close_producer(producer, 0)
            raise
        return producer

    @override
    def deliver(self, records: Sequence[RoutedRecord], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        producer = self.producer
        producer.begin_transaction()
        futures: list[Any] = []
        try:
            send_records(producer, records, futures)
            producer.send_offsets_to_transaction(to_offset_metadata(offsets), member)
            # After a rejected record others may never be acknowledged, and a commit would wait for them.
            wait_for_acks(futures, self.settings.transaction_seconds)
            producer.commit_transaction()
        except RecordsRejectedError:
            self._replace_producer(producer)
            raise
        except kafka_errors.KafkaError as err:
            if not rejected_positions(futures):
                for cause in err.args:
                    if isinstance(cause, kafka_errors.KafkaError):  # `err` only reports that another error came before
                        raise cause from err
                raise
            acked = {position for position, future in enumerate(futures) if future.succeeded()}
            suspects = [position for position in range(len(records)) if position not in acked]
            if rejected := self._find_rejected(producer, records, suspects):
                raise RecordsRejectedError(rejected) from err
            raise

    def _find_rejected(
        self, producer: KafkaProducer, records: Sequence[RoutedRecord], suspects: Collection[int]
    ) -> dict[int, Exception]:
        """Find the records that the broker rejects even if they are sent alone.

        The client fails all records that it has not sent yet with the error of the rejected one. So each suspect is
        sent alone, in a transaction that is never committed. Records of a topic that are larger than one that is too
        large are too large as well.
        """
        rejected: dict[int, Exception] = {}
        by_size = sorted(suspects, key=lambda position: records[position].record.size)
        for topic in {records[position].topic for position in by_size}:
            ranked = [position for position in by_size if records[position].topic == topic]
            producer = self._replace_producer(producer)
            producer.begin_transaction()
            for rank, position in enumerate(ranked):
                futures: list[Any] = []
                try:
                    send_records(producer, [records[position]], futures)
                    futures[0].get(timeout=self.settings.transaction_seconds)
                except SIZE_ERRORS as err:
                    rejected |= dict.fromkeys(ranked[rank:], err)
                    break
                except kafka_errors.InvalidRecordError as err:
                    rejected[position] = err
                    producer = self._replace_producer(producer)
                    producer.begin_transaction()
        self._replace_producer(producer)
        return rejected

    def _replace_producer(self, producer: KafkaProducer) -> KafkaProducer:
        """Replace a producer after a rejected record: its sequence numbers are wrong from there on.

        Raises:
            KafkaError: Another thread has replaced this producer, because the delivery took too long.
        """
        if self.producer is not producer:
            raise kafka_errors.KafkaError("the delivery was given up, and another one has begun")
        self.recover()
        return self.producer


class AtLeastOnceDelivery(Delivery):
    """Writes results, waits for their acknowledgements, then commits offsets."""

    @override
    def create_producer(self) -> KafkaProducer:
        """Create a producer with one request in flight, which keeps the order without idempotence."""
        return self.clients.create_producer(
            enable_idempotence=False, max_in_flight_requests_per_connection=1, **self.producer_options()
        )

    @override
    def deliver(self, records: Sequence[RoutedRecord], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        futures: list[Any] = []
        send_records(self.producer, records, futures)
        # No `flush`: it fails where the client splits a batch.
        wait_for_acks(futures, self.settings.transaction_seconds, ignored=REJECTION_ERRORS)
        if rejected := rejected_positions(futures):
            raise RecordsRejectedError(rejected)
        self.consumer.commit(to_offset_metadata(offsets), timeout_ms=COMMIT_TIMEOUT_MS)


def to_offset_metadata(offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Convert offsets to the type that the client commits."""
    return {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
