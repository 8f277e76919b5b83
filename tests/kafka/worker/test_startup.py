"""The life of a worker process: how it starts, is probed, and ends."""

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

from tests.support.kafka_cluster import send_values
from tests.support.kafka_workers import MakeWorkerGroup, wait_until
from tests.support.server_processes import free_ports
from tests.support.worker_processes import SESSION_SECONDS, VALUES, WorkerGroup

pytestmark = pytest.mark.kafka

STOP_SECONDS = 10.0
SLOW = Path(__file__).parents[2] / "support/slow_worker.py"
LONG = {"command": [sys.executable, str(SLOW), "kafka", "run"], "env": {"SECONDS": "600"}}
"""A worker whose model does not come back in time."""


@pytest.fixture
def away(broker: Any) -> Iterator[Callable[[], None]]:
    """`away()`: the broker hangs until the end of the test."""
    yield broker.suspend
    broker.resume()
    broker.start()


def verify(group: WorkerGroup) -> None:
    """All that was sent has one answer, in its order."""
    command = [sys.executable, "-m", "model_name", "kafka", "verify", "--bootstrap-servers", group.bootstrap]
    command += ["--input", group.input, "--output", group.output, "--dead-letter", group.dead_letter]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def ended(worker: subprocess.Popen[bytes], number: int, within: float = STOP_SECONDS) -> int:
    """The exit code of a worker that is sent a signal."""
    started = time.monotonic()
    worker.send_signal(number)
    code = worker.wait(60)
    assert time.monotonic() - started < within
    return code


def members(broker: Any, group: WorkerGroup) -> int:
    """How many the group has."""
    with broker.admin() as admin:
        return len(admin.describe_groups([group.name])[group.name]["members"])


def join(group: WorkerGroup, broker: Any, **options: Any) -> Any:
    """A member of the group that has all partitions, and is not polled any more."""
    member = KafkaConsumer(group.input, **broker.client_options(), group_id=group.name, **options)
    member.partitions_for_topic(group.input)
    wait_until(lambda: member.poll(timeout_ms=100) or member.assignment())
    return member


class TestStopping:
    @pytest.mark.slow
    def test_sigterm_under_load_leaves_the_group_and_doubles_nothing(
        self, broker: Any, make_worker_group: MakeWorkerGroup
    ) -> None:
        # Given a worker at work
        group = make_worker_group(broker)
        worker = group.start()
        group.wait_until_assigned(worker)
        with group.producing(rate=2000):
            time.sleep(2)
            # When it is told to stop
            code = ended(worker, signal.SIGTERM)
            # Then it has delivered what it had begun, said what it has done, and left the group
            assert code == 0
            assert "not delivered" not in group.read_log(worker)
            assert "predicted" in group.read_log(worker)
            assert members(broker, group) == 0
            group.wait_until_assigned(group.start())
        # And the next one takes up where it ended
        group.wait_until_committed()
        verify(group)

    @pytest.mark.slow
    def test_sigterm_in_a_long_batch_leaves_it_to_others(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given a model that is at it for long
        group = make_worker_group(broker, partitions=1, **LONG)
        worker = group.start()
        group.wait_until_assigned(worker)
        send_values(broker.client_options(), group.input, VALUES)
        group.sent = len(VALUES)
        time.sleep(2)
        # When it is told to stop, then it does so in time, and says what it has left
        assert ended(worker, signal.SIGTERM) == 0
        assert "not delivered; others read them again" in group.read_log(worker)
        assert members(broker, group) == 0
        # And another answers it
        group.command = WorkerGroup.command
        group.wait_until_assigned(group.start())
        group.wait_until_committed()
        verify(group)

    @pytest.mark.slow
    def test_sigterm_while_the_broker_is_away(self, broker: Any, make_worker_group: MakeWorkerGroup, away: Any) -> None:
        # Given a worker at work, whose broker goes away
        group = make_worker_group(broker)
        worker = group.start()
        group.wait_until_assigned(worker)
        with group.producing(rate=500):
            time.sleep(1)
            away()
            time.sleep(1)
            # When it is told to stop, then it does so in time
            assert ended(worker, signal.SIGTERM) == 0
            broker.resume()
        # And nothing is lost or doubled when it is back
        group.wait_until_assigned(group.start())
        group.wait_until_committed()
        verify(group)

    @pytest.mark.slow
    @pytest.mark.parametrize("seconds", [0.0, *(0.3 + 0.1 * number for number in range(12))])
    def test_sigterm_before_the_group_is_joined(
        self, broker: Any, make_worker_group: MakeWorkerGroup, seconds: float
    ) -> None:
        # Given a worker that has just been started, and when it is told to stop, then it does
        group = make_worker_group(broker)
        worker = group.start()
        time.sleep(seconds)
        code = ended(worker, signal.SIGTERM)
        # And says so, once it can
        assert code in (-signal.SIGTERM, 0, 143), group.read_log(worker)
        assert "Traceback" not in group.read_log(worker)

    @pytest.mark.slow
    def test_sigterm_while_it_connects_in_vain(
        self, broker: Any, make_worker_group: MakeWorkerGroup, away: Any
    ) -> None:
        # Given a worker whose broker does not answer from the start
        group = make_worker_group(broker)
        away()
        worker = group.start()
        time.sleep(3)
        # When it is told to stop, then it does so in time
        code = ended(worker, signal.SIGTERM, within=3 * STOP_SECONDS)  # the client gives up after ten
        assert code in (0, 5, 143), group.read_log(worker)
        assert "Traceback" not in group.read_log(worker)

    def test_the_first_ctrl_c_is_as_sigterm(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        group = make_worker_group(broker)
        worker = group.start()
        group.wait_until_assigned(worker)
        assert ended(worker, signal.SIGINT) == 0
        assert members(broker, group) == 0

    def test_the_second_ctrl_c_ends_it_at_once(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given a worker that waits for a long batch before it ends
        group = make_worker_group(broker, **LONG)
        worker = group.start()
        group.wait_until_assigned(worker)
        send_values(broker.client_options(), group.input, VALUES)
        time.sleep(2)
        worker.send_signal(signal.SIGINT)
        time.sleep(1)
        assert worker.poll() is None
        # When there is a second one, then it is gone
        assert ended(worker, signal.SIGINT, within=1) == 128 + signal.SIGINT


class Probed:
    """A worker process with probes."""

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
        """Each sample by its name and the value of its first label."""
        response = self.get("/metrics")
        assert response is not None
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }


class TestProbes:
    def test_a_worker_is_ready_once_it_is_in_the_group(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given a member of the group that does not make room for others
        group = make_worker_group(broker)
        kind = {"partition_assignment_strategy": [StickyPartitionAssignor], "enable_auto_commit": False}
        member = join(group, broker, **kind)
        # When a worker starts, then it is alive and not ready
        probed = Probed(group)
        for _ in range(10):
            assert (probed.status("/healthz"), probed.status("/readyz")) == (200, 503)
            time.sleep(0.1)
        response = probed.get("/readyz")
        assert response is not None
        assert "not in the group yet" in response.text
        # And ready when the other has left
        member.close()
        wait_until(lambda: probed.status("/readyz") == 200)
        assert probed.status("/healthz") == 200
        assert probed.status("/nothing") == 404

    @pytest.mark.slow
    def test_a_model_that_does_not_come_back_is_not_alive(
        self, broker: Any, make_worker_group: MakeWorkerGroup
    ) -> None:
        # Given a worker whose model hangs
        probed = Probed(make_worker_group(broker, **LONG), "job.stuck_seconds=4")
        wait_until(lambda: probed.status("/readyz") == 200)
        send_values(broker.client_options(), probed.group.input, VALUES)
        time.sleep(2)
        assert probed.status("/healthz") == 200
        # When that takes too long, then it is neither alive nor ready, and says so
        wait_until(lambda: probed.status("/healthz") == 503, 10)
        response = probed.get("/readyz")
        assert response is not None
        assert response.status_code == 503
        assert "no step for" in response.text

    @pytest.mark.slow
    def test_an_outage_of_the_broker_is_nothing_to_be_restarted_for(
        self, broker: Any, make_worker_group: MakeWorkerGroup, away: Any
    ) -> None:
        # Given a worker at work, that counts as stuck a little after a transaction may take
        group = make_worker_group(broker)
        probed = Probed(group, "job.stuck_seconds=12")
        wait_until(lambda: probed.status("/readyz") == 200)
        with group.producing(rate=200):
            time.sleep(1)
            # When the broker is away for twice that time
            away()
            states = []
            for _ in range(24):
                time.sleep(1)
                states.append(probed.status("/healthz"))
            broker.resume()
        # Then it stays alive, and goes on
        assert {*states} == {200}
        group.wait_until_committed()
        verify(group)

    def test_the_metrics_add_up_to_what_was_sent(self, broker: Any, make_worker_group: MakeWorkerGroup) -> None:
        # Given records of one and of three rows, and bad ones
        group = make_worker_group(broker, partitions=3)
        three = b"[" + b",".join(VALUES) + b"]"
        send_values(broker.client_options(), group.input, [*VALUES * 10, *[three] * 5, *[b"bad"] * 4])
        # When a worker has answered them
        probed = Probed(group, "job.slot=blue")
        records = "model_name_kafka_records_total"
        wait_until(lambda: probed.metrics()[records, "predicted"] + probed.metrics()[records, "dead_letter"] == 39)
        wait_until(lambda: [probed.metrics().get(("model_name_kafka_lag", str(one))) for one in range(3)] == [0, 0, 0])
        # Then its metrics say so
        found = probed.metrics()
        assert (found[records, "predicted"], found[records, "dead_letter"]) == (35, 4)
        assert found["model_name_kafka_rows_total", ""] == 45
        assert found["model_name_kafka_batch_records_sum", ""] == 39
        assert found["model_name_kafka_failed_batches_total", ""] == 0
        for name in ("predict_seconds", "deliver_seconds", "latency_seconds"):
            assert found[f"model_name_kafka_{name}_count", ""] == found["model_name_kafka_batch_records_count", ""]
        assert found["model_name_model_info", "regression"] == 1


def test_a_group_of_others_is_no_place_for_a_worker(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given a group whose members share partitions in another way
    group = make_worker_group(broker)
    member = join(group, broker)
    # When a worker starts in it, then it ends and says so
    worker = group.start()
    assert worker.wait(60) == 5
    assert "name a `group` of its own" in group.read_log(worker)
    member.close()


def test_a_port_that_is_taken_is_said(broker: Any, make_worker_group: MakeWorkerGroup) -> None:
    # Given somebody at the port, and when a worker starts, then it ends and says so
    with socket.create_server(("127.0.0.1", 0)) as taken:
        group = make_worker_group(broker)
        worker = group.start(f"job.http_port={taken.getsockname()[1]}")
        assert worker.wait(60) == 2
    assert "--http-port names another one" in group.read_log(worker)


@pytest.mark.slow
def test_of_two_workers_with_one_name_one_ends_and_nothing_is_doubled(
    broker: Any, make_worker_group: MakeWorkerGroup
) -> None:
    # Given two workers that are told the same name
    group = make_worker_group(broker)
    for _ in range(2):
        group.start("job.instance=the-same")
    # When records come
    with group.producing(rate=200):
        # Then one ends before long, and says why
        wait_until(lambda: len(group.running) == 1, 90)
        time.sleep(3 * SESSION_SECONDS)
    (gone,) = (worker for worker in group.workers if worker.poll() is not None)
    assert gone.returncode == 5
    assert "another worker calls itself the-same" in group.read_log(gone)
    assert "`instance` of its own" in group.read_log(gone)
    # And the other answers all, once
    group.wait_until_committed()
    verify(group)
    assert len(group.running) == 1
