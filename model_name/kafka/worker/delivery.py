"""How results and offsets reach the broker: together in a transaction, or one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.records import OutputRecord
from model_name.kafka.worker.worker_config import WorkerSettings

SIZE_ERRORS = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
REJECTION_ERRORS = (*SIZE_ERRORS, kafka_errors.InvalidRecordError)
"""What says that one record is wrong, not the broker."""

MAX_OVERHEAD_BYTES = 64 * 1024  # for the key and the headers of a record beside its value
PRODUCER_BATCH_BYTES = 256 * 1024  # of one partition, that travel together


class RoutedRecord(NamedTuple):
    """Where a message goes."""

    topic: str
    partition: int | None
    message: OutputRecord


class RecordsRejectedError(Exception):
    """The broker refuses some of the messages, by their position."""

    def __init__(self, to_offset_metadata: Mapping[int, Exception]) -> None:
        """Take them."""
        super().__init__(f"{len(to_offset_metadata)} messages are refused")
        self.to_offset_metadata = to_offset_metadata


class Delivery(ABC):
    """Writes what became of a batch. Used by one thread at a time."""

    def __init__(self, connection: KafkaClientFactory, settings: WorkerSettings, consumer: KafkaConsumer) -> None:
        """Make the producer."""
        self.connection = connection
        self.settings = settings
        self.consumer = consumer
        self.producer = self.start()

    @abstractmethod
    def start(self) -> KafkaProducer:
        """A producer that may write, when all that an earlier one began has come to an end."""

    @abstractmethod
    def deliver(self, messages: Sequence[RoutedRecord], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """Write messages, and how far the input has been read.

        May never return: the client forgets to answer when the coordinator of the group or of the transaction goes
        away at the wrong moment. Then `recover` from another thread, and what this call still does is refused.

        Args:
            messages: In their order.
            offsets: The next one to be read of each partition.
            member: Of the group, as it was when the records were polled.

        Raises:
            RefusedError: Some messages are never taken.
            KafkaError: It did not work, or it is not known whether it did.
        """

    def recover(self) -> None:
        """Go back to where nothing is under way, after an error.

        Raises:
            KafkaError: That does not work either; not yet.
        """
        # It waits for what it has not sent before it lets go; meanwhile the next one fences it off.
        Thread(target=close_producer, args=(self.producer, 2 * self.settings.transaction_seconds), daemon=True).start()
        self.producer = self.start()

    def close_producer(self, seconds: float) -> None:
        """Let go of the producer."""
        close_producer(self.producer, seconds)

    def options(self) -> dict[str, Any]:
        """Of either producer."""
        milliseconds = int(self.settings.transaction_seconds * 1000)
        return {
            "max_request_size": self.settings.max_record_bytes + MAX_OVERHEAD_BYTES,
            "batch_size": PRODUCER_BATCH_BYTES,
            "max_block_ms": 10_000,
            "delivery_timeout_ms": max(milliseconds, 21_000),  # more than one request may take
            "client_id": self.settings.instance,
        }


def close_producer(producer: KafkaProducer, seconds: float) -> None:
    """Let go of a producer, whatever it still has."""
    try:
        producer.close_producer(timeout=seconds)
    except kafka_errors.KafkaError:  # it has not let go of anything, and would complain once more when it is collected
        producer._sender.force_close()  # noqa: SLF001  there is no other way
        producer._closed = True  # noqa: SLF001


def send_records(producer: KafkaProducer, messages: Sequence[RoutedRecord], sent: list[Any]) -> None:
    """Hand messages to the producer.

    Args:
        producer: It takes no more once it knows that the broker refuses one of them.
        messages: In their order.
        sent: Takes the futures of what becomes of them, as far as it comes.

    Raises:
        RefusedError: Some are too large for it.
        KafkaError: It takes no more.
    """
    refused = {}
    for position, (topic, partition, message) in enumerate(messages):
        try:
            sent.append(producer.send_records(topic, message.value, message.key, message.headers, partition))
        except kafka_errors.MessageSizeTooLargeError as err:
            refused[position] = err
        except kafka_errors.KafkaError:
            if refused:
                break
            raise
    if refused:
        raise RecordsRejectedError(refused)


def wait_for_acks(sent: Sequence[Any], seconds: float, *, but: tuple[type[Exception], ...] = ()) -> None:
    """Wait until messages have arrived.

    Args:
        sent: What becomes of them.
        seconds: At most.
        but: Errors that are passed over.

    Raises:
        KafkaError: One of them has not arrived, or not in time.
    """
    end = monotonic() + seconds
    for future in sent:
        if not future.succeeded():  # which costs a tenth of asking for what became of it
            with suppress(*but):
                future.get(timeout=max(0.0, end - monotonic()))


def rejected_positions(sent: Sequence[Any]) -> dict[int, Exception]:
    """Which messages the broker refused."""
    failed = {position: future.exception for position, future in enumerate(sent) if future.failed()}
    return {position: err for position, err in failed.items() if isinstance(err, REJECTION_ERRORS)}


class ExactlyOnceDelivery(Delivery):
    """Results and offsets in one transaction.

    The broker takes the offsets only from a member of the group in its present generation (KIP-447), so that a worker
    that lost its partitions cannot commit: what it wrote stays hidden from whoever reads committed records.
    """

    def start(self) -> KafkaProducer:
        """As of `Delivery`; what an earlier process of this name began is aborted."""
        producer = self.connection.producer(
            transactional_id=self.settings.instance,
            transaction_timeout_ms=int(self.settings.transaction_seconds * 1000),
            **self.options(),
        )
        try:
            producer.init_transactions()
        except kafka_errors.KafkaError:
            close_producer(producer, 0)
            raise
        return producer

    def deliver(self, messages: Sequence[RoutedRecord], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """As of `Delivery`."""
        producer = self.producer
        producer.begin_transaction()
        sent: list[Any] = []
        try:
            send_records(producer, messages, sent)
            producer.send_offsets_to_transaction(to_offset_metadata(offsets), member)
            wait_for_acks(sent, self.settings.transaction_seconds)  # what follows a refused one may never be answered
            producer.commit_transaction()  # and would wait for that
        except RecordsRejectedError:
            self._renewed(producer)
            raise
        except kafka_errors.KafkaError as err:
            if not rejected_positions(sent):
                for held in err.args:
                    if isinstance(held, kafka_errors.KafkaError):  # this one says only that another failed
                        raise held from err
                raise
            arrived = {position for position, future in enumerate(sent) if future.succeeded()}
            suspects = [position for position in range(len(messages)) if position not in arrived]
            if refused := self._refused(producer, messages, suspects):
                raise RecordsRejectedError(refused) from err
            raise

    def _refused(
        self, producer: KafkaProducer, messages: Sequence[RoutedRecord], suspects: Collection[int]
    ) -> dict[int, Exception]:
        """Which of some messages are refused by themselves.

        The client fails whatever it has not sent yet with the error of the one that was refused. So each is sent alone,
        in a transaction that is never committed; of a topic, what is larger than one that is too large is so, too.
        """
        found: dict[int, Exception] = {}
        by_size = sorted(suspects, key=lambda position: messages[position].message.size)
        for topic in {messages[position].topic for position in by_size}:
            ranked = [position for position in by_size if messages[position].topic == topic]
            producer = self._renewed(producer)
            producer.begin_transaction()
            for rank, position in enumerate(ranked):
                alone: list[Any] = []
                try:
                    send_records(producer, [messages[position]], alone)
                    alone[0].get(timeout=self.settings.transaction_seconds)
                except SIZE_ERRORS as err:
                    found |= dict.fromkeys(ranked[rank:], err)
                    break
                except kafka_errors.InvalidRecordError as err:
                    found[position] = err
                    producer = self._renewed(producer)
                    producer.begin_transaction()
        self._renewed(producer)
        return found

    def _renewed(self, producer: KafkaProducer) -> KafkaProducer:
        """A producer in the place of one that was refused something: after that, it counts its messages wrongly.

        Raises:
            KafkaError: Another call has put one in its place: this one was given up as hanging.
        """
        if self.producer is not producer:
            raise kafka_errors.KafkaError("the delivery was given up, and another one has begun")
        self.recover()
        return self.producer


class AtLeastOnceDelivery(Delivery):
    """Results first, offsets when the broker has all of them."""

    def start(self) -> KafkaProducer:
        """As of `Delivery`. One request at a time keeps the order without the broker's help."""
        return self.connection.producer(
            enable_idempotence=False, max_in_flight_requests_per_connection=1, **self.options()
        )

    def deliver(self, messages: Sequence[RoutedRecord], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """As of `Delivery`."""
        sent: list[Any] = []
        send_records(self.producer, messages, sent)
        wait_for_acks(sent, self.settings.transaction_seconds, but=REJECTION_ERRORS)  # no flush, which fails where a batch is halved
        if refused := rejected_positions(sent):
            raise RecordsRejectedError(refused)
        self.consumer.commit(to_offset_metadata(offsets), timeout_ms=10_000)


def to_offset_metadata(offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as the client takes them."""
    return {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
