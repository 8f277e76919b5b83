"""A worker with far more waiting than it can hold."""

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from tests.support.kafka_workers import wait_until
from tests.support.server_processes import free_ports
from tests.support.worker_processes import VALUES, WorkerGroup

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

WAITING = 1_000_000  # records, of 110 bytes each
PARTITIONS = 4
MOST_MIB = 250.0
"""Of resident memory. Idle, a worker takes 100; at work it was seen to take 130. What waits in it is bounded by what
it fetches, 16 MiB from a broker and some more as objects, and by two batches; all that waits would take a GiB."""
SLOW = Path(__file__).parents[2] / "support/slow_worker.py"
SLOW_SECONDS = 2.0


@dataclass
class LateFleet(WorkerGroup):
    """Workers of a topic in which much waits."""

    waiting: str = ""
    url: str = ""

    @property
    def input(self) -> str:
        return self.waiting

    def begin(self, *settings: str) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.start(f"job.http_port={port}", *settings)
        wait_until(lambda: self.metrics().get("model_name_kafka_lag", 0) > 0)

    def resident(self) -> float:
        """Of its worker, in MiB."""
        status = Path(f"/proc/{self.workers[0].pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def metrics(self) -> dict[str, float]:
        """The samples of each name, added up over their labels."""
        try:
            text = httpx.get(self.url, timeout=5).text
        except httpx.TransportError:
            return {}
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name + sample.labels.get("le", "")
                found[name] = found.get(name, 0.0) + sample.value
        return found

    def watch(self, seconds: float) -> list[float]:
        """Its memory meanwhile."""
        end, seen = time.monotonic() + seconds, []
        while time.monotonic() < end:
            seen.append(self.resident())
            time.sleep(0.1)
        return seen


@pytest.fixture(scope="module")
def waiting(broker: Any) -> str:
    """The topic."""
    topic: str = broker.create_topic(f"waiting-{time.monotonic_ns()}", partitions=PARTITIONS)
    options = {"batch_size": 2**20, "linger_ms": 50, "acks": 1, "enable_idempotence": False}
    with KafkaProducer(bootstrap_servers=broker.bootstrap, **options) as producer:
        for number, value in enumerate(itertools.islice(itertools.cycle(VALUES), WAITING)):
            producer.send(topic, value, partition=number % PARTITIONS)
    return topic


@pytest.fixture
def group(broker: Any, bundle: Path, waiting: str, tmp_path: Path) -> Iterator[LateFleet]:
    group = LateFleet(bundle, broker.bootstrap, tmp_path, f"late-{time.monotonic_ns()}", waiting=waiting)
    for topic in (group.output, group.dead_letter):
        broker.create_topic(topic, partitions=PARTITIONS)
    yield group
    group.end()


def test_a_million_records_that_wait_do_not_fill_the_memory(group: LateFleet) -> None:
    # Given a worker that takes at most 200 records at once
    group.begin("job.max_poll_records=200")
    # When it is at work
    seen = group.watch(25)
    # Then it holds little of what waits
    assert max(seen) < MOST_MIB
    # And no batch is larger, though all that could be are as large
    found = group.metrics()
    batches = found["model_name_kafka_batch_records_count"]
    assert batches > 50
    assert found["model_name_kafka_batch_records_bucket256.0"] == batches
    assert 150 < found["model_name_kafka_batch_records_sum"] / batches <= 200
    assert found["model_name_kafka_lag"] > WAITING / 10


def test_a_slow_model_waits_instead_of_buffering(group: LateFleet) -> None:
    # Given a model that takes two seconds for a batch
    group.command, group.env = [sys.executable, str(SLOW), "kafka", "run"], {"SECONDS": str(SLOW_SECONDS)}
    started = time.monotonic()
    group.begin("job.max_poll_records=50")
    # When it is at it
    group.watch(5)
    seen = group.watch(15)
    # Then it takes on no more than it gets done: its memory stays as it is
    assert max(seen) < MOST_MIB
    assert max(seen) - min(seen) < 10
    found = group.metrics()
    assert 0 < found["model_name_kafka_records_total"] <= 50 * ((time.monotonic() - started) / SLOW_SECONDS + 1)
    assert found["model_name_kafka_failed_batches_total"] == 0
