"""Closing of producers."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import errors as kafka_errors

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.producers import close_producer
from tests.support.kafka_cluster import new_topic, read_values

pytestmark = pytest.mark.kafka


@pytest.fixture
def suspended_broker(broker: Any) -> Iterator[Any]:
    """Broker that the test may suspend."""
    yield broker
    broker.resume()
    broker.start()


def threads_of(client_id: str) -> list[str]:
    """List the threads of the client with this id."""
    return [thread.name for thread in threading.enumerate() if client_id in thread.name]


def test_closing_sends_the_pending_records(broker: Any) -> None:
    topic = new_topic(broker)
    producer = KafkaClientFactory(broker.bootstrap).create_producer(linger_ms=10_000)
    producer.send(topic, b"pending")
    close_producer(producer, 5)
    assert read_values(broker.client_options(), topic, 1) == [b"pending"]


def test_a_producer_that_cannot_flush_is_closed(suspended_broker: Any) -> None:
    # Given a producer with a record that it cannot send
    topic = new_topic(suspended_broker)
    producer = KafkaClientFactory(suspended_broker.bootstrap).create_producer(client_id="cannot-flush")
    producer.send(topic, b"sent").get(10)
    suspended_broker.suspend()
    pending = producer.send(topic, b"pending")
    assert threads_of("cannot-flush")
    # When it is closed, which fails with the method of the client
    with pytest.raises(kafka_errors.KafkaTimeoutError):
        producer.close(timeout=0.2)
    assert threads_of("cannot-flush")
    close_producer(producer, 0.2)
    # Then its thread ends, and its record has failed
    producer._sender.join(10)
    assert not threads_of("cannot-flush")
    assert pending.failed()
