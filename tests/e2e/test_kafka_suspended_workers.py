"""Exactly once while a worker is suspended and others take over: the verifier finds nothing wrong."""

import time
from typing import Any

import pytest

from tests.support.kafka_workers import MakeWorkerGroup
from tests.support.worker_processes import SESSION_SECONDS, TRANSACTION_SECONDS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_a_worker_resumed_after_its_session_writes_nothing(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given two workers
    group = make_worker_group(broker)
    sleeper, other = group.start(), group.start()
    for worker in (sleeper, other):
        group.wait_until_assigned(worker)
    # When one is suspended longer than its session, than its transaction, and once more, while the other takes over
    with group.producing(rate=500):
        for seconds in (SESSION_SECONDS + 2, SESSION_SECONDS + TRANSACTION_SECONDS + 2, SESSION_SECONDS + 1):
            time.sleep(2)
            with group.suspended(sleeper):
                time.sleep(seconds)
            time.sleep(3)
    # Then its open batches are not delivered twice, and it works again
    group.check_delivery()
    assert len(group.running) == 2
