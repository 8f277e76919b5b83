"""Where dead letters came from, and where they go back to."""

from kafka import TopicPartition

from model_name.errors import NotFoundError
from model_name.kafka.records import ConsumerRecord, RecordPosition
from model_name.kafka.tools.topic_reader import Span, TopicReader


class Origins:
    """The topics of the records that dead letters were made of."""

    def __init__(self, reader: TopicReader, dead_letter: str, to: str) -> None:
        """Look up the topic that is named, if one is.

        Args:
            reader: Of what is too large for a letter.
            dead_letter: The topic of the letters.
            to: Where they are sent instead.

        Raises:
            NotFoundError: It does not exist.
        """
        self.reader = reader
        self.dead_letter = dead_letter
        self.to = to
        self._counts = reader.connection.partitions([to]) if to else {}

    def has(self, source: RecordPosition) -> bool:
        """Whether it is a topic that a letter can go back to, not that of the letters."""
        return source.topic != self.dead_letter

    def address(self, source: RecordPosition, key: bytes | None) -> tuple[str, int | None] | None:
        """The topic and the partition to send a letter to, if there is such a topic.

        None for a partition leaves it to the key.
        """
        topic = self.to or source.topic
        count = self._count(topic)
        if not count:
            return None
        # At home, the others of its key are where it was, whatever partitioner their producer has.
        is_home = topic == source.topic and source.partition < count
        return topic, source.partition if is_home else source.partition % count if key is None else None

    def record(self, source: RecordPosition, key: bytes | None, size: int) -> ConsumerRecord | None:
        """A record whose value has so many bytes, if it is still there and still that one.

        A letter without a key may have been written without that of its record.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        partition = TopicPartition(source.topic, source.partition)
        if source.partition >= self._count(source.topic):
            return None
        begin, end = self.reader.spans([partition])[partition]
        if not begin <= source.offset < end:
            return None
        for record, *_ in self.reader.read({partition: Span(source.offset, source.offset + 1)}):
            if key in (None, record.key) and record.value is not None and len(record.value) == size:
                return record
        return None

    def _count(self, topic: str) -> int:
        """Partitions of a topic; none where there is no such topic, or no longer."""
        if topic not in self._counts:
            try:
                self._counts |= self.reader.connection.partitions([topic])
            except NotFoundError:
                self._counts[topic] = 0
        return self._counts[topic]
