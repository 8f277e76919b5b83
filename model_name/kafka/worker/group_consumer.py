"""Consume the input topic as a member of the group: assignments, polling, offsets and lag."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka import errors as kafka_errors
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from loguru import logger
from typing_extensions import override

from model_name.kafka.client import KafkaClientFactory, translate_errors
from model_name.kafka.records import ConsumerRecord
from model_name.kafka.worker.delivery import to_offset_metadata
from model_name.kafka.worker.worker_settings import WorkerSettings

OFFSET_TIMEOUT_MS = 10_000  # to read or commit an offset
PING_TIMEOUT_MS = 2000
MAX_FETCH_BYTES = 16 * 2**20  # fetched and not yet polled, from each broker


class PolledRecords(NamedTuple):
    """Records by partition, and the metadata of this member of the group when they were polled."""

    records: Mapping[TopicPartition, Sequence[ConsumerRecord]]
    member: Any


class GroupConsumer:
    """Consumer of the input topic in the group of the worker.

    Attributes:
        consumer: Consumer of kafka-python.
        has_joined: Whether the group has assigned partitions to it, possibly none.
        needs_seek: Whether the assignment has changed, so that polling must resume from the committed offsets.
        positions: Committed position of each assigned partition, as far as it is known.
    """

    def __init__(self, clients: KafkaClientFactory, settings: WorkerSettings) -> None:
        """Create the consumer; it joins the group with the first poll after `subscribe`.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        self._clients, self._settings = clients, settings
        self.has_joined = False
        self.needs_seek = True
        self.positions: dict[TopicPartition, int] = {}
        self.consumer: KafkaConsumer = clients.create_consumer(
            group_id=settings.group,
            client_id=settings.instance,
            auto_offset_reset="earliest",  # where the committed offset has been deleted by retention
            max_poll_records=settings.max_poll_records,
            session_timeout_ms=int(settings.session_seconds * 1000),
            heartbeat_interval_ms=int(settings.session_seconds * 1000 / 4),
            partition_assignment_strategy=[StickyPartitionAssignor],
            fetch_max_bytes=MAX_FETCH_BYTES,
            max_partition_fetch_bytes=max(settings.max_record_bytes, 2**20),
        )

    def subscribe(self) -> None:
        """Subscribe to the input topic.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        self.consumer.subscribe([self._settings.input], listener=RebalanceListener(self))
        # A group leader without metadata of the topic assigns no partitions.
        with translate_errors(self._clients.servers):
            self.consumer.partitions_for_topic(self._settings.input)

    def poll(self, timeout_seconds: float) -> PolledRecords | None:
        """Poll records; None if there are none, or if the group was rebalanced during the poll."""
        records = self.consumer.poll(timeout_ms=int(timeout_seconds * 1000))
        member = self.consumer.group_metadata()
        if records and not self.needs_seek and member.generation_id < 0:
            self.needs_seek = True  # expelled by this poll; any client may commit offsets without a generation
        return None if self.needs_seek or not records else PolledRecords(records, member)

    def poll_paused(self, timeout_seconds: float = 0.0) -> PolledRecords | None:
        """Poll with all assigned partitions paused, to stay in the group; only newly assigned ones return records."""
        assigned = self.consumer.assignment()
        self.consumer.pause(*assigned)
        try:
            return self.poll(timeout_seconds)
        finally:
            with suppress(kafka_errors.KafkaError, KeyError):
                self.consumer.resume(*assigned & self.consumer.assignment())

    def seek_to_committed(self) -> None:
        """Seek each assigned partition to its committed offset; if there is none, commit and seek to the initial one.

        After a rebalance the client keeps its position in a partition that it is assigned again, even if the records
        before that position are not committed. No batch may be in flight.

        Raises:
            KafkaError: The offsets cannot be read or committed.
        """
        self.needs_seek = False  # before the requests, during which the assignment may change again
        initial: dict[TopicPartition, int] = {}
        for partition in self.consumer.assignment():
            offset = self.consumer.committed(partition, timeout_ms=OFFSET_TIMEOUT_MS)
            if offset is None:
                offset = initial[partition] = self._initial_offset(partition)
            self.consumer.seek(partition, offset)
            self.positions[partition] = offset
        if initial:
            self.consumer.commit(to_offset_metadata(initial), timeout_ms=OFFSET_TIMEOUT_MS)

    def _initial_offset(self, partition: TopicPartition) -> int:
        """Look up the offset at which a group without committed offsets begins."""
        is_earliest = self._settings.start == "earliest"
        look_up = self.consumer.beginning_offsets if is_earliest else self.consumer.end_offsets
        offset: int = look_up([partition], timeout_ms=OFFSET_TIMEOUT_MS)[partition]
        return offset

    def lags(self) -> dict[TopicPartition, int]:
        """Compute the lag of each assigned partition from the last fetch responses."""
        ends = {partition: self.consumer.highwater(partition) for partition in self.consumer.assignment()}
        return {
            partition: end - self.positions.get(partition, end) for partition, end in ends.items() if end is not None
        }

    def ping_coordinator(self) -> None:
        """Contact the coordinator of the group.

        Raises:
            KafkaError: The coordinator does not respond, or rejects the request.
        """
        self.consumer.committed(TopicPartition(self._settings.input, 0), timeout_ms=PING_TIMEOUT_MS)

    def on_assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Record a new assignment of partitions."""
        self.has_joined = self.needs_seek = True
        self.positions.clear()
        names = ", ".join(f"{partition.topic}[{partition.partition}]" for partition in sorted(partitions))
        logger.info("assigned partitions: {}", names or "none")

    def close(self) -> None:
        """Leave the group and close the consumer.

        Raises:
            KafkaError: The coordinator does not respond.
        """
        self.consumer.close(autocommit=False, timeout_ms=1000)


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Passes new assignments to a `GroupConsumer`.

    Revoked partitions need no handling: the broker rejects commits for them.
    """

    def __init__(self, group: GroupConsumer) -> None:
        """Create a listener."""
        self._group = group

    @override
    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Ignore revoked partitions."""

    @override
    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._group.on_assigned(assigned)
