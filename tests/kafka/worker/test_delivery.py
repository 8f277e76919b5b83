"""Delivery of results and offsets to a real broker."""

import json
from typing import Any

import pytest
from kafka import TopicPartition

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.records import OutputRecord
from model_name.kafka.worker.delivery import (
    AtLeastOnceDelivery,
    Delivery,
    ExactlyOnceDelivery,
    RecordsRejectedError,
    RoutedRecord,
)
from model_name.kafka.worker.worker_settings import WorkerSettings
from tests.support.kafka_topics import create_topics, read_committed

pytestmark = pytest.mark.kafka

SMALL = 2000  # bytes, limit of a topic


class Case:
    """Delivery to an output topic with a small limit for records."""

    def __init__(self, broker: Any, kind: type[Delivery]) -> None:
        self.broker = broker
        self.input, self.dead = create_topics(broker, "in", "dead")
        (self.output,) = create_topics(broker, "out", partitions=1, config={"max.message.bytes": SMALL})
        settings = WorkerSettings(
            bundle="none",
            bootstrap_servers=broker.bootstrap,
            input=self.input,
            output=self.output,
            dead_letter=self.dead,
            group=f"g-{self.input}",
            instance=f"i-{self.input}",
        )
        clients = KafkaClientFactory(broker.bootstrap)
        self.consumer = clients.create_consumer(group_id=settings.group)
        self.delivery = kind(clients, settings, self.consumer)

    def deliver(self, sizes: list[int]) -> None:
        """Deliver a record of each size, and commit their number as the offset."""
        bodies = [json.dumps({"n": number, "text": "x" * size}).encode() for number, size in enumerate(sizes)]
        records = [RoutedRecord(self.output, 0, OutputRecord(b"k", body, [])) for body in bodies]
        self.delivery.deliver(records, {self.partition: len(sizes)}, self.consumer.config["group_id"])

    @property
    def partition(self) -> TopicPartition:
        return TopicPartition(self.input, 0)


@pytest.fixture(params=[ExactlyOnceDelivery, AtLeastOnceDelivery])
def case(broker: Any, request: pytest.FixtureRequest) -> Any:
    found = Case(broker, request.param)
    yield found
    found.delivery.close(1)
    found.consumer.close()


def test_a_batch_above_the_limit_of_the_topic_is_split(case: Case) -> None:
    case.deliver([50] * 100)
    assert [json.loads(one.value)["n"] for one in read_committed(case.broker, case.output)] == [*range(100)]
    assert case.consumer.committed(case.partition, timeout_ms=5000) == 100


@pytest.mark.parametrize(
    ("sizes", "rejected"),
    [
        pytest.param([50, 50, 2 * SMALL, 50], [2], id="one among others"),
        pytest.param([2 * SMALL, 50, 50], [0], id="the first"),
        pytest.param([50, 50, 2 * SMALL], [2], id="the last"),
        pytest.param([50, 2 * SMALL, 50, 3 * SMALL, 50], [1, 3], id="two"),
        pytest.param([2 * SMALL] * 3, [0, 1, 2], id="all"),
        pytest.param([2 * SMALL] + [50] * 1000, [0], id="one that is rejected while others are sent"),
    ],
)
def test_exactly_the_rejected_records_are_reported_and_nothing_is_committed(
    case: Case, sizes: list[int], rejected: list[int]
) -> None:
    with pytest.raises(RecordsRejectedError) as caught:
        case.deliver(sizes)
    assert sorted(caught.value.positions) == rejected
    assert case.consumer.committed(case.partition, timeout_ms=5000) is None
    # and later records can be delivered
    before = len(read_committed(case.broker, case.output))
    case.deliver([50] * 30)
    assert case.consumer.committed(case.partition, timeout_ms=5000) == 30
    found = [json.loads(one.value)["n"] for one in read_committed(case.broker, case.output)]
    assert found[before:] == [*range(30)]
    assert before == 0 or isinstance(case.delivery, AtLeastOnceDelivery)
