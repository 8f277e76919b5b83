"""Exactly once while workers are killed: the verifier finds no lost, doubled or reordered record."""

import random
import time
from typing import Any

import pytest

from tests.support.counts import count
from tests.support.kafka_workers import MakeWorkerGroup
from tests.support.worker_processes import choose_worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = count(reduced=8, full=50)


def test_killed_workers_lose_and_double_nothing(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given a group of running workers
    group, rng = make_worker_group(broker), random.Random(1)
    for _ in range(3):
        group.start()
    for worker in group.workers:
        group.wait_until_assigned(worker)
    # When one after the other is killed at random moments, and another is started in its place
    with group.producing(rate=300):
        for _ in range(KILLS):
            time.sleep(rng.uniform(0.2, 3.0))
            group.kill(choose_worker(group.running, rng))
            group.start()
    # Then the verifier finds nothing
    group.check_delivery()
