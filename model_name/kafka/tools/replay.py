"""Replay dead letters: send each record back to its topic once, however often the replay runs.

The replay uses a consumer group of its own, NAME-replay. It commits the progress through the dead-letter topic in the
same transaction as the records. Dead letters that were skipped stay pending (`replay_offsets`). Kafka forgets the
offsets of a group after `offsets.retention.minutes`, a week by default: dead letters must not be kept longer.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from threading import Event

from kafka import OffsetAndMetadata, TopicPartition

from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError
from model_name.io.progress import ProgressCallback
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.dead_letters import ATTEMPTS_HEADER, DeadLetter, parse_headers, strip_headers
from model_name.kafka.producers import RoutedRecord
from model_name.kafka.records import ConsumerRecord, OutputRecord
from model_name.kafka.tools.replay_offsets import PendingOffsets, ReplayCheckpoint
from model_name.kafka.tools.replay_producer import TransactionalReplayProducer
from model_name.kafka.tools.replay_sources import SourceLookup
from model_name.kafka.tools.topic_reader import OffsetRange, TopicReader

BATCH_RECORDS = 500  # per transaction
TRANSACTION_BYTES = 32 * 2**20  # of values, after which a transaction is committed


class DeadLetterFilter(FrozenModel):
    """Filter for the dead letters to replay.

    Attributes:
        kind: Class name of the error; empty for any.
        reason: Text that the reason contains; empty for any.
    """

    kind: str = ""
    reason: str = ""

    def matches(self, dead_letter: DeadLetter) -> bool:
        """Return whether a dead letter passes the filter."""
        return self.kind in ("", dead_letter.kind) and self.reason in dead_letter.reason


class ReplayReport(FrozenModel):
    """Counts of the pending dead letters by what happened to them.

    Attributes:
        sent: Dead letters that were sent to their topics; in a dry run, those that would be.
        passed_over: Dead letters that the filter excludes; they stay pending.
        gone: Dead letters whose topic no longer exists, or whose value was too large to keep and has been deleted; they
            stay pending.
        foreign: Records without the source headers of a worker; they stay pending.
        topics: Number of records sent to each topic.
        is_complete: Whether all pending dead letters were read; false after an early stop.
    """

    sent: int
    passed_over: int
    gone: int
    foreign: int
    topics: dict[str, int]
    is_complete: bool


def replay_dead_letters(
    clients: KafkaClientFactory,
    *,
    dead_letter: str,
    group: str,
    to: str = "",
    dead_letter_filter: DeadLetterFilter = DeadLetterFilter(),  # noqa: B008  it is frozen
    is_dry: bool = False,
    stop: Event,
    report: ProgressCallback,
) -> ReplayReport:
    """Send the pending dead letters back, up to the present end of their topic.

    Each record goes to its topic and partition, or to the partition of its key in another topic, with its original
    key, value and headers and the number of attempts. A replay that was killed is continued by the next one.

    Args:
        clients: Factory of the clients of the cluster.
        dead_letter: Dead-letter topic.
        group: Consumer group of the workers.
        to: Topic to send to instead of the original ones.
        dead_letter_filter: Filter for the dead letters to send.
        is_dry: Whether to count the dead letters without sending them.
        stop: Event that ends the replay after the present transaction.
        report: Callback for the progress.

    Raises:
        ConfigError: The target is the dead-letter topic itself.
        NotFoundError: A topic does not exist.
        DataError: The pending offsets do not fit into the offset metadata, or a topic rejects a record.
        DependencyError: The cluster cannot be reached, rejects a request, or another replay of the group runs.
    """
    if to == dead_letter:
        raise ConfigError(
            f"{to}: is where the letters are", hint="name another topic, or none for where they came from"
        )
    count = clients.partition_counts([dead_letter])[dead_letter]
    name = f"{group}-replay"
    with ExitStack() as stack:
        # Before the offsets are read, so that an open transaction of an earlier replay has ended.
        producer = None if is_dry else stack.enter_context(TransactionalReplayProducer(clients, name))
        reader = stack.enter_context(TopicReader(clients, group=name, max_poll_records=BATCH_RECORDS))
        partitions = [TopicPartition(dead_letter, number) for number in range(count)]
        sources = SourceLookup(stack.enter_context(TopicReader(clients, max_poll_records=1)), dead_letter, to)
        return DeadLetterReplay(reader, partitions, sources, dead_letter_filter, producer).run(stop, report)


class DeadLetterReplay:
    """One pass through the pending dead letters.

    Attributes:
        reader: Reader of the dead-letter topic.
        sources: Lookup of the original topics and records.
        filter: Filter for the dead letters to send.
        producer: Producer that sends them; None in a dry run.
        ranges: Range of offsets of each partition.
        pending: Pending dead letters of each partition.
        counts: Number of dead letters that were not sent, by reason.
        topics: Number of records sent to each topic.
    """

    def __init__(
        self,
        reader: TopicReader,
        partitions: Sequence[TopicPartition],
        sources: SourceLookup,
        dead_letter_filter: DeadLetterFilter,
        producer: TransactionalReplayProducer | None,
    ) -> None:
        """Restore the progress that the group has committed.

        Args:
            reader: Reader of the dead-letter topic, with the group of the replay.
            partitions: Partitions of the dead-letter topic.
            sources: Lookup of the original topics and records.
            dead_letter_filter: Filter for the dead letters to send.
            producer: Producer that sends them; None in a dry run.
        """
        self.reader, self.sources, self.filter, self.producer = reader, sources, dead_letter_filter, producer
        self.ranges = reader.offset_ranges(partitions)
        committed = reader.committed(partitions)
        self.pending = {partition: self._restore(partition, offset) for partition, offset in committed.items()}
        self.counts: Counter[str] = Counter()
        self.topics: Counter[str] = Counter()

    def run(self, stop: Event, report: ProgressCallback) -> ReplayReport:
        """Send the pending dead letters."""
        ranges = {
            partition: OffsetRange(self.pending[partition].first_pending, end)
            for partition, (_, end) in self.ranges.items()
        }
        total, done = sum(max(end - begin, 0) for begin, end in ranges.values()), 0
        for batch in self.reader.read(ranges, stop=stop):
            self._process_batch(batch, self.pending[TopicPartition(batch[0].topic, batch[0].partition)])
            done += len(batch)
            report(done, total, f"{self.topics.total():,} sent")
        counts = {name: self.counts[name] for name in ("passed_over", "gone", "foreign")}
        topics = dict(self.topics)
        return ReplayReport(sent=self.topics.total(), topics=topics, is_complete=not stop.is_set(), **counts)

    def _restore(self, partition: TopicPartition, committed: OffsetAndMetadata | None) -> PendingOffsets:
        """Restore the pending dead letters of a partition; all of them if the topic was recreated meanwhile."""
        begin, end = self.ranges[partition]
        if committed is None or committed.offset > end:
            return PendingOffsets.from_checkpoint(None, begin)
        return PendingOffsets.from_checkpoint(ReplayCheckpoint(committed.offset, committed.metadata), begin)

    def _process_batch(self, batch: Sequence[ConsumerRecord], pending: PendingOffsets) -> None:
        """Send the dead letters of a batch in one transaction, or in several if they are large."""
        records: list[RoutedRecord] = []
        offsets: list[int] = []
        size = 0
        for dead_letter in batch:
            is_pending = pending.is_pending(dead_letter.offset)
            replayed = self._to_replayed_record(dead_letter) if is_pending else None
            pending.advance(dead_letter.offset, is_pending=is_pending and replayed is None)
            if replayed is not None:
                records.append(replayed)
                offsets.append(dead_letter.offset)
                size += len(replayed.record.value or b"")
            if size > TRANSACTION_BYTES or dead_letter is batch[-1]:
                partition = TopicPartition(dead_letter.topic, dead_letter.partition)
                self._send(records, offsets, partition, pending)
                records, offsets, size = [], [], 0

    def _send(
        self,
        records: Sequence[RoutedRecord],
        offsets: Sequence[int],
        partition: TopicPartition,
        pending: PendingOffsets,
    ) -> None:
        if records and self.producer is not None:
            self.producer.send(records, offsets, partition, pending.to_checkpoint())
        self.topics.update(record.topic for record in records)

    def _to_replayed_record(self, record: ConsumerRecord) -> RoutedRecord | None:
        """Build the record to send for a pending dead letter; None if it is skipped, which is counted."""
        dead_letter = parse_headers(record.headers)
        if dead_letter.source is None or not self.sources.is_source_topic(dead_letter.source):
            self.counts["foreign"] += 1
            return None
        if not self.filter.matches(dead_letter):
            self.counts["passed_over"] += 1
            return None
        original: ConsumerRecord | None = record
        if dead_letter.dropped_bytes is not None:  # its value was too large, but usually is still in its topic
            original = self.sources.fetch_original(dead_letter.source, record.key, dead_letter.dropped_bytes)
        target = self.sources.target(dead_letter.source, record.key if original is None else original.key)
        if target is None or original is None:
            self.counts["gone"] += 1
            return None
        headers = [*strip_headers(original.headers), (ATTEMPTS_HEADER, b"%d" % dead_letter.attempts)]
        return RoutedRecord(*target, OutputRecord(original.key, original.value, headers))
