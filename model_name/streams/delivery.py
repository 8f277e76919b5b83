"""How results and offsets reach the broker: together in a transaction, or one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from model_name.streams.connections import Connection
from model_name.streams.records import Message
from model_name.streams.settings import WorkerSettings

REFUSED = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError, kafka_errors.InvalidRecordError)
"""What says that one record is wrong, not the broker."""

ROOM_BYTES = 64 * 1024  # for the key and the headers of a record beside its value
BATCH_BYTES = 256 * 1024  # of one partition, that travel together


class Outgoing(NamedTuple):
    """Where a message goes."""

    topic: str
    partition: int | None
    message: Message


class RefusedError(Exception):
    """The broker refuses some of the messages, by their position."""

    def __init__(self, positions: Mapping[int, Exception]) -> None:
        """Take them."""
        super().__init__(f"{len(positions)} messages are refused")
        self.positions = positions


class Delivery(ABC):
    """Writes what became of a batch. Used by one thread at a time."""

    def __init__(self, connection: Connection, settings: WorkerSettings, consumer: KafkaConsumer) -> None:
        """Make the producer."""
        self.connection = connection
        self.settings = settings
        self.consumer = consumer
        self.producer = self.start()

    @abstractmethod
    def start(self) -> KafkaProducer:
        """A producer that may write, when all that an earlier one began has come to an end."""

    @abstractmethod
    def deliver(self, messages: Sequence[Outgoing], offsets: Mapping[TopicPartition, int], member: Any) -> None:
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
        Thread(target=close, args=(self.producer, 2 * self.settings.transaction_seconds), daemon=True).start()
        self.producer = self.start()

    def close(self, seconds: float) -> None:
        """Let go of the producer."""
        close(self.producer, seconds)

    def options(self) -> dict[str, Any]:
        """Of either producer."""
        milliseconds = int(self.settings.transaction_seconds * 1000)
        return {
            "max_request_size": self.settings.max_record_bytes + ROOM_BYTES,
            "batch_size": BATCH_BYTES,
            "max_block_ms": 10_000,
            "delivery_timeout_ms": max(milliseconds, 21_000),  # more than one request may take
            "client_id": self.settings.instance,
        }


def close(producer: KafkaProducer, seconds: float) -> None:
    """Let go of a producer, whatever it still has."""
    with suppress(kafka_errors.KafkaError):
        producer.close(timeout=seconds)


def send(producer: KafkaProducer, messages: Sequence[Outgoing]) -> list[Any]:
    """Hand messages to the producer; the futures of what becomes of them.

    Raises:
        RefusedError: Some are too large for it.
    """
    sent, refused = [], {}
    for position, (topic, partition, message) in enumerate(messages):
        try:
            sent.append(producer.send(topic, message.value, message.key, message.headers, partition))
        except kafka_errors.MessageSizeTooLargeError as err:
            refused[position] = err
    if refused:
        raise RefusedError(refused)
    return sent


def refused_of(sent: Sequence[Any]) -> dict[int, Exception]:
    """Which messages the broker refused."""
    failed = {position: future.exception for position, future in enumerate(sent) if future.failed()}
    return {position: err for position, err in failed.items() if isinstance(err, REFUSED)}


class ExactlyOnce(Delivery):
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
            close(producer, 0)
            raise
        return producer

    def deliver(self, messages: Sequence[Outgoing], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """As of `Delivery`."""
        producer = self.producer
        producer.begin_transaction()
        sent: list[Any] = []
        try:
            sent = send(producer, messages)
            producer.send_offsets_to_transaction(positions(offsets), member)
            producer.commit_transaction()
        except RefusedError:
            producer.abort_transaction()
            raise
        except kafka_errors.KafkaError as err:
            if refused := refused_of(sent):
                producer.abort_transaction()
                raise RefusedError(refused) from err
            raise


class AtLeastOnce(Delivery):
    """Results first, offsets when the broker has all of them."""

    def start(self) -> KafkaProducer:
        """As of `Delivery`. One request at a time keeps the order without the broker's help."""
        return self.connection.producer(
            enable_idempotence=False, max_in_flight_requests_per_connection=1, **self.options()
        )

    def deliver(self, messages: Sequence[Outgoing], offsets: Mapping[TopicPartition, int], member: Any) -> None:
        """As of `Delivery`."""
        producer = self.producer
        sent = send(producer, messages)
        producer.flush(timeout=self.settings.transaction_seconds)
        if refused := refused_of(sent):
            raise RefusedError(refused)
        for future in sent:
            future.get(timeout=0)
        self.consumer.commit(positions(offsets), timeout_ms=10_000)


def positions(offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as the client takes them."""
    return {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
