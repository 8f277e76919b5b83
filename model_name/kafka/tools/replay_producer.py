"""What sends messages and notes in the same transaction how far it has come."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from kafka import OffsetAndMetadata, TopicPartition
from kafka import errors as kafka_errors

from model_name.errors import DataError, DependencyError
from model_name.kafka.client import KafkaClientFactory, translate_errors
from model_name.kafka.records import RecordPosition
from model_name.kafka.tools.replay_offsets import Mark
from model_name.kafka.worker.delivery import PRODUCER_BATCH_BYTES, RoutedRecord, close_producer, rejected_positions

TRANSACTION_SECONDS = 30.0
REQUEST_BYTES = 2**30  # what a topic has taken once is not for this side to refuse
FENCED = (kafka_errors.ProducerFencedError, kafka_errors.InvalidProducerEpochError)


class Outbox:
    """Sends letters and commits how far it has come, both or nothing."""

    def __init__(self, connection: KafkaClientFactory, name: str) -> None:
        """End whatever an earlier one of the name has begun.

        Args:
            connection: To the cluster.
            name: Of the group that commits.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        self.connection = connection
        self.name = name
        self.producer = connection.producer(
            client_id=name,
            transactional_id=name,
            transaction_timeout_ms=int(TRANSACTION_SECONDS * 1000),
            delivery_timeout_ms=int(TRANSACTION_SECONDS * 1000),
            max_block_ms=10_000,
            max_request_size=REQUEST_BYTES,
            batch_size=PRODUCER_BATCH_BYTES,
        )
        try:
            with translate_errors(connection.servers):
                self.producer.init_transactions()
        except DependencyError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """It may send."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the producer."""
        self.close()

    def close_producer(self) -> None:
        """Let go of the producer; what it has not committed is aborted by the next one, or by the broker."""
        close_producer(self.producer, 1)

    def send(self, messages: Sequence[RoutedRecord], offsets: Sequence[int], partition: TopicPartition, mark: Mark) -> None:
        """Send messages, and commit for a partition what is left of it.

        Args:
            messages: What is sent for letters.
            offsets: Of the letters.
            partition: Where they lie.
            mark: What is left.

        Raises:
            DataError: A topic refuses one of them.
            DependencyError: It did not work, or it is not known whether it did; the next replay knows.
        """
        sent: list[Any] = []
        try:
            with translate_errors(self.connection.servers):
                self.producer.begin_transaction()
                for topic, number, message in messages:
                    sent.append(self.producer.send(topic, message.value, message.key, message.headers, number))
                left = {partition: OffsetAndMetadata(mark.offset, mark.text, -1)}
                self.producer.send_offsets_to_transaction(left, self.name)
                for future in sent:  # what follows a refused one may never be answered, and a commit would wait for it
                    future.get(timeout=TRANSACTION_SECONDS)
                self.producer.commit_transaction()
        except DependencyError as err:
            if isinstance(err.__cause__, FENCED):
                raise DependencyError(f"another replay calls itself {self.name}", hint="let it end") from err
            if refused := rejected_positions(sent):  # others fail with it; the largest is one that deserves it
                largest = max(refused, key=lambda position: messages[position].message.size)
                topic, _, message = messages[largest]
                letter = RecordPosition(partition.topic, partition.partition, offsets[largest])
                raise DataError(
                    f"{topic}: refuses {letter}, which has {message.size:,} bytes: {err.message}",
                    hint="raise max.message.bytes of the topic; --reason and --kind pass over letters",
                ) from err
            raise
