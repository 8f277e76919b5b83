"""Workers between topics of one test: one worker in this process, or a group of processes."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple
from uuid import uuid4

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
from tests.support.kafka_topics import RecordToWrite, create_topics, read_committed, write_transactions
from tests.support.worker_processes import WorkerGroup

WAIT_SECONDS = 60.0


class WorkerOutput(NamedTuple):
    """Records that workers wrote, sorted by topic, partition and offset."""

    results: Sequence[Any]
    dead_letters: Sequence[Any]


@dataclass
class WorkerHarness:
    """Three topics and the workers of one group between them.

    Attributes:
        metrics: Metrics of the worker that ran last.
    """

    broker: Any
    plane: DataPlane
    partitions: int = 2
    settings: dict[str, Any] = field(default_factory=dict)
    metrics: WorkerMetrics = field(init=False)

    def __post_init__(self) -> None:
        self.input, self.output, self.dead = create_topics(self.broker, "in", "out", "dead", partitions=self.partitions)

    def record(self, value: bytes | None, **more: Any) -> RecordToWrite:
        return RecordToWrite(self.input, value=value, **{"partition": 0} | more)

    def write(self, *records: RecordToWrite) -> list[RecordPosition]:
        return write_transactions(self.broker, [records])

    @contextmanager
    def running_worker(self, *, log: PredictionLog | None = None, **changes: Any) -> Iterator[Worker]:
        """Run a worker during the block; its error is raised at the end."""
        settings = {
            "bundle": str(self.plane.bundle.directory),
            "bootstrap_servers": self.broker.bootstrap,
            "input": self.input,
            "output": self.output,
            "dead_letter": self.dead,
            "group": f"group-{self.input}",
            "instance": f"worker-{self.input}",
            "http_port": 0,
        }
        validated = WorkerSettings.model_validate(settings | self.settings | changes)
        self.metrics = WorkerMetrics("")
        worker = Worker(self.plane, validated, KafkaClientFactory(self.broker.bootstrap), self.metrics, log)
        stop, raised = Event(), []

        def run() -> None:
            try:
                worker.run(stop)
            except BaseException as err:  # noqa: BLE001  raised again below
                raised.append(err)

        thread = Thread(target=run, daemon=True)
        thread.start()
        try:
            yield worker
        finally:
            stop.set()
            thread.join(WAIT_SECONDS)
        if raised:
            raise raised[0]

    def process(self, count: int, **options: Any) -> WorkerOutput:
        """Run a worker until it has processed `count` records, and read what it wrote."""
        with self.running_worker(**options) as worker:
            wait_until(lambda: worker.stats.predicted + worker.stats.dead_letters >= count)
        return self.read_output()

    def write_and_process(self, *records: RecordToWrite) -> WorkerOutput:
        """Write records and run a worker until it has processed them."""
        self.write(*records)
        return self.process(len(records))

    def committed_offsets(self, worker: Worker) -> list[int | None]:
        """Read the committed offset of each partition."""
        with TopicReader(KafkaClientFactory(self.broker.bootstrap), group=worker.settings.group) as reader:
            committed = reader.committed(reader.partitions(self.input))
        return [one.offset if one else None for one in committed.values()]

    def read_output(self) -> WorkerOutput:
        records = read_committed(self.broker, self.output, self.dead)
        return WorkerOutput(
            [record for record in records if record.topic == self.output],
            [record for record in records if record.topic == self.dead],
        )


MakeWorkerGroup = Callable[..., WorkerGroup]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a bundle."""
    return make_bundle("regression", tmp_path_factory.mktemp("bundle")).directory


@pytest.fixture
def make_worker_group(bundle: Path, tmp_path: Path) -> Iterator[MakeWorkerGroup]:
    """`make_worker_group(cluster, **changes)`: a group with topics of its own, and no worker yet."""
    groups: list[WorkerGroup] = []

    def make(cluster: Any, **changes: Any) -> WorkerGroup:
        settings = {"bootstrap": cluster.bootstrap, "name": f"group-{uuid4().hex[:12]}"} | changes
        groups.append(WorkerGroup(bundle, folder=tmp_path, **settings))
        groups[-1].create_topics(cluster)
        return groups[-1]

    yield make
    for group in groups:
        group.kill_all()


def wait_until(condition: Any, seconds: float = WAIT_SECONDS) -> None:
    """Poll a condition until it is true.

    Raises:
        AssertionError: The condition is still false after the timeout.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def source_positions(records: Sequence[Any], names: Sequence[str] = RESULT_SOURCE_HEADERS) -> list[RecordPosition]:
    """Parse the positions of the input records from the headers of results or dead letters."""
    positions = [parse_source(record.headers, names) for record in records]
    assert None not in positions
    return [position for position in positions if position]
