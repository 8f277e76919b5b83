"""Partitions read from one offset to another, outside of any group: for those who look at a topic."""

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

PATIENCE_SECONDS = 45.0
"""Without progress. A broker aborts what a dead worker began after 30 seconds, and looks for that every ten."""

POLL_SECONDS = 0.1
MOST_RECORDS = 5000  # of a poll
COMMITTED_SECONDS = PATIENCE_SECONDS  # offsets of a transaction that is under way are waited for


class Span(NamedTuple):
    """Offsets of a partition, from `begin` up to but without `end`."""

    begin: int
    end: int


class TopicReader:
    """Reads any partitions, each from where it is told to where it is told."""

    def __init__(
        self,
        connection: KafkaClientFactory,
        *,
        group: str | None = None,
        most: int = MOST_RECORDS,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    ) -> None:
        """Connect.

        Args:
            connection: To the cluster.
            group: Whose committed offsets are asked for; it is not joined.
            most: Records that are handed out at once.
            isolation: Whether open transactions end what can be read.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        self.connection = connection
        self.consumer = connection.consumer(
            group_id=group,
            auto_offset_reset="earliest",
            max_poll_records=most,
            isolation_level=isolation,
            check_crcs=False,  # the broker has, and in Python it takes three times as long as all the rest
        )

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the connection."""
        self.consumer.close(autocommit=False, timeout_ms=1000)

    def partitions(self, *topics: str) -> list[TopicPartition]:
        """All partitions of topics.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
            NotFoundError: There is no such topic.
        """
        counts = self.connection.partitions(topics)
        return [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])]

    def spans(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, Span]:
        """From the first record that is there to the first that is not, or not committed yet.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        with translate_errors(self.connection.servers):
            begins = self.consumer.beginning_offsets(partitions)
            ends = self.consumer.end_offsets(partitions)
        return {partition: Span(begins[partition], ends[partition]) for partition in partitions}

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group has committed for each; None where that is nothing.

        Raises:
            DependencyError: The cluster cannot be reached, refuses, or a transaction does not come to its end.
        """
        milliseconds = int(COMMITTED_SECONDS * 1000)
        with translate_errors(self.connection.servers):
            return {one: self.consumer.committed(one, metadata=True, timeout_ms=milliseconds) for one in partitions}

    def read(
        self, spans: Mapping[TopicPartition, Span], *, patience: float = PATIENCE_SECONDS, stop: Event | None = None
    ) -> Iterator[Sequence[ConsumerRecord]]:
        """The records, some of one partition at a time and in their order.

        Args:
            spans: What to read.
            patience: Seconds without progress, after which it is given up.
            stop: Ends it earlier.

        Raises:
            DependencyError: The cluster cannot be reached, refuses, or nothing more comes.
        """
        left = {partition: end for partition, (begin, end) in spans.items() if begin < end}
        self._go_to({partition: spans[partition].begin for partition in left})
        positions: dict[TopicPartition, Any] = {}
        moved = monotonic()
        while left and not (stop and stop.is_set()):
            with translate_errors(self.connection.servers):
                polled = self.consumer.poll(timeout_ms=int(POLL_SECONDS * 1000))
                # Of records that were aborted or cleaned away, the position alone tells that they are behind.
                reached = {partition: self.consumer.position(partition, timeout_ms=1000) or 0 for partition in left}
            for partition, records in polled.items():
                end = left[partition]
                within = records if records[-1].offset < end else [one for one in records if one.offset < end]
                if within:
                    yield within
            if reached != positions:
                positions, moved = reached, monotonic()
            elif monotonic() - moved > patience:
                raise self._stuck(positions, left)
            done = [partition for partition, end in left.items() if reached[partition] >= end]
            for partition in done:
                del left[partition]
            self.consumer.pause(*done)

    def follow(self, begins: Mapping[TopicPartition, int], stop: Event) -> Iterator[Sequence[ConsumerRecord]]:
        """As `read`, but without an end.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        return self.read({one: Span(begin, 2**63) for one, begin in begins.items()}, patience=inf, stop=stop)

    def _go_to(self, begins: Mapping[TopicPartition, int]) -> None:
        self.consumer.assign([*begins])
        self.consumer.resume(*begins)
        for partition, begin in begins.items():
            self.consumer.seek(partition, begin)

    def _stuck(self, positions: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> DependencyError:
        where = ", ".join(f"{one.topic}[{one.partition}] at {positions[one]} of {ends[one]}" for one in sorted(ends))
        return DependencyError(
            f"Kafka at {', '.join(self.connection.servers)}: nothing more comes of {where}",
            hint="see whether its brokers are well, and whether someone has left a transaction open",
        )
