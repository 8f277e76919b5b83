"""Kafka brokers, started when a test first uses one and shared by the tests of a process.

A test that kills a node starts it again: `cluster.start()` starts all stopped nodes.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest

from local_kafka.cds import fast_start_options
from local_kafka.cluster import Cluster
from local_kafka.jars import unavailable_reason

READ_TIMEOUT_SECONDS = 30.0
TOPIC_NUMBERS = itertools.count()


def require_kafka() -> None:
    """Skip a test if no broker can run here."""
    if reason := unavailable_reason():
        pytest.skip(reason)


def fast_cluster(nodes: int = 1, **options: Any) -> Cluster:
    """Create a cluster whose brokers start as fast as possible, or skip the test if none can run here."""
    require_kafka()
    return Cluster(nodes, java=fast_start_options(), **options)


@pytest.fixture(scope="session")
def broker() -> Iterator[Cluster]:
    """Run one unsecured node."""
    with fast_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def brokers3() -> Iterator[Cluster]:
    """Run three unsecured nodes."""
    with fast_cluster(3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def secured_broker() -> Iterator[Cluster]:
    """Run one node that requires a password over TLS, or a client certificate."""
    with fast_cluster(secured=True) as cluster:
        yield cluster


def new_topic(cluster: Cluster, **options: Any) -> str:
    """Create a topic with a unique name."""
    return cluster.create_topic(f"topic-{next(TOPIC_NUMBERS)}", **options)


def send_values(client_options: dict[str, Any], topic: str, values: Iterable[bytes]) -> None:
    """Send records and wait for their acknowledgements.

    Raises:
        KafkaError: A record was not acknowledged.
    """
    from kafka import KafkaProducer

    with KafkaProducer(**client_options, acks="all") as producer:
        for future in [producer.send(topic, value) for value in values]:
            future.get(READ_TIMEOUT_SECONDS)


def read_values(client_options: dict[str, Any], topic: str, count: int) -> Sequence[bytes]:
    """Read the values of the first records of a topic, fewer if they do not arrive in time."""
    from kafka import KafkaConsumer

    options = {"group_id": None, "auto_offset_reset": "earliest", "consumer_timeout_ms": READ_TIMEOUT_SECONDS * 1000}
    with KafkaConsumer(topic, **client_options, **options) as consumer:
        return [record.value for record in itertools.islice(consumer, count)]
