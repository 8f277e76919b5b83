"""Real Kafka brokers, started when a test first asks for one and shared by the tests of a process.

Whoever kills a node starts it again: `cluster.start()` brings back all that are gone.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from local_kafka.cluster import Cluster
from local_kafka.jars import unavailable_reason

READ_SECONDS = 30.0
NUMBERS = itertools.count()


def require_kafka() -> None:
    """Skip what cannot run here, and say why."""
    if reason := unavailable_reason():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def broker() -> Iterator[Cluster]:
    """One node that takes everybody."""
    require_kafka()
    with Cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def brokers3() -> Iterator[Cluster]:
    """Three nodes that take everybody."""
    require_kafka()
    with Cluster(nodes=3) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def secured_broker() -> Iterator[Cluster]:
    """One node that takes passwords over TLS and certificates."""
    require_kafka()
    with Cluster(secured=True) as cluster:
        yield cluster


def new_topic(cluster: Cluster, **options: Any) -> str:
    """Create a topic that no other test has."""
    return cluster.create_topic(f"topic-{next(NUMBERS)}", **options)


def send(connection: dict[str, Any], topic: str, values: Iterable[bytes]) -> None:
    """Send records, and wait till the broker has them all.

    Raises:
        KafkaError: It has not.
    """
    from kafka import KafkaProducer

    with KafkaProducer(**connection, acks="all") as producer:
        for sent in [producer.send(topic, value) for value in values]:
            sent.get(READ_SECONDS)


def read(connection: dict[str, Any], topic: str, count: int) -> Sequence[bytes]:
    """The first so many records of a topic, fewer if they do not come in time."""
    from kafka import KafkaConsumer

    options = {"group_id": None, "auto_offset_reset": "earliest", "consumer_timeout_ms": READ_SECONDS * 1000}
    with KafkaConsumer(topic, **connection, **options) as consumer:
        return [record.value for record in itertools.islice(consumer, count)]
