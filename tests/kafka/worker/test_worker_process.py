"""Worker processes: start, probes and stop."""

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaConsumer
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from prometheus_client.parser import text_string_to_metric_families

from model_name.errors import StorageError
from model_name.kafka.worker.worker_process import load_plane
from model_name.kafka.worker.worker_settings import WorkerSettings
from tests.support.counts import count
from tests.support.kafka_cluster import send_values
from tests.support.kafka_workers import MakeWorkerGroup, wait_until
from tests.support.server_processes import free_ports
from tests.support.signing_keys import make_key_pair, sign
from tests.support.worker_processes import SESSION_SECONDS, VALUES, WorkerGroup

pytestmark = pytest.mark.kafka

STOP_SECONDS = 10.0
STOP_AFTER_SECONDS = count(reduced=[0.0, 0.6, 1.2], full=[0.0, *(0.3 + 0.1 * number for number in range(12))])
"""Times after the start of a worker at which it receives SIGTERM: none, during its imports, while it connects."""

SLOW_WORKER = Path(__file__).parents[2] / "support/slow_worker.py"
SLOW_MODEL = {"command": [sys.executable, str(SLOW_WORKER), "kafka", "run"], "env": {"SECONDS": "600"}}
"""Options of a worker whose model is slower than any timeout."""


@pytest.fixture
def suspend_broker(broker: Any) -> Iterator[Callable[[], None]]:
    """`suspend_broker()`: suspend the broker until the end of the test."""
    yield broker.suspend
    broker.resume()
    broker.start()


def test_worker_requires_a_signature_if_it_has_a_public_key(bundle: Path, tmp_path: Path) -> None:
    # given a worker with a public key, and an unsigned bundle
    key, directory = make_key_pair(tmp_path, "key"), Path(shutil.copytree(bundle, tmp_path / "bundle"))
    topics = {"input": "rows", "output": "results", "dead_letter": "failed", "group": "scorers"}
    settings = {"bundle": str(directory), "bootstrap_servers": "127.0.0.1:9", "bundle_public_key": str(key.public_file)}
    pairs = [part for name, value in (settings | topics).items() for part in ("--set", f"job.{name}={value}")]
    command = [sys.executable, "-m", "model_name", "kafka", "run", *pairs]
    # when it starts, then it refuses the bundle before it connects
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, f"{directory}: is not signed" in result.stderr) == (4, True), result.stderr
    # and a signed one is loaded
    sign(directory, key)
    assert load_plane(WorkerSettings.model_validate(settings | topics)).bundle.directory == directory


def verify(group: WorkerGroup) -> None:
    """Check that each record has one result or dead letter, in order."""
    report = group.verify()
    assert report["exit"] == 0, report


def stop_by_signal(worker: subprocess.Popen[bytes], number: int, within: float = STOP_SECONDS) -> int:
    """Send a signal to a worker and return its exit code."""
    started = time.monotonic()
    worker.send_signal(number)
    code = worker.wait(60)
    assert time.monotonic() - started < within
    return code


def count_members(broker: Any, group: WorkerGroup) -> int:
    """Count the members of the group."""
    with broker.admin() as admin:
        return len(admin.describe_groups([group.name])[group.name]["members"])


def join_group(group: WorkerGroup, broker: Any, **options: Any) -> Any:
    """Join the group with a consumer that is assigned all partitions and not polled any more."""
    member = KafkaConsumer(group.input, **broker.client_options(), group_id=group.name, **options)
    member.partitions_for_topic(group.input)
    wait_until(lambda: member.poll(timeout_ms=100) or member.assignment())
    return member


class TestStopping:
    @pytest.mark.slow
    def test_sigterm_under_load_leaves_the_group_and_doubles_nothing(
        self, broker: Any, make_worker_group: MakeWorkerGroup
    ) -> None:
        # Given a running worker
        group = make_worker_group(broker)
        worker = group.start()
        group.wait_until_assigned(worker)
        with group.producing(rate=2000):
            time.sleep(2)
            # When it receives SIGTERM
            code = stop_by_signal(worker, signal.SIGTERM)
            # Then it delivers the batches in flight, prints its totals and leaves the group
            assert code == 0
            assert "not delivered" not in group.read_log(worker)
            assert "predicted" in group.read_log(worker)
            assert count_members(broker, group) == 0
            group.wait_until_assigned(group.start())
        # And the next worker continues where it stopped
        group.wait_until_committed()
        verify(group)

    @pytest.mark.slow
    def test_sigterm_during_a_long_batch_leaves_it_to_others(
        self, broker: Any, make_worker_group: MakeWorkerGroup
    ) -> None:
        # Given a model that takes long for a batch
        group = make_worker_group(broker, partitions=1, **SLOW_MODEL)
        worker = group.start()
        group.wait_until_assigned(worker)
        send_values(broker.client_options(), group.input, VALUES)
        group.sent = len(VALUES)
        time.sleep(2)
        # When it receives SIGTERM, then it stops in time and logs the undelivered batch
        assert stop_by_signal(worker, signal.SIGTERM) == 0
        assert "not delivered; other workers will process them" in group.read_log(worker)
        assert count_members(broker, group) == 0
        # And another worker processes it
        group.command = WorkerGroup.command
        group.wait_until_assigned(group.start())
        group.wait_until_committed()
        verify(group)

    @pytest.mark.slow
    def test_sigterm_during_a_broker_outage(
        self, broker: Any, make_worker_group: MakeWorkerGroup, suspend_broker: Any
    ) -> None:
        # Given a running worker whose broker is suspended
        group = make_worker_group(broker)
        worker = group.start()
        group.wait_until_assigned(worker)
        with group.producing(rate=500):
            time.sleep(1)
            suspend_broker()
            time.sleep(1)
            # When it receives SIGTERM, then it stops in time
            assert stop_by_signal(worker, signal.SIGTERM) == 0
            broker.resume()
        # And no record is lost or doubled after the outage
        group.wait_until_assigned(group.start())
        group.wait_until_committed()
        verify(group)

    @pytest.mark.slow
    @pytest.mark.parametrize("seconds", STOP_AFTER_SECONDS)
    def test_sigterm_before_the_group_is_joined(
        self, broker: Any, make_worker_group: MakeWorkerGroup, seconds: float
    ) -> None:
        # When a worker receives SIGTERM during its start, then it stops
        group = make_worker_group(broker)
        worker = group.start()
        time.sleep(seconds)
        code = stop_by_signal(worker, signal.SIGTERM)
        # And exits cleanly once its handler is installed
        assert code in (-signal.SIGTERM, 0, 143), group.read_log(worker)
        assert "Traceback" not in group.read_log(worker)

    @pytest.mark.slow
    def test_sigterm_while_connecting_to_a_suspended_broker(
        self, broker: Any, make_worker_group: MakeWorkerGroup, suspend_broker: Any
    ) -> None:
        # Given a worker whose broker does not respond from the start
        group = make_worker_group(broker)
        suspend_broker()
        worker = group.start()
        time.sleep(3)
        # When it receives SIGTERM, then it stops in time
        code = stop_by_signal(worker, signal.SIGTERM, within=3 * STOP_SECONDS)  # the client gives up after ten seconds
        assert code in (0, 5, 143), group.read_log(worker)
        assert "Traceback" not in group.read_log(worker)

    def test_the_first_ctrl_c_stops_like_sigterm(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        group = make_worker_group(broker)
        worker = group.start()
        group.wait_until_assigned(worker)
        assert stop_by_signal(worker, signal.SIGINT) == 0
        assert count_members(broker, group) == 0

    def test_the_second_ctrl_c_exits_at_once(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given a worker that waits for a long batch before it stops
        group = make_worker_group(broker, **SLOW_MODEL)
        worker = group.start()
        group.wait_until_assigned(worker)
        send_values(broker.client_options(), group.input, VALUES)
        time.sleep(2)
        worker.send_signal(signal.SIGINT)
        time.sleep(1)
        assert worker.poll() is None
        # When it receives a second one, then it exits
        assert stop_by_signal(worker, signal.SIGINT, within=1) == 128 + signal.SIGINT


class ProbedWorker:
    """Worker process with probes."""

    def __init__(self, group: WorkerGroup, *settings: str) -> None:
        (port,) = free_ports(1)
        self.group, self.url = group, f"http://127.0.0.1:{port}"
        self.worker = group.start(f"job.http_port={port}", *settings)
        wait_until(lambda: self.get("/healthz") is not None)

    def get(self, path: str) -> httpx.Response | None:
        try:
            return httpx.get(self.url + path, timeout=5)
        except httpx.TransportError:
            assert self.worker.poll() is None, self.group.read_log(self.worker)
            return None

    def status(self, path: str) -> int:
        response = self.get(path)
        return response.status_code if response is not None else 0

    def metrics(self) -> dict[tuple[str, str], float]:
        """Parse the samples into a map from name and value of the first label to the value."""
        response = self.get("/metrics")
        assert response is not None
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }


class TestProbes:
    def test_a_worker_is_ready_once_it_has_joined_the_group(
        self, broker: Any, make_worker_group: MakeWorkerGroup
    ) -> None:
        # Given a member of the group that does not take part in rebalances
        group = make_worker_group(broker)
        options = {"partition_assignment_strategy": [StickyPartitionAssignor], "enable_auto_commit": False}
        member = join_group(group, broker, **options)
        # When a worker starts, then it is live and not ready
        probed = ProbedWorker(group)
        for _ in range(10):
            assert (probed.status("/healthz"), probed.status("/readyz")) == (200, 503)
            time.sleep(0.1)
        response = probed.get("/readyz")
        assert response is not None
        assert "not in the group yet" in response.text
        # And it is ready when the other member has left
        member.close()
        wait_until(lambda: probed.status("/readyz") == 200)
        assert probed.status("/healthz") == 200
        assert probed.status("/nothing") == 404

    @pytest.mark.slow
    def test_a_worker_with_a_stuck_model_is_not_live(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given a worker whose model is stuck
        probed = ProbedWorker(make_worker_group(broker, **SLOW_MODEL), "job.stuck_seconds=4")
        wait_until(lambda: probed.status("/readyz") == 200)
        send_values(broker.client_options(), probed.group.input, VALUES)
        time.sleep(2)
        assert probed.status("/healthz") == 200
        # When this takes too long, then it is neither live nor ready, with the reason
        wait_until(lambda: probed.status("/healthz") == 503, 10)
        response = probed.get("/readyz")
        assert response is not None
        assert response.status_code == 503
        assert "no step for" in response.text

    @pytest.mark.slow
    def test_a_worker_stays_live_during_a_broker_outage(
        self, broker: Any, make_worker_group: MakeWorkerGroup, suspend_broker: Any
    ) -> None:
        # Given a running worker with a limit for progress little above that of a transaction
        group = make_worker_group(broker)
        probed = ProbedWorker(group, "job.stuck_seconds=12")
        wait_until(lambda: probed.status("/readyz") == 200)
        with group.producing(rate=200):
            time.sleep(1)
            # When the broker is suspended for twice that time
            suspend_broker()
            states = []
            for _ in range(24):
                time.sleep(1)
                states.append(probed.status("/healthz"))
            broker.resume()
        # Then it stays live, and continues
        assert {*states} == {200}
        group.wait_until_committed()
        verify(group)

    def test_metrics_add_up_to_the_sent_records(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given records with one and with three rows, and invalid ones
        group = make_worker_group(broker, partitions=3)
        three = b"[" + b",".join(VALUES) + b"]"
        send_values(broker.client_options(), group.input, [*VALUES * 10, *[three] * 5, *[b"bad"] * 4])
        # When a worker has processed them
        probed = ProbedWorker(group, "job.slot=blue")
        records = "model_name_kafka_records_total"
        wait_until(lambda: probed.metrics()[records, "predicted"] + probed.metrics()[records, "dead_letter"] == 39)
        wait_until(lambda: [probed.metrics().get(("model_name_kafka_lag", str(one))) for one in range(3)] == [0, 0, 0])
        # Then its metrics add up
        metrics = probed.metrics()
        assert (metrics[records, "predicted"], metrics[records, "dead_letter"]) == (35, 4)
        assert metrics["model_name_kafka_rows_total", ""] == 45
        assert metrics["model_name_kafka_batch_records_sum", ""] == 39
        assert metrics["model_name_kafka_failed_batches_total", ""] == 0
        for name in ("predict_seconds", "deliver_seconds", "latency_seconds"):
            assert metrics[f"model_name_kafka_{name}_count", ""] == metrics["model_name_kafka_batch_records_count", ""]
        assert metrics["model_name_model_info", "regression"] == 1


def test_a_group_with_another_assignor_is_rejected(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given a group whose members use another assignor
    group = make_worker_group(broker)
    member = join_group(group, broker)
    # When a worker starts in it, then it exits with a hint
    worker = group.start()
    assert worker.wait(60) == 5
    assert "name a `group` of its own" in group.read_log(worker)
    member.close()


def test_a_port_in_use_is_reported(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # When a worker starts with a port in use, then it exits with a hint
    with socket.create_server(("127.0.0.1", 0)) as taken:
        group = make_worker_group(broker)
        worker = group.start(f"job.http_port={taken.getsockname()[1]}")
        assert worker.wait(60) == 2
    assert "--http-port names another one" in group.read_log(worker)


def test_an_unwritable_prediction_log_is_reported_at_the_start(
    broker: Any, make_worker_group: MakeWorkerGroup, tmp_path: Path
) -> None:
    # Given a file in the place of the folder
    (tmp_path / "log").write_text("")
    # When a worker starts, then it exits with a hint
    group = make_worker_group(broker)
    worker = group.start(f"job.prediction_log={tmp_path / 'log'}")
    assert worker.wait(60) == StorageError.exit_code
    assert "prediction_log: " in group.read_log(worker)
    assert "name a folder that the worker may write to" in group.read_log(worker)


@pytest.mark.slow
def test_one_of_two_workers_with_the_same_name_exits_and_nothing_is_doubled(
    broker: Any, make_worker_group: MakeWorkerGroup
) -> None:
    # Given two workers with the same name
    group = make_worker_group(broker)
    for _ in range(2):
        group.start("job.instance=the-same")
    # When records arrive
    with group.producing(rate=200):
        # Then one exits soon, with the reason
        wait_until(lambda: len(group.running) == 1, 90)
        time.sleep(3 * SESSION_SECONDS)
    (stopped,) = (worker for worker in group.workers if worker.poll() is not None)
    assert stopped.returncode == 5
    assert "another worker calls itself the-same" in group.read_log(stopped)
    assert "`instance` of its own" in group.read_log(stopped)
    # And the other processes all records once
    group.wait_until_committed()
    verify(group)
    assert len(group.running) == 1
