"""Read ranges of offsets of partitions without joining a consumer group."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from threading import Event
from time import monotonic
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from kafka import OffsetAndMetadata, TopicPartition

from model_name.errors import DependencyError
from model_name.kafka.client import KafkaClientFactory, translate_errors
from model_name.kafka.records import ConsumerRecord

STALL_TIMEOUT_SECONDS = 45.0
"""Time without progress. A broker aborts the transaction of a dead worker after 30 seconds, and checks every ten."""

POLL_SECONDS = 0.1
MAX_POLL_RECORDS = 5000
COMMITTED_TIMEOUT_SECONDS = STALL_TIMEOUT_SECONDS  # the request waits for open transactions


class OffsetRange(NamedTuple):
    """Offsets of a partition from `begin` up to, but excluding, `end`."""

    begin: int
    end: int


class TopicReader:
    """Reads ranges of offsets of any partitions.

    Attributes:
        clients: Factory of the clients of the cluster.
        consumer: Consumer that reads; it is assigned partitions and joins no group.
    """

    def __init__(
        self,
        clients: KafkaClientFactory,
        *,
        group: str | None = None,
        max_poll_records: int = MAX_POLL_RECORDS,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    ) -> None:
        """Connect to the cluster.

        Args:
            clients: Factory of the clients of the cluster.
            group: Consumer group whose committed offsets `committed` returns; the reader does not join it.
            max_poll_records: Largest number of records of a batch.
            isolation: Isolation level; with `read_committed` reading ends before an open transaction.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        self.clients = clients
        self.consumer = clients.create_consumer(
            group_id=group,
            auto_offset_reset="earliest",
            max_poll_records=max_poll_records,
            isolation_level=isolation,
            check_crcs=False,  # the broker checks them; in Python this takes three times as long as all the rest
        )

    def __enter__(self) -> Self:
        """Return the connected reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the consumer."""
        self.consumer.close(autocommit=False, timeout_ms=1000)

    def partitions(self, *topics: str) -> list[TopicPartition]:
        """List all partitions of topics.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
            NotFoundError: A topic does not exist.
        """
        counts = self.clients.partition_counts(topics)
        return [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])]

    def offset_ranges(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, OffsetRange]:
        """Look up the range of each partition: from its log start to its end, or to the first open transaction.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        with translate_errors(self.clients.servers):
            begins = self.consumer.beginning_offsets(partitions)
            ends = self.consumer.end_offsets(partitions)
        return {partition: OffsetRange(begins[partition], ends[partition]) for partition in partitions}

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Look up the committed offset of the group for each partition; None if there is none.

        Raises:
            DependencyError: The cluster cannot be reached, rejects a request, or a transaction stays open.
        """
        timeout_ms = int(COMMITTED_TIMEOUT_SECONDS * 1000)
        with translate_errors(self.clients.servers):
            return {one: self.consumer.committed(one, metadata=True, timeout_ms=timeout_ms) for one in partitions}

    def read(
        self,
        ranges: Mapping[TopicPartition, OffsetRange],
        *,
        stall_timeout_seconds: float = STALL_TIMEOUT_SECONDS,
        stop: Event | None = None,
    ) -> Iterator[Sequence[ConsumerRecord]]:
        """Read the records of ranges in batches, each of one partition and in order.

        Args:
            ranges: Range of each partition.
            stall_timeout_seconds: Time without progress after which reading is given up.
            stop: Event that ends reading early.

        Raises:
            DependencyError: The cluster cannot be reached, rejects a request, or there is no progress.
        """
        ends = {partition: end for partition, (begin, end) in ranges.items() if begin < end}
        self._seek({partition: ranges[partition].begin for partition in ends})
        positions: dict[TopicPartition, Any] = {}
        last_progress = monotonic()
        while ends and not (stop and stop.is_set()):
            with translate_errors(self.clients.servers):
                polled = self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000))
                # Aborted and compacted records are not polled: only the position shows that they are passed.
                reached = {partition: self.consumer.position(partition, timeout_ms=1000) or 0 for partition in ends}
            for partition, records in polled.items():
                end = ends[partition]
                within = records if records[-1].offset < end else [one for one in records if one.offset < end]
                if within:
                    yield within
            if reached != positions:
                positions, last_progress = reached, monotonic()
            elif monotonic() - last_progress > stall_timeout_seconds:
                raise self._stall_error(positions, ends)
            finished = [partition for partition, end in ends.items() if reached[partition] >= end]
            for partition in finished:
                del ends[partition]
            self.consumer.pause(*finished)

    def follow(self, begins: Mapping[TopicPartition, int], stop: Event) -> Iterator[Sequence[ConsumerRecord]]:
        """Read the records from given offsets on, and wait for more until `stop` is set.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        ranges = {partition: OffsetRange(begin, 2**63) for partition, begin in begins.items()}
        return self.read(ranges, stall_timeout_seconds=inf, stop=stop)

    def _seek(self, begins: Mapping[TopicPartition, int]) -> None:
        """Assign partitions and seek each to its offset."""
        self.consumer.assign([*begins])
        self.consumer.resume(*begins)
        for partition, begin in begins.items():
            self.consumer.seek(partition, begin)

    def _stall_error(
        self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> DependencyError:
        """Build the error of partitions without progress."""
        where = ", ".join(f"{one.topic}[{one.partition}] at {positions[one]} of {ends[one]}" for one in sorted(ends))
        return DependencyError(
            f"Kafka at {', '.join(self.clients.servers)}: nothing more comes of {where}",
            hint="see whether its brokers are well, and whether someone has left a transaction open",
        )
