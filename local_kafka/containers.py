"""One unsecured node in a container, for a machine with Docker and without Java.

It follows what the image's documentation says; no test runs it.
"""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from local_kafka.ports import Ports
from local_kafka.properties import properties
from model_name.errors import DependencyError

IMAGE = "apache/kafka:4.1.0"
NAME = "model-name-kafka"
INSIDE = Ports(clients=9092, controllers=9093, internal=0, mtls=0)
START_MS = 60_000


def are_possible() -> bool:
    """Whether there is Docker, and it answers."""
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def is_up() -> bool:
    """Whether the container runs."""
    asked = ["docker", "ps", "--quiet", "--filter", f"name=^{NAME}$"]
    return bool(subprocess.run(asked, capture_output=True, check=False).stdout)


def run(port: int, topics: Mapping[str, int]) -> None:
    """Start the container, wait till it answers and create topics.

    Raises:
        DependencyError: Docker could not start it, or it does not answer.
    """
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaTimeoutError

    outside = {
        "listeners": f"CLIENTS://:{INSIDE.clients},CONTROLLERS://:{INSIDE.controllers}",
        "advertised.listeners": f"CLIENTS://127.0.0.1:{port}",
    }
    found = properties(1, [INSIDE], Path("/tmp/kafka"), {}, outside)
    settings = [f"--env=KAFKA_{name.upper().replace('.', '_')}={value}" for name, value in found.items()]
    publish = f"--publish=127.0.0.1:{port}:{INSIDE.clients}"
    command = ["docker", "run", "--detach", "--rm", "--name", NAME, publish, *settings, IMAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DependencyError(f"Docker could not start {IMAGE}: {done.stderr.strip()}", hint="install Java 17 instead")
    try:
        with KafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}", bootstrap_timeout_ms=START_MS) as admin:
            if topics:
                wanted = {name: {"num_partitions": partitions} for name, partitions in topics.items()}
                admin.create_topics(wanted, wait_for_metadata=True)
    except KafkaTimeoutError as error:
        raise DependencyError(f"the container {NAME} does not answer", hint=f"docker logs {NAME}") from error


def remove() -> None:
    """End the container; it takes its data with it."""
    subprocess.run(["docker", "rm", "--force", NAME], capture_output=True, check=True)
