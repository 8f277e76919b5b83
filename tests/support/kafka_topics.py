"""Topics of a test's own, what is written to them and what is read back."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from kafka import KafkaProducer

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.records import RESULT_SOURCE_HEADERS, Headers, RecordPosition, source_headers
from model_name.kafka.tools.topic_reader import TopicReader


class Written(NamedTuple):
    """A record to write."""

    topic: str
    partition: int | None = None
    key: bytes | None = None
    value: bytes | None = b"{}"
    headers: Headers = []


def fresh(broker: Any, *names: str, partitions: int = 2, **settings: Any) -> list[str]:
    """New topics, with names that nobody has."""
    mark = uuid4().hex[:10]
    return [broker.create_topic(f"s-{mark}-{name}", partitions=partitions, **settings) for name in names]


def write(broker: Any, batches: Iterable[Sequence[Written]], *, aborted: Sequence[int] = ()) -> list[RecordPosition]:
    """Write each batch in a transaction, some of which are aborted; where the records lie."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap, transactional_id=f"s-{uuid4().hex}", max_request_size=2**23
    )
    places: list[RecordPosition] = []
    try:
        producer.init_transactions()
        for number, batch in enumerate(batches):
            producer.begin_transaction()
            sent = [producer.send(one.topic, one.value, one.key, one.headers, one.partition) for one in batch]
            producer.flush()
            if number in aborted:
                producer.abort_transaction()
                continue
            producer.commit_transaction()
            told = [future.get(10) for future in sent]
            places += [RecordPosition(of.topic, of.partition, of.offset) for of in told]
    finally:
        producer.close()
    return places


def result(source: RecordPosition, topic: str, partition: int | None = None, key: bytes | None = None) -> Written:
    """What a worker writes of a record."""
    headers = [*source_headers(source, RESULT_SOURCE_HEADERS)]
    return Written(topic, source.partition if partition is None else partition, key, b'{"predictions":[1.5]}', headers)


def read_all(broker: Any, *topics: str) -> list[Any]:
    """All committed records, by topic, partition and offset."""
    with TopicReader(KafkaClientFactory(broker.bootstrap)) as reader:
        spans = reader.spans(reader.partitions(*topics))
        found = [record for batch in reader.read(spans) for record in batch]
    return sorted(found, key=lambda record: (record.topic, record.partition, record.offset))
