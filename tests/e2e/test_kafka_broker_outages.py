"""Exactly once while brokers fail: the verifier finds no lost, doubled or reordered record."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from local_kafka.cluster import Cluster
from model_name.errors import StorageError
from tests.support.counts import count
from tests.support.kafka_cluster import fast_cluster
from tests.support.kafka_workers import MakeWorkerGroup

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

OUTAGES = count(reduced=2, full=10)


@pytest.fixture
def broker_with_small_disk() -> Iterator[Cluster]:
    """Run one node with a small disk."""
    try:
        with fast_cluster(disk_mb=300) as cluster:
            yield cluster
    except StorageError as err:
        pytest.skip(err.message)


def test_killed_and_restarted_brokers_lose_nothing(brokers3: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given two workers on three brokers
    group = make_worker_group(brokers3)
    for _ in range(2):
        group.wait_until_assigned(group.start())
    # When leaders are killed and brokers are restarted
    with group.producing(rate=200):
        for number in range(OUTAGES):
            time.sleep(1)
            if number % 2:
                brokers3.restart(number % 3 + 1)
            else:
                leader = brokers3.leader(group.output, number % group.partitions)
                brokers3.kill(leader)
                time.sleep(2)
                brokers3.start(leader)
    # Then the workers continue, and the verifier finds nothing
    group.check_delivery()
    assert len(group.running) == 2


def test_a_worker_survives_a_full_disk_of_the_broker(
    broker_with_small_disk: Any, make_worker_group: MakeWorkerGroup
) -> None:
    # Given a worker and a broker whose disk fills up
    group = make_worker_group(broker_with_small_disk)
    worker = group.start()
    group.wait_until_assigned(worker)
    with group.producing(rate=200):
        time.sleep(3)
        broker_with_small_disk.fill()
        time.sleep(8)
        # When there is space again
        broker_with_small_disk.free()
        broker_with_small_disk.start()
        time.sleep(2)
    # Then the worker continues where it was
    group.check_delivery()
    assert worker.poll() is None
