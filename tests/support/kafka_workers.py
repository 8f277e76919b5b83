"""Workers between topics of a test's own: one in this process, or a fleet of processes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import pytest

from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.records import RESULT_SOURCE_HEADERS, RecordPosition, parse_source
from model_name.kafka.tools.topic_reader import TopicReader
from model_name.kafka.worker.worker import Worker
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.kafka.worker.worker_settings import WorkerSettings
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import PredictionLog
from tests.support.flat_bundles import make_bundle
from tests.support.kafka_topics import Written, fresh, read_all, write
from tests.support.worker_processes import Fleet

WORK_SECONDS = 60.0


class Replies(NamedTuple):
    """What a worker wrote, by topic, partition and offset."""

    results: Sequence[Any]
    dead_letters: Sequence[Any]


@dataclass
class Bench:
    """Three topics, and workers of one group between them.

    Attributes:
        telemetry: Of the worker that ran last.
    """

    broker: Any
    plane: DataPlane
    partitions: int = 2
    settings: dict[str, Any] = field(default_factory=dict)
    telemetry: WorkerMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.input, self.output, self.dead = fresh(self.broker, "in", "out", "dead", partitions=self.partitions)

    def record(self, value: bytes | None, **more: Any) -> Written:
        return Written(self.input, value=value, **{"partition": 0} | more)

    def write(self, *records: Written) -> list[RecordPosition]:
        return write(self.broker, [records])

    @contextmanager
    def working(self, *, log: PredictionLog | None = None, **changes: Any) -> Iterator[Worker]:
        """While a worker works; what ends it is raised at the end."""
        told = {
            "bundle": str(self.plane.bundle.directory),
            "bootstrap_servers": self.broker.bootstrap,
            "input": self.input,
            "output": self.output,
            "dead_letter": self.dead,
            "group": f"group-{self.input}",
            "instance": f"worker-{self.input}",
            "http_port": 0,
        }
        settings = WorkerSettings.model_validate(told | self.settings | changes)
        self.telemetry = WorkerMetrics("")
        worker = Worker(self.plane, settings, KafkaClientFactory(self.broker.bootstrap), self.telemetry, log)
        stop, raised = Event(), []

        def run() -> None:
            try:
                worker.run(stop)
            except BaseException as err:  # noqa: BLE001  it is raised again below
                raised.append(err)

        thread = Thread(target=run, daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            stop.set()
            thread.join(WORK_SECONDS)
        if raised:
            raise raised[0]

    def work(self, count: int, **options: Any) -> Replies:
        """Have a worker answer so many records."""
        with self.working(**options) as worker:
            wait_until(lambda: worker.stats.predicted + worker.stats.dead_letters >= count)
        return self.replies()

    def answer(self, *records: Written) -> Replies:
        """Write records, and have a worker answer them."""
        self.write(*records)
        return self.work(len(records))

    def committed(self, worker: Worker) -> list[int | None]:
        """How far the group is, by partition."""
        with TopicReader(KafkaClientFactory(self.broker.bootstrap), group=worker.settings.group) as reader:
            found = reader.committed(reader.partitions(self.input))
        return [at.offset if at else None for at in found.values()]

    def replies(self) -> Replies:
        found = read_all(self.broker, self.output, self.dead)
        return Replies(
            [record for record in found if record.topic == self.output],
            [record for record in found if record.topic == self.dead],
        )


MakeFleet = Callable[..., Fleet]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a bundle."""
    return make_bundle("regression", tmp_path_factory.mktemp("bundle")).directory


@pytest.fixture
def make_fleet(bundle: Path, tmp_path: Path) -> Iterator[MakeFleet]:
    """`make_fleet(cluster, **changes)`: a group of processes with topics of its own, and none of them yet."""
    made: list[Fleet] = []

    def make(cluster: Any, **changes: Any) -> Fleet:
        told = {"bootstrap": cluster.bootstrap, "name": f"fleet-{time.monotonic_ns()}"} | changes
        made.append(Fleet(bundle, folder=tmp_path, **told))
        made[-1].create_topics(cluster)
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


def wait_until(is_so: Any, seconds: float = WORK_SECONDS) -> None:
    """Look again and again.

    Raises:
        AssertionError: It is not so in time.
    """
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def sources(records: Sequence[Any], names: Sequence[str] = RESULT_SOURCE_HEADERS) -> list[RecordPosition]:
    """Of which records these are the results, or the dead letters."""
    found = [parse_source(record.headers, names) for record in records]
    assert None not in found
    return [place for place in found if place]
