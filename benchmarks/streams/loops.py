"""`python -m benchmarks.streams.loops KIND TASK`: a loop until so many records are written; a task is a JSON object.

`bare` and `bare-at-least-once` copy records and commit, batch by batch, in the delivery of the same name; `confluent`
does as `bare`, on another client. `one` predicts, writes and commits one record at a time, which is what a loop without
batches comes to.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Task:
    """What to do.

    Attributes:
        servers: Of the cluster.
        source: The topic to read.
        target: The topic to write.
        group: Of the consumer, and the name of the transactions.
        records: To be written.
        batch: The most that share a commit.
        bundle: What predicts, for a loop that does.
    """

    servers: str
    source: str
    target: str
    group: str
    records: int
    batch: int
    bundle: str = ""


def consumer(task: Task) -> Any:
    """A consumer of committed records, as the worker's."""
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


def bare(task: Task) -> None:
    """Copy in transactions."""
    transactions(task, lambda values: values)


def one(task: Task) -> None:
    """Predict, write and commit one at a time."""
    from model_name.serving.bundle import Bundle
    from model_name.serving.dataplane import DataPlane

    plane = DataPlane(Bundle.load(Path(task.bundle), threads=1))

    def predict(values: Sequence[bytes]) -> list[bytes]:
        found = (plane.predict_rows([json.loads(value)]).prediction.tolist() for value in values)
        return [json.dumps({"predictions": one}).encode() for one in found]

    transactions(replace(task, batch=1), predict)


def transactions(task: Task, answer: Callable[[Sequence[bytes]], Sequence[bytes]]) -> None:
    """Read, answer, write and commit in a transaction, again and again."""
    from kafka import KafkaProducer, OffsetAndMetadata

    reader = consumer(task)
    writer = KafkaProducer(
        bootstrap_servers=task.servers, transactional_id=task.group, acks="all", metrics_enabled=False
    )
    writer.init_transactions()
    done = 0
    while done < task.records:
        polled = reader.poll(timeout_ms=500)
        if not polled:
            continue
        writer.begin_transaction()
        for partition, found in polled.items():
            for record, value in zip(found, answer([record.value for record in found]), strict=True):
                writer.send(task.target, value, record.key, partition=partition.partition)
            done += len(found)
        offsets = {one: OffsetAndMetadata(found[-1].offset + 1, "", -1) for one, found in polled.items()}
        writer.send_offsets_to_transaction(offsets, reader.group_metadata())
        writer.commit_transaction()
    reader.close(autocommit=False)
    writer.close()


def bare_at_least_once(task: Task) -> None:
    """Copy, wait for the broker to have all, and commit."""
    from kafka import KafkaProducer, OffsetAndMetadata

    reader = consumer(task)
    writer = KafkaProducer(
        bootstrap_servers=task.servers,
        acks="all",
        enable_idempotence=False,
        max_in_flight_requests_per_connection=1,
        metrics_enabled=False,
    )
    done = 0
    while done < task.records:
        polled = reader.poll(timeout_ms=500)
        if not polled:
            continue
        for partition, found in polled.items():
            for record in found:
                writer.send(task.target, record.value, record.key, partition=partition.partition)
            done += len(found)
        writer.flush()
        reader.commit({one: OffsetAndMetadata(found[-1].offset + 1, "", -1) for one, found in polled.items()})
    reader.close(autocommit=False)
    writer.close()


def confluent(task: Task) -> None:
    """Copy in transactions, by the client of Confluent."""
    from confluent_kafka import Consumer, Producer, TopicPartition

    reader = Consumer(
        {
            "bootstrap.servers": task.servers,
            "group.id": task.group,
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
        }
    )
    writer = Producer({"bootstrap.servers": task.servers, "transactional.id": task.group, "linger.ms": 0})
    writer.init_transactions()
    reader.subscribe([task.source])
    done = 0
    while done < task.records:
        polled = [one for one in reader.consume(task.batch, timeout=0.05) if one.error() is None]
        if not polled:
            continue
        writer.begin_transaction()
        for record in polled:
            writer.produce(task.target, record.value(), record.key(), partition=record.partition())
        ends = {record.partition(): record.offset() + 1 for record in polled}
        offsets = [TopicPartition(task.source, partition, offset) for partition, offset in ends.items()]
        writer.send_offsets_to_transaction(offsets, reader.consumer_group_metadata())
        writer.commit_transaction()
        done += len(polled)
    reader.close()


LOOPS: dict[str, Callable[..., None]] = {
    "bare": bare,
    "bare-at-least-once": bare_at_least_once,
    "confluent": confluent,
    "one": one,
}


def main() -> int:
    """Run the loop that is named."""
    kind, task = sys.argv[1:]
    LOOPS[kind](Task(**json.loads(task)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
