"""What became of each record of a topic, held by offset in a few bytes a record, so that memory takes many millions."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.kafka.records import ConsumerRecord, RecordPosition
from model_name.kafka.tools.topic_reader import OffsetRange

MAX_EXAMPLES = 20
NO_KEY = 0


class Finding(FrozenModel):
    """Records of which the same is to be said.

    Attributes:
        count: How many.
        examples: Some of them, and where their results lie.
    """

    count: int = 0
    examples: LaxTuple[str] = ()


class VerificationReport(FrozenModel):
    """Whether each record was answered once, and in order.

    Attributes:
        records: Of the input.
        results: In the output.
        dead_letters: Beside them.
        lost: Records that are committed, and have neither result nor dead letter.
        doubled: Records that have more than one.
        reordered: Records whose result lies behind that of a later record of their partition, or, where they have a
            key, in another partition than that of an earlier record of that key.
        unknown: Results of records that were never there.
        foreign: Results that name no record of the input.
        waiting: Records that are not committed and not answered yet.
        expired: Records without an answer that are so old that it may have been cleaned away.
    """

    records: int
    results: int
    dead_letters: int
    lost: Finding
    doubled: Finding
    reordered: Finding
    unknown: Finding
    foreign: Finding
    waiting: Finding
    expired: Finding

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing that must not be."""
        return not self.words

    @property
    def words(self) -> str:
        """What must not be, counted."""
        wrong = {"lost": self.lost, "doubled": self.doubled, "reordered": self.reordered}
        return ", ".join(f"{finding.count:,} {name}" for name, finding in wrong.items() if finding.count)


class DeliveryAudit:
    """What is known of the records of a topic."""

    def __init__(self, topic: str, spans: Mapping[int, OffsetRange], committed: Mapping[int, int]) -> None:
        """Begin without any.

        Args:
            topic: Of the records.
            spans: Which of each partition are looked at.
            committed: The first offset of each partition that need not be answered yet.
        """
        self.topic = topic
        self.results = self.dead_letters = 0
        self._accounts = {number: PartitionAudit(span, committed[number]) for number, span in spans.items()}
        self._lanes: dict[tuple[str, int], int] = {}
        self._last: dict[tuple[int, int], int] = {}
        self._more: dict[RecordPosition, list[RecordPosition]] = {}
        self._foreign = ExampleCounter()
        self._stray = ExampleCounter()

    def reply(self, record: ConsumerRecord, source: RecordPosition | None, *, is_result: bool) -> None:
        """Note a result or a dead letter; those of one partition come in their order.

        Args:
            record: It.
            source: Of which record it is.
            is_result: Whether it is no dead letter.
        """
        self.results += is_result
        self.dead_letters += not is_result
        place = RecordPosition(record.topic, record.partition, record.offset)
        if source is None or source.topic != self.topic:
            self._foreign.add(place)
            return
        account = self._accounts.get(source.partition)
        if account is None:
            self._stray.add(f"{source} -> {place}")
            return
        position = source.offset - account.begin
        if 0 <= position < account.size:
            self._note(account, position, place, source, record.key)

    def records(self, partition: int, offsets: Sequence[int], is_old: Sequence[bool] | bool = False) -> None:
        """Note records that are there.

        Args:
            partition: Theirs.
            offsets: Within its span.
            is_old: Of each or all, whether what they were answered may have been cleaned away.
        """
        account = self._accounts[partition]
        positions = np.asarray(offsets, dtype=np.int64) - account.begin
        account.exists[positions] = True
        account.is_old[positions] = is_old

    def begins_at(self, partition: int, offset: int) -> None:
        """Note that records before an offset may have been cleaned away before they were looked at."""
        self._accounts[partition].kept_from = offset

    def verdict(self) -> VerificationReport:
        """What is to be said of all of them."""
        found = {name: ExampleCounter() for name in ("lost", "doubled", "reordered", "unknown", "waiting", "expired")}
        for partition, account in self._accounts.items():
            for name, mask in account.findings().items():
                positions = np.flatnonzero(mask)
                sources = [RecordPosition(self.topic, partition, account.begin + int(one)) for one in positions[:MAX_EXAMPLES]]
                found[name].add_all(len(positions), map(self._words, sources))
        found["doubled"].examples = [*map(self._words, self._more)]  # of others it is not known where the second lies
        found["unknown"].add_all(self._stray.count, self._stray.examples)
        return VerificationReport(
            records=sum(int(account.exists.sum()) for account in self._accounts.values()),
            results=self.results,
            dead_letters=self.dead_letters,
            foreign=self._foreign.finding,
            **{name: tally.finding for name, tally in found.items()},
        )

    def _note(self, account: "Account", position: int, place: RecordPosition, source: RecordPosition, key: bytes | None) -> None:
        if account.replies[position]:
            account.replies[position] = 2
            if source in self._more or len(self._more) < MAX_EXAMPLES:
                places = self._more.setdefault(source, [])
                places += [place] * (len(places) < MAX_EXAMPLES)
            return
        lane = self._lanes.setdefault((place.topic, place.partition), len(self._lanes))
        last = self._last.get((lane, source.partition), -1)
        account.is_late[position] = source.offset < last
        self._last[lane, source.partition] = max(last, source.offset)
        account.replies[position] = 1
        account.lanes[position] = lane
        account.offsets[position] = place.offset
        if key is not None:  # an answer that was refused is in another topic, as it should be
            account.keys[position] = hash((place.topic, key))

    def _words(self, source: RecordPosition) -> str:
        """A record, and where its answers lie."""
        account = self._accounts[source.partition]
        position = source.offset - account.begin
        if not account.replies[position]:
            return str(source)
        topic, partition = [*self._lanes][account.lanes[position]]
        first = RecordPosition(topic, partition, int(account.offsets[position]))
        return f"{source} -> {', '.join(map(str, (first, *self._more.get(source, ()))))}"


class PartitionAudit:
    """What is known of the records of one partition, by their offset from the first.

    Attributes:
        begin: The offset of the first.
        size: How many there may be.
        committed: The first offset that need not be answered yet.
        kept_from: The first offset that has not been cleaned away meanwhile.
        exists: Whether there is one: transactions and compaction leave gaps.
        is_old: Whether its answer may have been cleaned away.
        replies: How many answers it has: none, one, or more.
        is_late: Whether the first came behind that of a later record.
        keys: What tells its key from others, or NO_KEY.
        lanes: The number of the partition in which its first answer lies.
        offsets: The offset of that.
    """

    def __init__(self, span: OffsetRange, committed: int) -> None:
        """Begin without any."""
        self.begin, self.committed, self.kept_from = span.begin, committed, span.begin
        self.size = max(span.end - span.begin, 0)
        self.exists = np.zeros(self.size, np.bool_)
        self.is_old = np.zeros(self.size, np.bool_)
        self.replies = np.zeros(self.size, np.uint8)
        self.is_late = np.zeros(self.size, np.bool_)
        self.keys = np.zeros(self.size, np.int64)
        self.lanes = np.zeros(self.size, np.uint16)
        self.offsets = np.zeros(self.size, np.int64)

    def findings(self) -> dict[str, NDArray[np.bool_]]:
        """At which positions what is to be said."""
        offsets = np.arange(self.begin, self.begin + self.size)
        answered, is_due = self.replies > 0, offsets < self.committed
        missing = self.exists & ~answered
        return {
            "lost": missing & is_due & ~self.is_old,
            "expired": missing & is_due & self.is_old,
            "waiting": missing & ~is_due,
            "doubled": self.replies > 1,
            "reordered": self.is_late | self._is_apart(answered),
            "unknown": answered & ~self.exists & (offsets >= self.kept_from),
        }

    def _is_apart(self, answered: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether an answer lies in another partition than that of the first record of its key."""
        apart = np.zeros(self.size, np.bool_)
        positions = np.flatnonzero(answered & (self.keys != NO_KEY))
        if not len(positions):
            return apart
        positions = positions[np.argsort(self.keys[positions], kind="stable")]
        keys, lanes = self.keys[positions], self.lanes[positions]
        starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
        first = np.repeat(lanes[starts], np.diff(np.r_[starts, len(keys)]))
        apart[positions[lanes != first]] = True
        return apart


class ExampleCounter:
    """Counts, and keeps the first few."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.count = 0
        self.examples: list[str] = []

    @property
    def finding(self) -> Finding:
        """What it came to."""
        return Finding(count=self.count, examples=tuple(self.examples))

    def add(self, example: Any) -> None:
        """Count one."""
        self.add_all(1, (example,))

    def add_all(self, count: int, examples: Iterable[Any]) -> None:
        """Count some, of which examples are given."""
        self.count += count
        self.examples += map(str, islice(examples, MAX_EXAMPLES - len(self.examples)))
