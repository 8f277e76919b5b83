"""Run a bare loop until it has written so many records: `python -m benchmarks.streams.loops KIND TASK`.

TASK is a JSON object. `bare` and `bare-at-least-once` copy and commit batches, exactly once and at least once;
`confluent` does the same as `bare` with another client. `one` predicts, writes and commits a single record at a time.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """Parameters of a loop.

    Attributes:
        servers: Addresses of the cluster.
        source: Topic to read.
        target: Topic to write.
        group: Consumer group and transactional id.
        records: Number of records to write.
        batch: Largest number of records per commit.
        bundle: Folder of the bundle, for the loop that predicts.
    """

    servers: str
    source: str
    target: str
    group: str
    records: int
    batch: int
    bundle: str = ""


def create_consumer(task: Task) -> Any:
    """Create a consumer of committed records, like that of the worker."""
    from kafka import KafkaConsumer

    return KafkaConsumer(
        task.source,
        bootstrap_servers=task.servers,
        group_id=task.group,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_poll_records=task.batch,
        metrics_enabled=False,
    )


def copy_exactly_once(task: Task) -> None:
    """Copy records in transactions."""
    copy_in_transactions(task, lambda values: values)


def predict_one_by_one(task: Task) -> None:
    """Predict, write and commit one record at a time."""
    from model_name.serving.bundle import Bundle
    from model_name.serving.dataplane import DataPlane

    plane = DataPlane(Bundle.load(Path(task.bundle), threads=1))

    def predict(values: Sequence[bytes]) -> list[bytes]:
        predictions = (plane.predict_rows([json.loads(value)]).prediction.tolist() for value in values)
        return [json.dumps({"predictions": row}).encode() for row in predictions]

    copy_in_transactions(replace(task, batch=1), predict)


def copy_in_transactions(task: Task, transform: Callable[[Sequence[bytes]], Sequence[bytes]]) -> None:
    """Read, transform, write and commit batches in transactions."""
    from kafka import KafkaProducer, OffsetAndMetadata

    consumer = create_consumer(task)
    producer = KafkaProducer(
        bootstrap_servers=task.servers, transactional_id=task.group, acks="all", metrics_enabled=False
    )
    producer.init_transactions()
    done = 0
    while done < task.records:
        polled = consumer.poll(timeout_ms=500)
        if not polled:
            continue
        producer.begin_transaction()
        for partition, records in polled.items():
            for record, value in zip(records, transform([record.value for record in records]), strict=True):
                producer.send(task.target, value, record.key, partition=partition.partition)
            done += len(records)
        offsets = {one: OffsetAndMetadata(records[-1].offset + 1, "", -1) for one, records in polled.items()}
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.commit_transaction()
    consumer.close(autocommit=False)
    producer.close()


def copy_at_least_once(task: Task) -> None:
    """Copy records, wait for their acknowledgements, and commit."""
    from kafka import KafkaProducer, OffsetAndMetadata

    consumer = create_consumer(task)
    producer = KafkaProducer(
        bootstrap_servers=task.servers,
        acks="all",
        enable_idempotence=False,
        max_in_flight_requests_per_connection=1,
        metrics_enabled=False,
    )
    done = 0
    while done < task.records:
        polled = consumer.poll(timeout_ms=500)
        if not polled:
            continue
        for partition, records in polled.items():
            for record in records:
                producer.send(task.target, record.value, record.key, partition=partition.partition)
            done += len(records)
        producer.flush()
        consumer.commit({one: OffsetAndMetadata(records[-1].offset + 1, "", -1) for one, records in polled.items()})
    consumer.close(autocommit=False)
    producer.close()


def copy_with_confluent(task: Task) -> None:
    """Copy records in transactions with the client of Confluent."""
    from confluent_kafka import Consumer, Producer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": task.servers,
            "group.id": task.group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    producer = Producer({"bootstrap.servers": task.servers, "transactional.id": task.group, "linger.ms": 0})
    producer.init_transactions()
    consumer.subscribe([task.source])
    done = 0
    while done < task.records:
        polled = [one for one in consumer.consume(task.batch, timeout=0.05) if one.error() is None]
        if not polled:
            continue
        producer.begin_transaction()
        for record in polled:
            producer.produce(task.target, record.value(), record.key(), partition=record.partition())
        ends = {record.partition(): record.offset() + 1 for record in polled}
        offsets = [TopicPartition(task.source, partition, offset) for partition, offset in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
        producer.commit_transaction()
        done += len(polled)
    consumer.close()


LOOPS: dict[str, Callable[..., None]] = {
    "bare": copy_exactly_once,
    "bare-at-least-once": copy_at_least_once,
    "confluent": copy_with_confluent,
    "one": predict_one_by_one,
}


def main() -> int:
    """Run the loop of the given kind."""
    kind, task = sys.argv[1:]
    LOOPS[kind](Task(**json.loads(task)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
