"""Exactly once while the group is rebalanced: the verifier finds no lost, doubled or reordered record."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.counts import count
from tests.support.kafka_workers import MakeWorkerGroup
from tests.support.worker_processes import SESSION_SECONDS, choose_worker

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

REBALANCES = count(reduced=4, full=20)
SLOW_WORKER = Path(__file__).parents[1] / "support/slow_worker.py"


def test_scaling_a_group_up_and_down_loses_and_doubles_nothing(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given a running worker
    group, rng = make_worker_group(broker), random.Random(2)
    group.wait_until_assigned(group.start())
    # When workers join and leave
    with group.producing(rate=400):
        for _ in range(REBALANCES // 2):
            newcomer = group.start()
            group.wait_until_assigned(newcomer)
            time.sleep(rng.uniform(0.0, 1.5))
            # Then a worker that receives SIGTERM stops within ten seconds
            assert group.stop(choose_worker(group.running, rng)) < 10
            time.sleep(rng.uniform(0.0, 1.5))
    # And the verifier finds nothing
    group.check_delivery()


def test_a_model_slower_than_the_session_keeps_its_partitions(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given a model that takes longer for a batch than the session and the poll interval of the client
    command, env = [sys.executable, str(SLOW_WORKER), "kafka", "run"], {"SECONDS": str(1.5 * SESSION_SECONDS)}
    group = make_worker_group(broker, command=command, env=env, extra=["job.max_poll_records=20"])
    worker = group.start()
    group.wait_until_assigned(worker)
    # When records arrive
    with group.producing(rate=20):
        time.sleep(5)
    group.wait_until_committed()
    # Then it never loses its partitions, and the verifier finds nothing
    log = group.read_log(worker)
    assert log.count("assigned partitions: ") == 1, log
    assert "a batch failed" not in log
    group.check_delivery()
