"""Exactly once under faults, on a real broker: whatever happens to workers and brokers, the verifier finds nothing."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local_kafka.cluster import Cluster
from model_name.errors import StorageError
from tests.support.flat_tables import make_bundle
from tests.support.kafka_cluster import require_kafka
from tests.support.worker_processes import SESSION_SECONDS, TRANSACTION_SECONDS, Fleet, some

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SLOW = Path(__file__).parents[1] / "support/slow_worker.py"
KILLS = 50
REBALANCES = 20
OUTAGES = 10
MakeFleet = Callable[..., Fleet]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle("regression", tmp_path_factory.mktemp("bundle")).directory


@pytest.fixture
def full_broker() -> Iterator[Cluster]:
    """One node with a small disk."""
    require_kafka()
    try:
        with Cluster(disk_mb=300) as cluster:
            yield cluster
    except StorageError as err:
        pytest.skip(err.message)


@pytest.fixture
def make_fleet(bundle: Path, tmp_path: Path) -> Iterator[MakeFleet]:
    """`make_fleet(cluster, **changes)`: a group with topics of its own, and no worker yet."""
    made: list[Fleet] = []

    def make(cluster: Any, **changes: Any) -> Fleet:
        name = f"{tmp_path.name[:40]}-{len(made)}-{time.monotonic_ns()}"
        made.append(Fleet(bundle, cluster.bootstrap, tmp_path, name, **changes))
        made[-1].create_topics(cluster)
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


def verified(fleet: Fleet) -> dict[str, Any]:
    """What the verifier reports, shown in the log of the test."""
    command = [sys.executable, "-m", "model_name", "kafka", "verify", "--bootstrap-servers", fleet.bootstrap]
    command += ["--input", fleet.input, "--output", fleet.output, "--dead-letter", fleet.dead_letter, "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    print(done.stdout)  # noqa: T201  the report
    return {"exit": done.returncode} | json.loads(done.stdout)


def check(fleet: Fleet) -> None:
    """All that was sent has one answer, in its order."""
    fleet.settle()
    found = verified(fleet)
    counts = {name: found[name]["count"] for name in ("lost", "doubled", "reordered", "unknown", "foreign")}
    assert counts == dict.fromkeys(counts, 0), found
    assert found["records"] == fleet.sent
    assert found["exit"] == 0


def test_workers_that_are_killed_lose_and_double_nothing(broker: Any, make_fleet: MakeFleet) -> None:
    # Given a group at work
    fleet, chance = make_fleet(broker), random.Random(1)
    for _ in range(3):
        fleet.start()
    for worker in fleet.workers:
        fleet.wait_until_reading(worker)
    # When one after the other is killed at random moments, and another started in its place
    with fleet.fed(rate=300):
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.2, 3.0))
            fleet.kill(some(fleet.running, chance))
            fleet.start()
    # Then the verifier finds nothing
    check(fleet)


def test_a_group_that_grows_and_shrinks_loses_and_doubles_nothing(broker: Any, make_fleet: MakeFleet) -> None:
    # Given a group at work
    fleet, chance = make_fleet(broker), random.Random(2)
    fleet.wait_until_reading(fleet.start())
    # When workers come and go
    with fleet.fed(rate=400):
        for _ in range(REBALANCES // 2):
            newcomer = fleet.start()
            fleet.wait_until_reading(newcomer)
            time.sleep(chance.uniform(0.0, 1.5))
            # Then one that is told to stop does so within ten seconds
            assert fleet.stop(some(fleet.running, chance)) < 10
            time.sleep(chance.uniform(0.0, 1.5))
    check(fleet)


def test_brokers_that_come_and_go_cost_nothing(brokers3: Any, make_fleet: MakeFleet) -> None:
    # Given a group at work on three brokers
    fleet = make_fleet(brokers3)
    for _ in range(2):
        fleet.wait_until_reading(fleet.start())
    # When leaders are killed and brokers restarted
    with fleet.fed(rate=200):
        for number in range(OUTAGES):
            time.sleep(1)
            if number % 2:
                brokers3.restart(number % 3 + 1)
            else:
                leader = brokers3.leader(fleet.output, number % fleet.partitions)
                brokers3.kill(leader)
                time.sleep(2)
                brokers3.start(leader)
    # Then the workers went on, and the verifier finds nothing
    check(fleet)
    assert len(fleet.running) == 2


def test_a_worker_that_wakes_up_too_late_writes_nothing(broker: Any, make_fleet: MakeFleet) -> None:
    # Given two workers
    fleet = make_fleet(broker)
    sleeper, other = fleet.start(), fleet.start()
    for worker in (sleeper, other):
        fleet.wait_until_reading(worker)
    # When one sleeps past its session, past its transaction, and once again, while the other does its work
    with fleet.fed(rate=500):
        for seconds in (SESSION_SECONDS + 2, SESSION_SECONDS + TRANSACTION_SECONDS + 2, SESSION_SECONDS + 1):
            time.sleep(2)
            with fleet.frozen(sleeper):
                time.sleep(seconds)
            time.sleep(3)
    # Then what it had begun is not there twice, and it works again
    check(fleet)
    assert len(fleet.running) == 2


def test_a_model_slower_than_the_session_keeps_its_partitions(broker: Any, make_fleet: MakeFleet) -> None:
    # Given a model that takes longer for a batch than the session, and than the client may go without polling
    command, env = [sys.executable, str(SLOW), "kafka", "run"], {"SECONDS": str(1.5 * SESSION_SECONDS)}
    fleet = make_fleet(broker, command=command, env=env, extra=["job.max_poll_records=20"])
    worker = fleet.start()
    fleet.wait_until_reading(worker)
    # When records come
    with fleet.fed(rate=20):
        time.sleep(5)
    fleet.settle()
    # Then it never lost its partitions, and the verifier finds nothing
    log = fleet.log_of(worker)
    assert log.count(" reads ") == 1, log
    assert "read again" not in log
    check(fleet)


def test_a_full_disk_of_the_broker_is_waited_for(full_broker: Any, make_fleet: MakeFleet) -> None:
    # Given a worker and a broker whose disk fills up
    fleet = make_fleet(full_broker)
    worker = fleet.start()
    fleet.wait_until_reading(worker)
    with fleet.fed(rate=200):
        time.sleep(3)
        full_broker.fill()
        time.sleep(8)
        # When there is room again
        full_broker.free()
        full_broker.start()
        time.sleep(2)
    # Then the worker goes on where it was
    check(fleet)
    assert worker.poll() is None
