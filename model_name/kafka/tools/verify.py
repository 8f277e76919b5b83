"""Verify from the topics alone that each record has one result or dead letter, in order."""

from collections.abc import Mapping
from math import inf

from kafka import OffsetAndMetadata, TopicPartition

from model_name.errors import ConfigError, NotFoundError
from model_name.io.progress import ProgressCallback
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.dead_letters import DEAD_LETTER_SOURCE_HEADERS
from model_name.kafka.records import RESULT_SOURCE_HEADERS, parse_source
from model_name.kafka.tools.delivery_audit import DeliveryAudit, VerificationReport
from model_name.kafka.tools.topic_reader import OffsetRange, TopicReader


def verify_delivery(
    clients: KafkaClientFactory,
    *,
    input_: str,
    output: str,
    dead_letter: str,
    group: str | None,
    report: ProgressCallback,
) -> VerificationReport:
    """Read three topics up to their present ends and compare the records with their results and dead letters.

    Workers may run meanwhile. A result that compaction has removed counts as lost.

    Args:
        clients: Factory of the clients of the cluster.
        input_: Topic of the records.
        output: Topic of the results.
        dead_letter: Topic of the dead letters.
        group: Consumer group of the workers, whose uncommitted records may have no result yet; without a group every
            record must have one.
        report: Callback for the progress.

    Raises:
        ConfigError: Two of the topics are the same.
        NotFoundError: A topic does not exist, or the group has committed nothing.
        DependencyError: The cluster cannot be reached, rejects a request, or there is no progress.
    """
    if len({input_, output, dead_letter}) < 3:
        raise ConfigError(f"input, output and dead letters are three topics, not {input_}, {output}, {dead_letter}")
    with TopicReader(clients, group=group) as reader:
        partitions = reader.partitions(input_)
        # In this order: a result is written before its record is committed, so that the outputs are read up to a later
        # moment than the committed offsets. The commit of a transaction may reach the group before the output topic,
        # hence `read_uncommitted` for the ends: reading waits for transactions that are still open there.
        committed = reader.committed(partitions) if group else None
        ranges = reader.offset_ranges(partitions)
        with TopicReader(clients, isolation="read_uncommitted") as uncommitted:
            outputs = uncommitted.offset_ranges(uncommitted.partitions(output, dead_letter))
        if committed and not any(committed.values()) and any(one.begin < one.end for one in ranges.values()):
            raise NotFoundError(f"{group}: has committed nothing of {input_}", hint="check the name of the group")
        audit = DeliveryAudit(
            input_, {one.partition: offsets for one, offsets in ranges.items()}, _due_offsets(ranges, committed)
        )
        total = sum(end - begin for begin, end in (*ranges.values(), *outputs.values()))
        done, horizon = 0, _RetentionHorizon(outputs)
        for batch in reader.read(outputs):
            is_result = batch[0].topic == output
            names = RESULT_SOURCE_HEADERS if is_result else DEAD_LETTER_SOURCE_HEADERS
            for record in batch:
                audit.add_output(record, parse_source(record.headers, names), is_result=is_result)
            horizon.observe(batch[0].topic, batch[0].partition, batch[0].timestamp)
            report(done := done + len(batch), total, batch[0].topic)
        oldest = horizon.timestamp
        for batch in reader.read(ranges):
            is_old = [record.timestamp <= oldest for record in batch]
            audit.add_inputs(batch[0].partition, [record.offset for record in batch], is_old)
            report(done := done + len(batch), total, input_)
        for partition, offsets in reader.offset_ranges(partitions).items():
            audit.set_log_start(partition.partition, offsets.begin)
        return audit.report()


def _due_offsets(
    ranges: Mapping[TopicPartition, OffsetRange], committed: Mapping[TopicPartition, OffsetAndMetadata | None] | None
) -> dict[int, int]:
    """Determine the offset up to which each partition must have results: the committed one, or else the end."""
    if committed is None:
        return {one.partition: offsets.end for one, offsets in ranges.items()}
    return {one.partition: offset.offset if offset else 0 for one, offset in committed.items()}


class _RetentionHorizon:
    """Timestamp up to which the result of a record may have been deleted by retention.

    The deleted records of a partition are no younger than its first remaining one; if none remains, they may be of any
    age.
    """

    def __init__(self, ranges: Mapping[TopicPartition, OffsetRange]) -> None:
        self._oldest = {one: inf for one, offsets in ranges.items() if offsets.begin > 0}

    def observe(self, topic: str, partition: int, timestamp: float) -> None:
        """Record the first timestamp of a partition, in milliseconds; later ones are ignored."""
        if self._oldest.get(one := TopicPartition(topic, partition)) == inf:
            self._oldest[one] = timestamp

    @property
    def timestamp(self) -> float:
        """Horizon in milliseconds since 1970."""
        return max(self._oldest.values(), default=-inf)
