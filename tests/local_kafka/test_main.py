"""`python -m local_kafka up|status|down`, in a copy of the package with a state of its own."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import local_kafka
from local_kafka.__main__ import parse_topic
from local_kafka.jars import LIBRARIES
from local_kafka.ports import free_ports
from model_name.errors import ConfigError
from tests.support.kafka_cluster import read_values, require_kafka, send_values

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PACKAGE = Path(local_kafka.__file__).parent
ACCESS = ("USERNAME", "PASSWORD", "CA")


@pytest.fixture
def checkout(tmp_path):
    """Folder of the copy, with the jars; a cluster that is still up is stopped at the end."""
    require_kafka()
    shutil.copytree(PACKAGE, tmp_path / "local_kafka", ignore=shutil.ignore_patterns("__pycache__"))
    build = tmp_path / "build" / "kafka"
    build.mkdir(parents=True)
    (build / "libs").symlink_to(LIBRARIES)
    yield tmp_path
    command(tmp_path, "down")


def command(checkout, *words):
    """Run a command and return its exit code and output."""
    path = os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "local_kafka", *words],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout


def state(checkout):
    return json.loads((checkout / "build" / "kafka" / "up" / "state.json").read_text())


def test_up_waits_until_it_responds_and_down_removes_everything(checkout):
    (port,) = free_ports(1)
    code, output = command(checkout, "up", "--port", str(port), "--topic", "rows:2", "--topic", "results")
    assert code == 0, output
    assert f"--bootstrap-servers 127.0.0.1:{port} --input rows --output results --dead-letter DEAD-LETTER" in output
    client_options = {"bootstrap_servers": f"127.0.0.1:{port}"}
    send_values(client_options, "rows", [b"one"])
    assert read_values(client_options, "rows", 1) == [b"one"]

    code, output = command(checkout, "up", "--topic", "rows:2", "--topic", "more:3")
    assert (code, "up already" in output, "rows, results, more" in output) == (0, True, True), output
    assert command(checkout, "status")[0] == 0
    for other in (["--nodes", "3"], ["--secured"], ["--port", str(port + 1)]):
        code, output = command(checkout, "up", *other)
        assert (code, f"another Kafka is up already, at 127.0.0.1:{port}" in output) == (2, True), output

    assert command(checkout, "down") == (0, "Kafka is down.\n")
    assert command(checkout, "status")[0] == 1
    assert not (checkout / "build" / "kafka" / "up").exists()
    socket.create_server(("127.0.0.1", port)).close()


def test_up_prints_where_the_secrets_of_a_secured_cluster_are(checkout):
    (port,) = free_ports(1)
    code, output = command(checkout, "up", "--secured", "--port", str(port), "--topic", "rows")
    assert code == 0, output
    file = checkout / "build" / "kafka" / "up" / "access.env"
    assert f"source {file}" in output
    script = f"source {file}; echo " + " ".join(f"$MODEL_NAME_KAFKA_{name}" for name in ACCESS)
    shown = subprocess.run(["bash", "-c", script], stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    user, password, ca = shown
    client_options = {
        "bootstrap_servers": f"127.0.0.1:{port}",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": user,
        "sasl_plain_password": password,
        "ssl_cafile": ca,
    }
    send_values(client_options, "rows", [b"one"])
    assert password not in output


def test_a_killed_cluster_is_down_and_can_be_started_again(checkout):
    ports = free_ports(2)
    command(checkout, "up", "--port", str(ports[0]))
    os.kill(state(checkout)["process"], signal.SIGKILL)
    assert command(checkout, "status")[0] == 1
    code, output = command(checkout, "up", "--port", str(ports[1]))
    assert (code, f"127.0.0.1:{ports[1]}" in output) == (0, True)


def test_a_cluster_without_brokers_is_down(checkout):
    (port,) = free_ports(1)
    command(checkout, "up", "--port", str(port))
    tasks = Path(f"/proc/{state(checkout)['process']}/task").glob("*/children")
    (broker,) = [int(child) for task in tasks for child in task.read_text().split()]
    os.kill(broker, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while command(checkout, "status")[0] == 0:
        assert time.monotonic() < deadline
    assert command(checkout, "up", "--port", str(port))[0] == 0


def test_a_failed_start_is_reported(checkout):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output = command(checkout, "up", "--port", str(taken.getsockname()[1]))
    assert (code, "is taken by another program" in output) == (2, True)
    code, output = command(checkout, "up", "--port", str(free_ports(1)[0]), "--topic", "..")
    assert code != 0
    assert "Kafka did not come up" in output
    assert command(checkout, "status")[0] == 1


@pytest.mark.parametrize(
    ("text", "topic"),
    [
        pytest.param("rows", ("rows", 1), id="a name alone"),
        pytest.param("a.b_c-D:12", ("a.b_c-D", 12), id="a name and partitions"),
    ],
)
def test_a_topic_option_is_parsed(text, topic):
    assert parse_topic(text) == topic


@pytest.mark.parametrize("text", ["", ":3", "rows:", "rows:0", "rows:-1", "rows:many", "ro ws", "rows:1:2"])
def test_an_invalid_topic_option_is_rejected(text):
    with pytest.raises(ConfigError, match="not NAME or NAME:PARTITIONS"):
        parse_topic(text)
