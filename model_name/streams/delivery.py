"""How results and offsets reach the broker: together in a transaction, or one after the other."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors
from kafka.future import Future

from model_name.streams.connections import Connection
from model_name.streams.records import Message
from model_name.streams.settings import WorkerSettings

TOO_LARGE = (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)
REFUSED = (*TOO_LARGE, kafka_errors.InvalidRecordError)
"""What says that one record is wrong, not the broker."""

ROOM_BYTES = 64 * 1024  # for the key and the headers of a record beside its value
BATCH_BYTES = 256 * 1024  # of one partition, that travel together


class Outgoing(NamedTuple):
    """Where a message goes."""

    topic: str
    partition: int | None
    message: Message


class RefusedError(Exception):
    """The broker refuses some of the messages.

    Attributes:
        positions: Which, and why.
        is_certain: Whether it is all of these. The client says the same of what it has not sent when the broker refuses
            another message of the transaction.
    """

    def __init__(self, positions: Mapping[int, Exception], *, is_certain: bool = True) -> None:
        """Take them."""
        super().__init__(f"{len(positions)} messages are refused: {next(iter(positions.values()))}")
        self.positions = positions
        self.is_certain = is_certain


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


def send(producer: KafkaProducer, messages: Sequence[Outgoing], sent: list[Any]) -> None:
    """Hand messages to the producer.

    Args:
        producer: That may write.
        messages: In their order.
        sent: Gets the futures of what becomes of them, as many as were handed over before an error.

    Raises:
        RefusedError: Some are too large for it.
        KafkaError: The broker refused one before the last was handed over.
    """
    refused = {}
    for position, (topic, partition, message) in enumerate(messages):
        try:
            sent.append(producer.send(topic, message.value, message.key, message.headers, partition))
        except TOO_LARGE as err:
            refused[position] = err
            sent.append(Future().failure(err))
    if refused:
        raise RefusedError(refused)


def wait_for(sent: Sequence[Any], seconds: float) -> None:
    """Wait until it is known what became of messages.

    Not by `flush`, which gives up where the client splits what is too large for one request.

    Raises:
        KafkaError: The broker does not have all of them, or time is up.
    """
    end, failed = monotonic() + seconds, None
    for future in sent:
        try:
            future.get(timeout=max(0.0, end - monotonic()))
        except kafka_errors.KafkaError as err:
            if not future.is_done:
                raise
            failed = failed or err
    if failed:
        raise failed


def refused_of(sent: Sequence[Any]) -> dict[int, Exception]:
    """Which messages the broker refused."""
    failed = {position: future.exception for position, future in enumerate(sent) if future.failed()}
    return {position: err for position, err in failed.items() if isinstance(err, REFUSED)}


def suspected(refused: Mapping[int, Exception], messages: Sequence[Outgoing]) -> RefusedError:
    """What to say of messages of a transaction that are refused, of which some have only not been sent.

    Those of one partition are sent in their order, and what is too large alone: the first of them it is, then.
    """
    first = min(refused)
    among = [messages[position] for position in refused]
    places = {(topic, message.key if partition is None else partition) for topic, partition, message in among}
    if len(places) == 1 and isinstance(refused[first], TOO_LARGE):
        return RefusedError({first: refused[first]})
    return RefusedError(refused, is_certain=len(refused) == 1)


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
            send(producer, messages, sent)
            producer.send_offsets_to_transaction(positions(offsets), member)
            wait_for(sent, self.settings.transaction_seconds)  # a commit that meets a refusal is never answered
            producer.commit_transaction()
        except RefusedError:
            self.recover()
            raise
        except kafka_errors.KafkaError as err:
            if refused := refused_of(sent):
                # An abort would end it; but the client counts on from what the broker never took, and the transaction
                # after that is never answered.
                self.recover()
                raise suspected(refused, messages) from err
            for held in err.args:
                if isinstance(held, kafka_errors.KafkaError):  # this one says only that another failed
                    raise held from err
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
        sent: list[Any] = []
        try:
            send(producer, messages, sent)
            wait_for(sent, self.settings.transaction_seconds)
        except kafka_errors.KafkaError as err:
            if refused := refused_of(sent):
                raise RefusedError(refused) from err
            raise
        self.consumer.commit(positions(offsets), timeout_ms=10_000)


def positions(offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """Offsets as the client takes them."""
    return {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
