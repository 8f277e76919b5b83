"""Topics of one test: create them, write records to them and read records back."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from kafka import KafkaProducer

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.records import RESULT_SOURCE_HEADERS, Headers, RecordPosition, source_headers
from model_name.kafka.tools.topic_reader import TopicReader


class RecordToWrite(NamedTuple):
    """Record to write to a topic."""

    topic: str
    partition: int | None = None
    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: Headers = []


def create_topics(broker: Any, *names: str, partitions: int = 2, **settings: Any) -> list[str]:
    """Create topics with unique names."""
    prefix = uuid4().hex[:10]
    return [broker.create_topic(f"s-{prefix}-{name}", partitions=partitions, **settings) for name in names]


def write_transactions(
    broker: Any, batches: Iterable[Sequence[RecordToWrite]], *, aborted: Sequence[int] = ()
) -> list[RecordPosition]:
    """Write each batch in a transaction, abort those with the given numbers, and return the committed positions."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap, transactional_id=f"s-{uuid4().hex}", max_request_size=2**23
    )
    positions: list[RecordPosition] = []
    try:
        producer.init_transactions()
        for number, batch in enumerate(batches):
            producer.begin_transaction()
            futures = [producer.send(one.topic, one.value, one.key, one.headers, one.partition) for one in batch]
            producer.flush()
            if number in aborted:
                producer.abort_transaction()
                continue
            producer.commit_transaction()
            written = [future.get(10) for future in futures]
            positions += [RecordPosition(one.topic, one.partition, one.offset) for one in written]
    finally:
        producer.close()
    return positions


def result_record(
    source: RecordPosition, topic: str, partition: int | None = None, key: bytes | None = None
) -> RecordToWrite:
    """Build the result that a worker writes for a record."""
    headers = [*source_headers(source, RESULT_SOURCE_HEADERS)]
    number = source.partition if partition is None else partition
    return RecordToWrite(topic, number, key, b'{"predictions":[1.5]}', headers)


def read_committed(broker: Any, *topics: str) -> list[Any]:
    """Read all committed records, sorted by topic, partition and offset."""
    with TopicReader(KafkaClientFactory(broker.bootstrap)) as reader:
        ranges = reader.offset_ranges(reader.partitions(*topics))
        records = [record for batch in reader.read(ranges) for record in batch]
    return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))
