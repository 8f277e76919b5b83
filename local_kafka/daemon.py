"""Keep a cluster running after the command that started it: a daemon process holds it, and a lock shows that it runs.

All files lie in `build/kafka/up` and are removed with the cluster: the state, the logs and data of the nodes, and the
secrets.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from local_kafka.cds import fast_start_options
from local_kafka.cluster import Cluster
from local_kafka.jars import require_client, require_java
from local_kafka.locks import BUILD, file_lock, is_locked
from local_kafka.ports import is_port_open
from local_kafka.security import ClusterSecurity
from model_name.errors import ConfigError, DependencyError

STATE_FOLDER = BUILD / "up"
STATE_FILE = STATE_FOLDER / "state.json"
LOG_FILE = BUILD / "up.log"
LOCK = "up"
POLL_SECONDS = 0.1
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class ClusterSpec:
    """Configuration of the cluster to start.

    Attributes:
        nodes: Number of nodes.
        secured: Whether clients must authenticate by a password or a certificate.
        port: Client port of the first node; the others follow.
        topics: Number of partitions of each topic to create.
    """

    nodes: int
    secured: bool
    port: int
    topics: Mapping[str, int]


@dataclass(frozen=True)
class ClusterState:
    """State of the running cluster.

    Attributes:
        bootstrap: Addresses for clients.
        topics: Topics that were created.
        process: Process id of the daemon.
        bootstrap_mtls: Addresses for clients with a certificate, if the cluster is secured.
        environment: File with the environment variables that clients of this project need, if the cluster is secured.
    """

    bootstrap: str
    topics: list[str]
    process: int
    bootstrap_mtls: str = ""
    environment: str = ""

    @property
    def ports(self) -> list[int]:
        """Client ports of the nodes."""
        return [int(address.rpartition(":")[2]) for address in self.bootstrap.split(",")]


def current_state() -> ClusterState | None:
    """Load the state of the running cluster; None if no cluster runs."""
    try:
        state = ClusterState(**json.loads(STATE_FILE.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    return state if is_locked(LOCK) else None


def unreachable_addresses(state: ClusterState) -> list[str]:
    """List the addresses on which no node listens, because it was killed."""
    return [f"127.0.0.1:{port}" for port in state.ports if not is_port_open(port)]


def add_topics(state: ClusterState, topics: Mapping[str, int]) -> ClusterState:
    """Create the topics that a running cluster lacks.

    Raises:
        ConfigError: The cluster is secured, and this process has no password.
    """
    missing = {name: {"num_partitions": topics[name]} for name in topics if name not in state.topics}
    if not missing:
        return state
    if state.environment:
        raise ConfigError(
            "a secured Kafka gets its topics when it starts", hint="python -m local_kafka down, and up again"
        )
    from kafka import KafkaAdminClient
    from kafka.errors import TopicAlreadyExistsError

    with KafkaAdminClient(bootstrap_servers=state.bootstrap.split(",")) as admin:
        for name, spec in missing.items():
            with suppress(TopicAlreadyExistsError):
                admin.create_topics({name: spec}, wait_for_metadata=True)
    return save_state(replace(state, topics=[*state.topics, *missing]))


def start_cluster(spec: ClusterSpec) -> ClusterState:
    """Start a cluster and wait until it responds.

    Raises:
        ConfigError: A port is in use by another program.
        DependencyError: This machine cannot run Kafka, or it did not start.
    """
    for port in range(spec.port, spec.port + spec.nodes):
        if is_port_open(port):
            raise ConfigError(f"port {port} is taken by another program", hint="choose another one by --port")
    require_client()
    require_java()
    return start_daemon(spec)


def start_daemon(spec: ClusterSpec) -> ClusterState:
    """Start the daemon and wait until it has saved its state.

    Raises:
        DependencyError: The daemon exited; the message contains its log.
    """
    shutil.rmtree(STATE_FOLDER, ignore_errors=True)  # left behind by a killed daemon
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "local_kafka", "hold", json.dumps(asdict(spec))]
    root = Path(__file__).parents[1]
    with LOG_FILE.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=root, start_new_session=True
        )
    while (state := current_state()) is None:
        if process.poll() is not None:
            raise DependencyError(f"Kafka did not come up\n{LOG_FILE.read_text(encoding='utf-8').strip()}")
        time.sleep(POLL_SECONDS)
    return state


def run_daemon(spec: ClusterSpec) -> None:
    """Run a cluster until SIGTERM. SIGTERM during the start ends this process, and the brokers with it.

    Raises:
        DependencyError: The cluster did not start, or all its nodes have ended.
    """
    signals: list[int] = []  # not an Event, whose lock may be held when the signal arrives
    with file_lock(LOCK):
        cluster = Cluster(
            spec.nodes, secured=spec.secured, port=spec.port, folder=STATE_FOLDER, java=fast_start_options()
        )
        with cluster:
            for name, partitions in spec.topics.items():
                cluster.create_topic(name, partitions=partitions)
            secured = (cluster.bootstrap_mtls, str(write_environment_file(cluster.security))) if spec.secured else ()
            signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
            save_state(ClusterState(cluster.bootstrap, list(spec.topics), os.getpid(), *secured))
            while not signals:
                time.sleep(POLL_SECONDS)
                if not any(node.is_alive for node in cluster.nodes.values()):
                    raise DependencyError("Kafka has ended", hint=f"see {STATE_FOLDER}/1.log")
        shutil.rmtree(STATE_FOLDER)


def stop_cluster(state: ClusterState) -> None:
    """Stop the daemon and wait until it has removed the data.

    Raises:
        DependencyError: The daemon has not ended in time.
    """
    os.kill(state.process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_locked(LOCK):
        if time.monotonic() > deadline:
            raise DependencyError(f"process {state.process} does not end", hint=f"kill -9 {state.process}")
        time.sleep(POLL_SECONDS)


def save_state(state: ClusterState) -> ClusterState:
    """Save the state atomically."""
    STATE_FOLDER.mkdir(parents=True, exist_ok=True)
    partial = STATE_FILE.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(state)), encoding="utf-8")
    partial.rename(STATE_FILE)
    return state


def write_environment_file(security: ClusterSecurity) -> Path:
    """Write the environment variables that clients of this project need, readable by the owner only."""
    file = STATE_FOLDER / "access.env"
    values = {"USERNAME": security.user, "PASSWORD": security.password, "CA": security.ca}
    file.touch(mode=0o600)
    lines = [f"export MODEL_NAME_KAFKA_{name}={value}\n" for name, value in values.items()]
    file.write_text("".join(lines), encoding="utf-8")
    return file
