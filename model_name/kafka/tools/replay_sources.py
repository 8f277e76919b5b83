"""Look up the original topic, partition and record of a dead letter."""

from kafka import TopicPartition

from model_name.errors import NotFoundError
from model_name.kafka.records import ConsumerRecord, RecordPosition
from model_name.kafka.tools.topic_reader import OffsetRange, TopicReader


class SourceLookup:
    """Looks up where dead letters came from and where to replay them.

    Attributes:
        reader: Reader of the original records.
        dead_letter: Dead-letter topic.
        target_topic: Topic to replay to instead of the original ones; empty for the original ones.
    """

    def __init__(self, reader: TopicReader, dead_letter: str, target_topic: str) -> None:
        """Create a lookup and check the target topic.

        Args:
            reader: Reader of original records whose value was too large for the dead letter.
            dead_letter: Dead-letter topic.
            target_topic: Topic to replay to instead of the original ones; empty for the original ones.

        Raises:
            NotFoundError: The target topic does not exist.
        """
        self.reader = reader
        self.dead_letter = dead_letter
        self.target_topic = target_topic
        self._counts = reader.clients.partition_counts([target_topic]) if target_topic else {}

    def is_source_topic(self, source: RecordPosition) -> bool:
        """Return whether a record can be replayed to its topic, because that is not the dead-letter topic."""
        return source.topic != self.dead_letter

    def target(self, source: RecordPosition, key: bytes | None) -> tuple[str, int | None] | None:
        """Choose the topic and the partition for a replayed record; None if the topic does not exist.

        A partition of None leaves the choice to the key.
        """
        topic = self.target_topic or source.topic
        count = self._partition_count(topic)
        if not count:
            return None
        # In its original topic a record returns to its partition, where the other records of its key are, whatever
        # partitioner their producer uses.
        is_original = topic == source.topic and source.partition < count
        return topic, source.partition if is_original else source.partition % count if key is None else None

    def fetch_original(self, source: RecordPosition, key: bytes | None, size: int) -> ConsumerRecord | None:
        """Fetch the original record, if it still exists and has a value of this size.

        A dead letter without a key may have been stripped of the key of its record.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        partition = TopicPartition(source.topic, source.partition)
        if source.partition >= self._partition_count(source.topic):
            return None
        begin, end = self.reader.offset_ranges([partition])[partition]
        if not begin <= source.offset < end:
            return None
        for record, *_ in self.reader.read({partition: OffsetRange(source.offset, source.offset + 1)}):
            if key in (None, record.key) and record.value is not None and len(record.value) == size:
                return record
        return None

    def _partition_count(self, topic: str) -> int:
        """Look up the number of partitions of a topic; 0 if it does not exist."""
        if topic not in self._counts:
            try:
                self._counts |= self.reader.clients.partition_counts([topic])
            except NotFoundError:
                self._counts[topic] = 0
        return self._counts[topic]
