"""Whether each record of a topic has one answer, in order: what was promised, seen from outside."""

from collections.abc import Mapping
from math import inf

from kafka import OffsetAndMetadata, TopicPartition

from model_name.errors import ConfigError, NotFoundError
from model_name.io.progress import ProgressCallback
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.dead_letters import DEAD_LETTER_SOURCE_HEADERS as LETTER
from model_name.kafka.records import RESULT_SOURCE_HEADERS, parse_source
from model_name.kafka.tools.delivery_audit import Accounts, Verdict
from model_name.kafka.tools.topic_reader import Span, TopicReader


def verify(
    connection: KafkaClientFactory, *, input_: str, output: str, dead_letter: str, group: str | None, report: ProgressCallback
) -> Verdict:
    """Read three topics from their beginning to where they end now, and hold them against each other.

    Workers may go on meanwhile. What a compacted output has forgotten counts as lost.

    Args:
        connection: To the cluster.
        input_: The topic of the records.
        output: That of the results.
        dead_letter: That of the records without.
        group: Of the workers; what it has not committed is waiting. Without, all must be answered.
        report: Where to say how far it is.

    Raises:
        ConfigError: Two of the topics are one.
        NotFoundError: A topic does not exist, or the group has committed nothing.
        DependencyError: The cluster cannot be reached, refuses, or nothing more comes.
    """
    if len({input_, output, dead_letter}) < 3:
        raise ConfigError(f"input, output and dead letters are three topics, not {input_}, {output}, {dead_letter}")
    with TopicReader(connection, group=group) as reader:
        records = reader.partitions(input_)
        # In this order: what answers a record is written before the record is committed. Only what commits it may
        # reach the group earlier than the output, so that transactions which are open there are waited for.
        committed = reader.committed(records) if group else None
        spans = reader.spans(records)
        with TopicReader(connection, isolation="read_uncommitted") as ahead:
            replies = ahead.spans(reader.partitions(output, dead_letter))
        if committed and not any(committed.values()) and any(span.begin < span.end for span in spans.values()):
            raise NotFoundError(f"{group}: has committed nothing of {input_}", hint="check the name of the group")
        accounts = Accounts(input_, {one.partition: span for one, span in spans.items()}, _due(spans, committed))
        total = sum(end - begin for begin, end in (*spans.values(), *replies.values()))
        done, horizon = 0, _Horizon(replies)
        for batch in reader.read(replies):
            is_result = batch[0].topic == output
            for record in batch:
                source = parse_source(record.headers, RESULT_SOURCE_HEADERS if is_result else LETTER)
                accounts.reply(record, source, is_result=is_result)
            horizon.see(batch[0].topic, batch[0].partition, batch[0].timestamp)
            report(done := done + len(batch), total, batch[0].topic)
        oldest = horizon.timestamp
        for batch in reader.read(spans):
            is_old = [record.timestamp <= oldest for record in batch]
            accounts.records(batch[0].partition, [record.offset for record in batch], is_old)
            report(done := done + len(batch), total, input_)
        for one, span in reader.spans(records).items():
            accounts.begins_at(one.partition, span.begin)
        return accounts.verdict()


def _due(
    spans: Mapping[TopicPartition, Span], committed: Mapping[TopicPartition, OffsetAndMetadata | None] | None
) -> dict[int, int]:
    """Up to where each partition must be answered: as far as is committed, or all of it if that is not asked."""
    if committed is None:
        return {one.partition: span.end for one, span in spans.items()}
    return {one.partition: found.offset if found else 0 for one, found in committed.items()}


class _Horizon:
    """How old a record must be at least for its answer to have been cleaned away.

    What a partition has lost at its beginning is no younger than what is left of it; where nothing is left, it may
    have been anything.
    """

    def __init__(self, spans: Mapping[TopicPartition, Span]) -> None:
        self._oldest = {one: inf for one, span in spans.items() if span.begin > 0}

    def see(self, topic: str, partition: int, timestamp: float) -> None:
        """Take the first timestamp of a partition, in milliseconds."""
        if self._oldest.get(one := TopicPartition(topic, partition)) == inf:
            self._oldest[one] = timestamp

    @property
    def timestamp(self) -> float:
        """In milliseconds since 1970; that and before is too old."""
        return max(self._oldest.values(), default=-inf)
