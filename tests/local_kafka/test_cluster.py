"""Clusters of one and three nodes, and their faults."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from local_kafka.cluster import Cluster
from model_name.errors import DependencyError
from tests.support.kafka_cluster import fast_cluster, new_topic, read_values, require_kafka, send_values

pytestmark = pytest.mark.kafka

VALUES = [b"%d" % number for number in range(20)]
HOLDER = """
import sys, time
from local_kafka.cluster import Cluster
with Cluster(folder=sys.argv[1]) as cluster:
    print(cluster.nodes[1].process.pid, flush=True)
    time.sleep(600)
"""


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid):
    return Path(f"/proc/{pid}").exists() and "Z (zombie)" not in Path(f"/proc/{pid}/status").read_text()


@pytest.fixture
def node(broker):
    """Return one node, which is restarted after the test."""
    yield broker
    broker.resume()
    broker.start()


@pytest.fixture
def nodes(brokers3):
    """Return three nodes, which are restarted after the test."""
    yield brokers3
    for number in brokers3.nodes:
        brokers3.resume(number)
    brokers3.start()


def test_sent_records_can_be_read(broker):
    topic = new_topic(broker)
    send_values(broker.client_options(), topic, VALUES)
    assert read_values(broker.client_options(), topic, len(VALUES)) == VALUES


def test_topics_are_not_created_automatically(broker):
    with broker.admin() as admin:
        (found,) = admin.describe_topics(["misspelt"])
    assert found["error_code"] == 3  # UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Cluster.kill, id="after a crash"),
        pytest.param(Cluster.stop, id="after a clean stop"),
    ],
)
def test_records_survive_a_restart(node, end):
    topic = new_topic(node)
    send_values(node.client_options(), topic, VALUES)
    end(node, 1)
    assert not node.nodes[1].is_alive
    node.start(1)
    assert read_values(node.client_options(), topic, len(VALUES)) == VALUES


def test_a_suspended_node_can_be_resumed(node):
    pid = node.nodes[1].process.pid
    node.suspend()
    with socket.create_connection(("127.0.0.1", node.nodes[1].port)):  # the kernel still takes connections
        node.resume()
    node.wait()
    assert node.nodes[1].process.pid == pid


def test_a_node_outlives_the_thread_that_started_it(node):
    node.stop()
    thread = Thread(target=node.start)
    thread.start()
    thread.join()
    time.sleep(0.5)
    assert node.nodes[1].is_alive


def test_a_killed_leader_is_replaced_without_losing_records(nodes):
    topic = new_topic(nodes)
    send_values(nodes.client_options(), topic, VALUES)
    dead = nodes.leader(topic)
    nodes.kill(dead)
    wait_until(lambda: nodes.leader(topic) not in {dead, -1})
    send_values(nodes.client_options(), topic, [b"later"])
    assert read_values(nodes.client_options(), topic, len(VALUES) + 1) == [*VALUES, b"later"]


@pytest.mark.slow
def test_a_suspended_leader_is_replaced(nodes):
    topic = new_topic(nodes)
    hanging = nodes.leader(topic)
    nodes.suspend(hanging)
    wait_until(lambda: nodes.leader(topic) not in {hanging, -1})


def test_settings_of_the_caller_take_precedence(tmp_path):
    with fast_cluster(folder=tmp_path / "cluster", settings={"auto.create.topics.enable": True}) as cluster:
        send_values(cluster.client_options(), "unheard-of", VALUES[:1])
        assert read_values(cluster.client_options(), "unheard-of", 1) == VALUES[:1]
        process = cluster.nodes[1].process
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "cluster" / "1.log").exists()


def test_a_port_in_use_is_reported_from_the_log():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cluster = fast_cluster(port=taken.getsockname()[1])
        with (
            pytest.raises(DependencyError, match=r"node 1 ended with exit code 1\n(?s:.*)Address already in use"),
            cluster,
        ):
            pass
    assert not cluster.nodes[1].is_alive
    assert not cluster.folder.exists()


def test_an_invalid_setting_is_reported():
    with (
        pytest.raises(DependencyError, match="Invalid value many"),
        fast_cluster(settings={"num.io.threads": "many"}),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_broker_ends_with_the_process_that_started_it(tmp_path):
    require_kafka()
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "cluster")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        pid = int(holder.stdout.readline())
        os.kill(pid, 0)
        holder.kill()
    wait_until(lambda: not is_running(pid), seconds=10)
