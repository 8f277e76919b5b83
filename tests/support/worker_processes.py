"""Processes of one consumer group, a producer that feeds them, and the faults that tests inject."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.support.tables import FLAT_ROWS

SESSION_SECONDS = 3.0
TRANSACTION_SECONDS = 8.0
START_TIMEOUT_SECONDS = 90.0
COMMIT_TIMEOUT_SECONDS = 180.0
KEYS = 23
INVALID_EVERY = 50  # one record of 50 is not a valid row
VALUES = [json.dumps(row).encode() for row in FLAT_ROWS]


@dataclass
class WorkerGroup:
    """Workers of one consumer group, and their topics.

    Attributes:
        bundle: Folder of the bundle.
        bootstrap: Addresses of the cluster.
        folder: Folder of the logs.
        name: Consumer group, and prefix of the topics.
        partitions: Number of partitions of each topic.
        delivery: Delivery of the results.
        command: Command that starts a worker, before its options.
        extra: Settings of all workers, as `job.KEY=VALUE`.
        env: Environment variables of the workers, in addition to those of the test.
        workers: Processes that were started, in order.
        sent: Number of records that were produced.
    """

    bundle: Path
    bootstrap: str
    folder: Path
    name: str
    partitions: int = 4
    delivery: str = "exactly_once"
    command: Sequence[str] = (sys.executable, "-m", "model_name", "kafka", "run")
    extra: Sequence[str] = ()
    env: dict[str, str] = field(default_factory=dict)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    sent: int = 0

    @property
    def input(self) -> str:
        return f"{self.name}-in"

    @property
    def output(self) -> str:
        return f"{self.name}-out"

    @property
    def dead_letter(self) -> str:
        return f"{self.name}-dead"

    def create_topics(self, cluster: Any, **options: Any) -> None:
        for topic in (self.input, self.output, self.dead_letter):
            cluster.create_topic(topic, partitions=self.partitions, **options)

    def start(self, *settings: str) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        pairs = [
            f"job.session_seconds={SESSION_SECONDS}",
            f"job.transaction_seconds={TRANSACTION_SECONDS}",
            "job.http_port=0",
            *self.extra,
            *settings,
        ]
        command = [*self.command, "--bundle", str(self.bundle), "--bootstrap-servers", self.bootstrap]
        command += ["--input", self.input, "--output", self.output, "--dead-letter", self.dead_letter]
        command += ["--group", self.name, "--delivery", self.delivery]
        command += [part for pair in pairs for part in ("--set", pair)]
        log = (self.folder / f"{self.name}-{len(self.workers)}.log").open("wb")
        env = os.environ | {"OMP_NUM_THREADS": "1"} | self.env
        self.workers.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env))
        log.close()
        return self.workers[-1]

    def read_log(self, worker: subprocess.Popen[bytes]) -> str:
        file = self.folder / f"{self.name}-{self.workers.index(worker)}.log"
        return file.read_text(encoding="utf-8", errors="replace")

    def wait_until_assigned(self, worker: subprocess.Popen[bytes]) -> None:
        """Wait until the group has assigned partitions to a worker."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while "assigned partitions: " not in self.read_log(worker):
            assert worker.poll() is None, self.read_log(worker)
            assert time.monotonic() < deadline, self.read_log(worker)
            time.sleep(0.1)

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self.workers if worker.poll() is None]

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """Kill a worker, as the failure of its node does."""
        assert worker.poll() is None, self.read_log(worker)
        worker.kill()
        worker.wait()

    def stop(self, worker: subprocess.Popen[bytes]) -> float:
        """Stop a worker by SIGTERM, as Kubernetes does, and return the seconds that it took."""
        assert worker.poll() is None, self.read_log(worker)
        started = time.monotonic()
        worker.terminate()
        assert worker.wait(60) == 0, self.read_log(worker)
        return time.monotonic() - started

    @contextmanager
    def suspended(self, worker: subprocess.Popen[bytes]) -> Iterator[None]:
        """Suspend a worker by SIGSTOP during the block."""
        worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            worker.send_signal(signal.SIGCONT)

    @contextmanager
    def producing(self, rate: float, **security: Any) -> Iterator[None]:
        """Produce `rate` records per second during the block; a few of them are invalid."""
        done = Event()
        thread = Thread(target=self._produce, args=(rate, done, security))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _produce(self, rate: float, done: Event, security: dict[str, Any]) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True, linger_ms=5, **security
        )
        started = time.monotonic()
        while not done.wait(0.01):
            for number in range(self.sent, int((time.monotonic() - started) * rate)):
                value = VALUES[number % len(VALUES)] if number % INVALID_EVERY else b"not a row"
                producer.send(self.input, value, b"key-%d" % (number % KEYS))
                self.sent += 1
        producer.flush()
        producer.close()

    def wait_until_committed(self, **security: Any) -> None:
        """Wait until the group has committed all records."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.name, enable_auto_commit=False,
            isolation_level="read_committed", **security,
        )  # fmt: skip
        partitions = [TopicPartition(self.input, number) for number in range(self.partitions)]
        deadline = time.monotonic() + COMMIT_TIMEOUT_SECONDS
        lags: dict[int, Any] = {}
        while time.monotonic() < deadline:
            ends = consumer.end_offsets(partitions)
            lags = {one.partition: ends[one] - (consumer.committed(one) or 0) for one in partitions}
            if not any(lags.values()):
                consumer.close()
                return
            time.sleep(0.5)
        logs = "\n".join(self.read_log(worker)[-3000:] for worker in self.running)
        raise AssertionError(f"uncommitted records: {lags}\n{logs}")

    def verify(self) -> dict[str, Any]:
        """Run `model-name kafka verify` and return its report and exit code; the report is in the log of the test."""
        command = [sys.executable, "-m", "model_name", "kafka", "verify", "--bootstrap-servers", self.bootstrap]
        command += ["--input", self.input, "--output", self.output, "--dead-letter", self.dead_letter, "--json"]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=300, env=os.environ | self.env
        )
        assert done.stdout, done.stderr
        print(done.stdout)  # noqa: T201  the report
        return {"exit": done.returncode} | json.loads(done.stdout)

    def check_delivery(self) -> None:
        """Wait until all records are committed, and check that each has one result or dead letter, in order."""
        self.wait_until_committed()
        report = self.verify()
        counts = {name: report[name]["count"] for name in ("lost", "doubled", "reordered", "unknown", "foreign")}
        assert counts == dict.fromkeys(counts, 0), report
        assert report["records"] == self.sent
        assert report["exit"] == 0

    def kill_all(self) -> None:
        """Kill the workers that still run."""
        for worker in self.running:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()


def choose_worker(workers: Sequence[subprocess.Popen[bytes]], rng: random.Random) -> subprocess.Popen[bytes]:
    """Choose a worker at random."""
    return workers[rng.randrange(len(workers))]
