"""A worker with a lag far larger than its memory."""

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

from tests.support.counts import count
from tests.support.kafka_workers import wait_until
from tests.support.server_processes import free_ports
from tests.support.worker_processes import VALUES, WorkerGroup

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

WAITING = count(reduced=250_000, full=1_000_000)  # records of 110 bytes
WATCH_SECONDS = count(reduced=8.0, full=25.0)
SLOW_WATCH_SECONDS = count(reduced=8.0, full=15.0)
PARTITIONS = 4
MAX_RESIDENT_MIB = 250.0
"""Limit of resident memory. An idle worker takes 100 MiB, a busy one was measured at 130. What it holds is bounded by
its fetch buffer, 16 MiB per broker and more as objects, and by two batches; a million waiting records would take 1 GiB.
"""

SLOW_WORKER = Path(__file__).parents[2] / "support/slow_worker.py"
SLOW_SECONDS = 2.0


@dataclass
class LaggingGroup(WorkerGroup):
    """Group whose input topic holds many records before its worker starts."""

    waiting: str = ""
    url: str = ""

    @property
    def input(self) -> str:
        return self.waiting

    def start_lagging(self, *settings: str) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}/metrics"
        self.start(f"job.http_port={port}", *settings)
        wait_until(lambda: self.metrics().get("model_name_kafka_lag", 0) > 0)

    def resident_mib(self) -> float:
        """Read the resident memory of the worker, in MiB."""
        status = Path(f"/proc/{self.workers[0].pid}/status").read_text(encoding="ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def metrics(self) -> dict[str, float]:
        """Sum the samples of each metric over their labels."""
        try:
            text = httpx.get(self.url, timeout=5).text
        except httpx.TransportError:
            return {}
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                name = sample.name + sample.labels.get("le", "")
                sums[name] = sums.get(name, 0.0) + sample.value
        return sums

    def watch_memory(self, seconds: float) -> list[float]:
        """Sample the resident memory for so many seconds."""
        end, samples = time.monotonic() + seconds, []
        while time.monotonic() < end:
            samples.append(self.resident_mib())
            time.sleep(0.1)
        return samples


@pytest.fixture(scope="module")
def waiting(broker: Any) -> str:
    """Topic with the waiting records."""
    topic: str = broker.create_topic(f"waiting-{time.monotonic_ns()}", partitions=PARTITIONS)
    options = {"batch_size": 2**20, "linger_ms": 50, "acks": 1, "enable_idempotence": False}
    with KafkaProducer(bootstrap_servers=broker.bootstrap, **options) as producer:
        for number, value in enumerate(itertools.islice(itertools.cycle(VALUES), WAITING)):
            producer.send(topic, value, partition=number % PARTITIONS)
    return topic


@pytest.fixture
def group(broker: Any, bundle: Path, waiting: str, tmp_path: Path) -> Iterator[LaggingGroup]:
    group = LaggingGroup(bundle, broker.bootstrap, tmp_path, f"lagging-{time.monotonic_ns()}", waiting=waiting)
    for topic in (group.output, group.dead_letter):
        broker.create_topic(topic, partitions=PARTITIONS)
    yield group
    group.kill_all()


def test_waiting_records_do_not_fill_the_memory(group: LaggingGroup) -> None:
    # Given a worker with at most 200 records per batch
    group.start_lagging("job.max_poll_records=200")
    # When it runs
    samples = group.watch_memory(WATCH_SECONDS)
    # Then it holds a small part of the waiting records
    assert max(samples) < MAX_RESIDENT_MIB
    # And no batch is larger, but most are as large
    metrics = group.metrics()
    batches = metrics["model_name_kafka_batch_records_count"]
    assert batches > 50
    assert metrics["model_name_kafka_batch_records_bucket256.0"] == batches
    assert 150 < metrics["model_name_kafka_batch_records_sum"] / batches <= 200
    assert metrics["model_name_kafka_lag"] > WAITING / 10


def test_a_slow_model_limits_what_is_polled(group: LaggingGroup) -> None:
    # Given a model that takes two seconds for a batch
    group.command, group.env = [sys.executable, str(SLOW_WORKER), "kafka", "run"], {"SECONDS": str(SLOW_SECONDS)}
    started = time.monotonic()
    group.start_lagging("job.max_poll_records=50")
    # When it runs
    group.watch_memory(5)
    samples = group.watch_memory(SLOW_WATCH_SECONDS)
    # Then it polls no more than it processes, and its memory stays constant
    assert max(samples) < MAX_RESIDENT_MIB
    assert max(samples) - min(samples) < 10
    metrics = group.metrics()
    assert 0 < metrics["model_name_kafka_records_total"] <= 50 * ((time.monotonic() - started) / SLOW_SECONDS + 1)
    assert metrics["model_name_kafka_failed_batches_total"] == 0
