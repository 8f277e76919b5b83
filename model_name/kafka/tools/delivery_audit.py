"""Audit the results of a topic, with a few bytes per offset, so that many millions of records fit into memory."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.kafka.records import ConsumerRecord, RecordPosition
from model_name.kafka.tools.topic_reader import OffsetRange

MAX_EXAMPLES = 20
NO_KEY = 0  # instead of the hash of a key


class Finding(FrozenModel):
    """Records with the same finding.

    Attributes:
        count: Number of records.
        examples: Positions of some of them, and of their results.
    """

    count: int = 0
    examples: LaxTuple[str] = ()


class VerificationReport(FrozenModel):
    """Findings about the records of a topic and their results.

    Attributes:
        records: Number of records in the input.
        results: Number of records in the output.
        dead_letters: Number of records in the dead-letter topic.
        lost: Committed records with neither result nor dead letter.
        doubled: Records with more than one result or dead letter.
        reordered: Records whose result comes after that of a later record of their partition; and records with a key
            whose result is in another partition than that of an earlier record with this key.
        unknown: Results of records that never existed.
        foreign: Results without the position of a record of the input.
        waiting: Uncommitted records without a result.
        expired: Records without a result that are so old that retention may have deleted it.
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
        """Whether no record is lost, doubled or reordered."""
        return not self.summary

    @property
    def summary(self) -> str:
        """Counts of the lost, doubled and reordered records; empty without any."""
        violations = {"lost": self.lost, "doubled": self.doubled, "reordered": self.reordered}
        return ", ".join(f"{finding.count:,} {name}" for name, finding in violations.items() if finding.count)


class DeliveryAudit:
    """Collects the records of a topic and their results, and compares them.

    Attributes:
        topic: Topic of the records.
        results: Number of results so far.
        dead_letters: Number of dead letters so far.
    """

    def __init__(self, topic: str, ranges: Mapping[int, OffsetRange], due_offsets: Mapping[int, int]) -> None:
        """Create an audit without records.

        Args:
            topic: Topic of the records.
            ranges: Range of offsets to audit, by partition.
            due_offsets: First offset of each partition that need not have a result yet.
        """
        self.topic = topic
        self.results = self.dead_letters = 0
        self._partitions = {number: PartitionAudit(range_, due_offsets[number]) for number, range_ in ranges.items()}
        self._output_partitions: dict[tuple[str, int], int] = {}  # numbered in the order of their first record
        self._last_offsets: dict[tuple[int, int], int] = {}  # of the input, by output and input partition
        self._duplicates: dict[RecordPosition, list[RecordPosition]] = {}  # results after the first, of some records
        self._foreign = ExampleCounter()
        self._unknown_partition = ExampleCounter()

    def add_output(self, record: ConsumerRecord, source: RecordPosition | None, *, is_result: bool) -> None:
        """Add a result or a dead letter; those of one partition must be added in their order.

        Args:
            record: Record of the output or of the dead-letter topic.
            source: Position of the input record, from its headers.
            is_result: Whether it is a result, not a dead letter.
        """
        self.results += is_result
        self.dead_letters += not is_result
        position = RecordPosition(record.topic, record.partition, record.offset)
        if source is None or source.topic != self.topic:
            self._foreign.add(position)
            return
        partition = self._partitions.get(source.partition)
        if partition is None:
            self._unknown_partition.add(f"{source} -> {position}")
            return
        index = source.offset - partition.begin
        if 0 <= index < partition.size:
            self._add_output_at(partition, index, position, source, record.key)

    def add_inputs(self, partition: int, offsets: Sequence[int], is_old: Sequence[bool] | bool = False) -> None:
        """Add records of the input.

        Args:
            partition: Partition of the records.
            offsets: Offsets within the range of the partition.
            is_old: Whether retention may have deleted the result, for each record or for all.
        """
        audit = self._partitions[partition]
        indices = np.asarray(offsets, dtype=np.int64) - audit.begin
        audit.exists[indices] = True
        audit.is_old[indices] = is_old

    def set_log_start(self, partition: int, offset: int) -> None:
        """Set the log start offset of a partition: records before it may have been deleted before they were read."""
        self._partitions[partition].log_start = offset

    def report(self) -> VerificationReport:
        """Compare all records with their results."""
        counters = {
            name: ExampleCounter() for name in ("lost", "doubled", "reordered", "unknown", "waiting", "expired")
        }
        for number, partition in self._partitions.items():
            for name, mask in partition.findings().items():
                indices = np.flatnonzero(mask)
                sources = [
                    RecordPosition(self.topic, number, partition.begin + int(one)) for one in indices[:MAX_EXAMPLES]
                ]
                counters[name].add_all(len(indices), map(self._describe, sources))
        counters["doubled"].examples = [*map(self._describe, self._duplicates)]  # only these have known positions
        counters["unknown"].add_all(self._unknown_partition.count, self._unknown_partition.examples)
        return VerificationReport(
            records=sum(int(partition.exists.sum()) for partition in self._partitions.values()),
            results=self.results,
            dead_letters=self.dead_letters,
            foreign=self._foreign.finding,
            **{name: counter.finding for name, counter in counters.items()},
        )

    def _add_output_at(
        self,
        partition: "PartitionAudit",
        index: int,
        position: RecordPosition,
        source: RecordPosition,
        key: bytes | None,
    ) -> None:
        if partition.output_counts[index]:
            partition.output_counts[index] = 2
            if source in self._duplicates or len(self._duplicates) < MAX_EXAMPLES:
                positions = self._duplicates.setdefault(source, [])
                positions += [position] * (len(positions) < MAX_EXAMPLES)
            return
        output_partition = self._output_partitions.setdefault(
            (position.topic, position.partition), len(self._output_partitions)
        )
        last = self._last_offsets.get((output_partition, source.partition), -1)
        partition.is_late[index] = source.offset < last
        self._last_offsets[output_partition, source.partition] = max(last, source.offset)
        partition.output_counts[index] = 1
        partition.output_partitions[index] = output_partition
        partition.output_offsets[index] = position.offset
        if key is not None:  # with the topic, because the dead letter of a rejected result is in another one
            partition.key_hashes[index] = hash((position.topic, key))

    def _describe(self, source: RecordPosition) -> str:
        """Describe a record by its position and those of its results."""
        partition = self._partitions[source.partition]
        index = source.offset - partition.begin
        if not partition.output_counts[index]:
            return str(source)
        topic, number = [*self._output_partitions][partition.output_partitions[index]]
        first = RecordPosition(topic, number, int(partition.output_offsets[index]))
        return f"{source} -> {', '.join(map(str, (first, *self._duplicates.get(source, ()))))}"


class PartitionAudit:
    """Records of one partition and their results: arrays indexed by the offset within the range.

    Attributes:
        begin: First offset of the range.
        size: Number of offsets in the range.
        due_offset: First offset that need not have a result yet.
        log_start: First offset that retention has not deleted meanwhile.
        exists: Whether there is a record: transactions and compaction leave gaps.
        is_old: Whether retention may have deleted the result.
        output_counts: Number of results and dead letters: 0, 1, or 2 for more than one.
        is_late: Whether the first result comes after that of a later record.
        key_hashes: Hash of the key, or NO_KEY.
        output_partitions: Number of the partition of the first result.
        output_offsets: Offset of the first result.
    """

    def __init__(self, offsets: OffsetRange, due_offset: int) -> None:
        """Create an audit without records."""
        self.begin, self.due_offset, self.log_start = offsets.begin, due_offset, offsets.begin
        self.size = max(offsets.end - offsets.begin, 0)
        self.exists = np.zeros(self.size, np.bool_)
        self.is_old = np.zeros(self.size, np.bool_)
        self.output_counts = np.zeros(self.size, np.uint8)
        self.is_late = np.zeros(self.size, np.bool_)
        self.key_hashes = np.zeros(self.size, np.int64)
        self.output_partitions = np.zeros(self.size, np.uint16)
        self.output_offsets = np.zeros(self.size, np.int64)

    def findings(self) -> dict[str, NDArray[np.bool_]]:
        """Compute a mask of the records for each finding."""
        offsets = np.arange(self.begin, self.begin + self.size)
        has_output, is_due = self.output_counts > 0, offsets < self.due_offset
        missing = self.exists & ~has_output
        return {
            "lost": missing & is_due & ~self.is_old,
            "expired": missing & is_due & self.is_old,
            "waiting": missing & ~is_due,
            "doubled": self.output_counts > 1,
            "reordered": self.is_late | self._in_other_partition(has_output),
            "unknown": has_output & ~self.exists & (offsets >= self.log_start),
        }

    def _in_other_partition(self, has_output: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Compute a mask of the results in another partition than that of the first record with their key."""
        mask = np.zeros(self.size, np.bool_)
        indices = np.flatnonzero(has_output & (self.key_hashes != NO_KEY))
        if not len(indices):
            return mask
        indices = indices[np.argsort(self.key_hashes[indices], kind="stable")]
        hashes, partitions = self.key_hashes[indices], self.output_partitions[indices]
        starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]])
        first = np.repeat(partitions[starts], np.diff(np.r_[starts, len(hashes)]))
        mask[indices[partitions != first]] = True
        return mask


class ExampleCounter:
    """Counter that keeps the first examples."""

    def __init__(self) -> None:
        """Create a counter at zero."""
        self.count = 0
        self.examples: list[str] = []

    @property
    def finding(self) -> Finding:
        """Count and examples."""
        return Finding(count=self.count, examples=tuple(self.examples))

    def add(self, example: Any) -> None:
        """Count one record."""
        self.add_all(1, (example,))

    def add_all(self, count: int, examples: Iterable[Any]) -> None:
        """Count several records, of which some are given as examples."""
        self.count += count
        self.examples += map(str, islice(examples, MAX_EXAMPLES - len(self.examples)))
