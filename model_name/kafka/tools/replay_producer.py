"""Send replayed records and commit the progress of the replay in the same transaction."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from kafka import OffsetAndMetadata, TopicPartition

from model_name.errors import DataError, DependencyError
from model_name.kafka.client import KafkaClientFactory, translate_errors
from model_name.kafka.producers import (
    FENCED_ERRORS,
    PRODUCER_BATCH_BYTES,
    RoutedRecord,
    close_producer,
    rejected_positions,
)
from model_name.kafka.records import RecordPosition
from model_name.kafka.tools.replay_offsets import ReplayCheckpoint

TRANSACTION_SECONDS = 30.0
MAX_REQUEST_BYTES = 2**30  # no limit: the topics have accepted these records once


class TransactionalReplayProducer:
    """Sends records and commits a checkpoint, both or neither.

    Attributes:
        clients: Factory of the clients of the cluster.
        name: Consumer group that commits, and transactional id.
        producer: Transactional producer.
    """

    def __init__(self, clients: KafkaClientFactory, name: str) -> None:
        """Create the producer; the broker aborts the open transaction of an earlier one with this name.

        Args:
            clients: Factory of the clients of the cluster.
            name: Consumer group that commits, and transactional id.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        self.clients = clients
        self.name = name
        self.producer = clients.create_producer(
            client_id=name,
            transactional_id=name,
            transaction_timeout_ms=int(TRANSACTION_SECONDS * 1000),
            delivery_timeout_ms=int(TRANSACTION_SECONDS * 1000),
            max_block_ms=10_000,
            max_request_size=MAX_REQUEST_BYTES,
            batch_size=PRODUCER_BATCH_BYTES,
        )
        try:
            with translate_errors(clients.servers):
                self.producer.init_transactions()
        except DependencyError:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the initialized producer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the producer."""
        self.close()

    def close(self) -> None:
        """Close the producer; an open transaction is aborted by the next one, or by the broker after its timeout."""
        close_producer(self.producer, 1)

    def send(
        self,
        records: Sequence[RoutedRecord],
        offsets: Sequence[int],
        partition: TopicPartition,
        checkpoint: ReplayCheckpoint,
    ) -> None:
        """Send records and commit a checkpoint in one transaction.

        Args:
            records: Replayed records.
            offsets: Offset of the dead letter of each record.
            partition: Partition of the dead letters.
            checkpoint: Checkpoint of that partition after this transaction.

        Raises:
            DataError: A topic rejects one of the records.
            DependencyError: The transaction failed, or its outcome is unknown; the next replay reads what is committed.
        """
        futures: list[Any] = []
        try:
            with translate_errors(self.clients.servers):
                self.producer.begin_transaction()
                for topic, number, record in records:
                    futures.append(self.producer.send(topic, record.value, record.key, record.headers, number))
                offset_metadata = {partition: OffsetAndMetadata(checkpoint.offset, checkpoint.metadata, -1)}
                self.producer.send_offsets_to_transaction(offset_metadata, self.name)
                # After a rejected record others may never be acknowledged, and a commit would wait for them.
                for future in futures:
                    future.get(timeout=TRANSACTION_SECONDS)
                self.producer.commit_transaction()
        except DependencyError as err:
            if isinstance(err.__cause__, FENCED_ERRORS):
                raise DependencyError(f"another replay calls itself {self.name}", hint="let it end") from err
            # The client fails other records with a rejected one; the largest of them certainly is too large.
            if rejected := rejected_positions(futures):
                largest = max(rejected, key=lambda position: records[position].record.size)
                topic, _, record = records[largest]
                dead_letter = RecordPosition(partition.topic, partition.partition, offsets[largest])
                raise DataError(
                    f"{topic}: refuses {dead_letter}, which has {record.size:,} bytes: {err.message}",
                    hint="raise max.message.bytes of the topic; --reason and --kind pass over letters",
                ) from err
            raise
