"""Dead letters, sent back to where they came from: each once, however often that is asked for.

A group of its own, NAME-replay, commits how far the dead-letter topic has been replayed, in the transaction that holds
what was sent. Letters that were passed over stay to be replayed (`remainders`). Kafka forgets the offsets of a group
after `offsets.retention.minutes`, a week by default: let no letter be older than that.
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
from model_name.kafka.dead_letters import ATTEMPTS_HEADER, DeadLetter, strip_headers, parse_headers
from model_name.kafka.records import OutputRecord, ConsumerRecord
from model_name.kafka.tools.replay_offsets import ReplayCheckpoint, PendingOffsets
from model_name.kafka.tools.replay_producer import TransactionalReplayProducer
from model_name.kafka.tools.replay_sources import SourceLookup
from model_name.kafka.tools.topic_reader import OffsetRange, TopicReader
from model_name.kafka.producers import RoutedRecord

BATCH_RECORDS = 500  # that share a transaction
TRANSACTION_BYTES = 32 * 2**20  # of values, after which the next one begins


class DeadLetterFilter(FrozenModel):
    """Which letters are sent.

    Attributes:
        kind: Of error, by its whole name; any by default.
        reason: A part of what is said of the error; any by default.
    """

    kind: str = ""
    reason: str = ""

    def takes(self, letter: DeadLetter) -> bool:
        """Whether it is one of them."""
        return self.kind in ("", letter.kind) and self.reason in letter.reason


class ReplayReport(FrozenModel):
    """What became of the letters that were left.

    Attributes:
        sent: To their topics; in a dry run, that would be.
        passed_over: That the filter does not take; they stay.
        gone: Whose topic is gone, or whose value, if it was too large for a letter; they stay.
        foreign: That do not say where they came from, and are no dead letters of a worker; they stay.
        topics: How many went where.
        is_complete: Whether it went through all; not when it was told to stop.
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
    only: DeadLetterFilter = DeadLetterFilter(),  # noqa: B008  it is frozen
    is_dry: bool = False,
    stop: Event,
    report: ProgressCallback,
) -> ReplayReport:
    """Send the dead letters that are there now, and were not sent before.

    Each goes to its topic and partition, or to the partition of its key in another topic, with the key, the value and
    the headers that it had, and the number of attempts. A replay that was killed goes on with the next.

    Args:
        clients: To the cluster.
        dead_letter: The topic of the letters.
        group: Of the workers.
        to: Where to send them instead.
        only: Which of them.
        is_dry: Whether to count them only.
        stop: Ends it after the transaction that is under way.
        report: Where to say how far it is.

    Raises:
        ConfigError: They would be sent to where they are.
        NotFoundError: A topic does not exist.
        DataError: What is passed over lies too scattered to be kept in mind, or a topic refuses a letter.
        DependencyError: The cluster cannot be reached, refuses, or another replay of the group runs.
    """
    if to == dead_letter:
        raise ConfigError(
            f"{to}: is where the letters are", hint="name another topic, or none for where they came from"
        )
    letters = clients.partition_counts([dead_letter])[dead_letter]
    name = f"{group}-replay"
    with ExitStack() as stack:
        # Before the offsets are read: whatever an earlier one has begun comes to its end.
        outbox = None if is_dry else stack.enter_context(TransactionalReplayProducer(clients, name))
        reader = stack.enter_context(TopicReader(clients, group=name, most=BATCH_RECORDS))
        partitions = [TopicPartition(dead_letter, number) for number in range(letters)]
        origins = SourceLookup(stack.enter_context(TopicReader(clients, most=1)), dead_letter, to)
        return DeadLetterReplay(reader, partitions, origins, only, outbox).run(stop, report)


class DeadLetterReplay:
    """Goes once through the letters."""

    def __init__(
        self,
        reader: TopicReader,
        partitions: Sequence[TopicPartition],
        origins: SourceLookup,
        only: DeadLetterFilter,
        outbox: TransactionalReplayProducer | None,
    ) -> None:
        """Begin where the group has come to.

        Args:
            reader: With the group of the replay.
            partitions: Of the letters.
            origins: Of the letters.
            only: Which of them.
            outbox: What sends them; without, they are counted.
        """
        self.reader, self.origins, self.only, self.outbox = reader, origins, only, outbox
        self.spans = reader.spans(partitions)
        self.remainders = {one: self._remainder(one, found) for one, found in reader.committed(partitions).items()}
        self.counts: Counter[str] = Counter()
        self.topics: Counter[str] = Counter()

    def run(self, stop: Event, report: ProgressCallback) -> ReplayReport:
        """Send what is left of them."""
        spans = {one: OffsetRange(self.remainders[one].begin, end) for one, (_, end) in self.spans.items()}
        total, done = sum(max(end - begin, 0) for begin, end in spans.values()), 0
        for batch in self.reader.read(spans, stop=stop):
            self._take(batch, self.remainders[TopicPartition(batch[0].topic, batch[0].partition)])
            done += len(batch)
            report(done, total, f"{self.topics.total():,} sent")
        counts = {name: self.counts[name] for name in ("passed_over", "gone", "foreign")}
        topics = dict(self.topics)
        return ReplayReport(sent=self.topics.total(), topics=topics, is_complete=not stop.is_set(), **counts)

    def _remainder(self, partition: TopicPartition, found: OffsetAndMetadata | None) -> PendingOffsets:
        """What is left of a partition; all of it where the topic was made anew meanwhile."""
        begin, end = self.spans[partition]
        mark = ReplayCheckpoint(found.offset, found.metadata) if found is not None and found.offset <= end else None
        return PendingOffsets.read(mark, begin)

    def _take(self, batch: Sequence[ConsumerRecord], remainder: PendingOffsets) -> None:
        """Send those of a batch that are to be sent, in one transaction or, where they are large, in several."""
        messages: list[RoutedRecord] = []
        offsets: list[int] = []
        size = 0
        for record in batch:
            is_left = remainder.has(record.offset)
            found = self._outgoing(record) if is_left else None
            remainder.pass_by(record.offset, is_left=is_left and found is None)
            if found is not None:
                messages.append(found)
                offsets.append(record.offset)
                size += len(found.message.value or b"")
            if size > TRANSACTION_BYTES or record is batch[-1]:
                self._send(messages, offsets, TopicPartition(record.topic, record.partition), remainder)
                messages, offsets, size = [], [], 0

    def _send(
        self, messages: Sequence[RoutedRecord], offsets: Sequence[int], partition: TopicPartition, remainder: PendingOffsets
    ) -> None:
        if messages and self.outbox is not None:
            self.outbox.send(messages, offsets, partition, remainder.mark())
        self.topics.update(message.topic for message in messages)

    def _outgoing(self, record: ConsumerRecord) -> RoutedRecord | None:
        """What to send for a letter that is left, if anything."""
        letter = parse_headers(record.headers)
        if letter.source is None or not self.origins.has(letter.source):
            self.counts["foreign"] += 1
            return None
        if not self.only.takes(letter):
            self.counts["passed_over"] += 1
            return None
        whole: ConsumerRecord | None = record
        if letter.dropped_bytes is not None:  # what was too large is still where it came from, as a rule
            whole = self.origins.record(letter.source, record.key, letter.dropped_bytes)
        address = self.origins.address(letter.source, record.key if whole is None else whole.key)
        if address is None or whole is None:
            self.counts["gone"] += 1
            return None
        headers = [*strip_headers(whole.headers), (ATTEMPTS_HEADER, b"%d" % letter.attempts)]
        return RoutedRecord(*address, OutputRecord(whole.key, whole.value, headers))
