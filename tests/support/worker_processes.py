"""Workers of one group in processes of their own, what feeds them, and the faults that befall them."""

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
START_SECONDS = 90.0
SETTLE_SECONDS = 180.0
KEYS = 23
BAD_EVERY = 50  # records; the others fit the schema
VALUES = [json.dumps(row).encode() for row in FLAT_ROWS]


@dataclass
class Fleet:
    """The workers of one group."""

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
        command += [
            "--group",
            self.name,
            "--delivery",
            self.delivery,
            *(part for one in pairs for part in ("--set", one)),
        ]
        log = (self.folder / f"{self.name}-{len(self.workers)}.log").open("wb")
        env = os.environ | {"OMP_NUM_THREADS": "1"} | self.env
        self.workers.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env))
        log.close()
        return self.workers[-1]

    def log_of(self, worker: subprocess.Popen[bytes]) -> str:
        file = self.folder / f"{self.name}-{self.workers.index(worker)}.log"
        return file.read_text(encoding="utf-8", errors="replace")

    def wait_until_reading(self, worker: subprocess.Popen[bytes]) -> None:
        """Until it has partitions."""
        deadline = time.monotonic() + START_SECONDS
        while " reads " not in self.log_of(worker):
            assert worker.poll() is None, self.log_of(worker)
            assert time.monotonic() < deadline, self.log_of(worker)
            time.sleep(0.1)

    @property
    def running(self) -> list[subprocess.Popen[bytes]]:
        return [worker for worker in self.workers if worker.poll() is None]

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """At once, as a node that goes dark."""
        assert worker.poll() is None, self.log_of(worker)
        worker.kill()
        worker.wait()

    def stop(self, worker: subprocess.Popen[bytes]) -> float:
        """As Kubernetes does; returns the seconds that it took."""
        assert worker.poll() is None, self.log_of(worker)
        started = time.monotonic()
        worker.terminate()
        assert worker.wait(60) == 0, self.log_of(worker)
        return time.monotonic() - started

    @contextmanager
    def frozen(self, worker: subprocess.Popen[bytes]) -> Iterator[None]:
        """While it is stopped by SIGSTOP."""
        worker.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            worker.send_signal(signal.SIGCONT)

    @contextmanager
    def fed(self, rate: float, **security: Any) -> Iterator[None]:
        """While records come in, this many a second, of which a few have no result."""
        done = Event()
        thread = Thread(target=self._feed, args=(rate, done, security))
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _feed(self, rate: float, done: Event, security: dict[str, Any]) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap, acks="all", enable_idempotence=True, linger_ms=5, **security
        )
        started = time.monotonic()
        while not done.wait(0.01):
            for number in range(self.sent, int((time.monotonic() - started) * rate)):
                value = VALUES[number % len(VALUES)] if number % BAD_EVERY else b"not a row"
                producer.send(self.input, value, b"key-%d" % (number % KEYS))
                self.sent += 1
        producer.flush()
        producer.close()

    def settle(self, **security: Any) -> None:
        """Until all that came in is committed."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, group_id=self.name, enable_auto_commit=False,
            isolation_level="read_committed", **security,
        )  # fmt: skip
        partitions = [TopicPartition(self.input, number) for number in range(self.partitions)]
        deadline = time.monotonic() + SETTLE_SECONDS
        behind: dict[int, Any] = {}
        while time.monotonic() < deadline:
            ends = consumer.end_offsets(partitions)
            behind = {one.partition: ends[one] - (consumer.committed(one) or 0) for one in partitions}
            if not any(behind.values()):
                consumer.close()
                return
            time.sleep(0.5)
        logs = "\n".join(self.log_of(worker)[-3000:] for worker in self.running)
        raise AssertionError(f"not all is delivered: {behind}\n{logs}")

    def end(self) -> None:
        """Kill what still runs."""
        for worker in self.running:
            worker.send_signal(signal.SIGCONT)
            worker.kill()
            worker.wait()


def some(workers: Sequence[subprocess.Popen[bytes]], chance: random.Random) -> subprocess.Popen[bytes]:
    """One of them."""
    return workers[chance.randrange(len(workers))]
