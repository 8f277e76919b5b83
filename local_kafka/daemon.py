"""A cluster that stays up after its command has ended: a process of its own holds it, and a lock tells so.

All of it lies in `build/kafka/up` and goes with it: the state, the logs and data of the nodes, the secrets.
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

from local_kafka import containers
from local_kafka.cluster import Cluster
from local_kafka.jars import require_client, require_java
from local_kafka.locks import BUILD, is_locked, locked
from local_kafka.ports import is_open
from local_kafka.security import Security
from model_name.errors import ConfigError, DependencyError

FOLDER = BUILD / "up"
STATE = FOLDER / "state.json"
LOG = BUILD / "up.log"
POLL_SECONDS = 0.1
STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Wanted:
    """What shall be up.

    Attributes:
        nodes: How many.
        secured: Whether clients need a password or a certificate.
        port: Where clients reach the first node, the others at the next ones.
        topics: The partitions of each topic to create.
    """

    nodes: int
    secured: bool
    port: int
    topics: Mapping[str, int]


@dataclass(frozen=True)
class State:
    """What is up.

    Attributes:
        bootstrap: The addresses for clients.
        topics: That were created.
        process: Which holds the cluster; 0 where a container does.
        bootstrap_mtls: The addresses for clients with a certificate, where it is secured.
        environment: A file to source, with which clients of this project get in, where it is secured.
    """

    bootstrap: str
    topics: list[str]
    process: int = 0
    bootstrap_mtls: str = ""
    environment: str = ""

    @property
    def ports(self) -> list[int]:
        """Of the nodes, for clients."""
        return [int(address.rpartition(":")[2]) for address in self.bootstrap.split(",")]


def current() -> State | None:
    """What is up; None if nothing is."""
    try:
        found = State(**json.loads(STATE.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    return found if (is_locked("up") if found.process else containers.is_up()) else None


def silent(state: State) -> list[str]:
    """The addresses at which nobody listens, of nodes that were killed by hand, say."""
    return [f"127.0.0.1:{port}" for port in state.ports if not is_open(port)]


def extended(state: State, topics: Mapping[str, int]) -> State:
    """Create what is missing of some topics in a cluster that is up.

    Raises:
        ConfigError: It wants a password, which this process does not have.
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
        for name, wanted in missing.items():
            with suppress(TopicAlreadyExistsError):
                admin.create_topics({name: wanted}, wait_for_metadata=True)
    return keep(replace(state, topics=[*state.topics, *missing]))


def up(wanted: Wanted) -> State:
    """Start a cluster and return when it answers.

    Raises:
        ConfigError: A port is taken.
        DependencyError: It cannot run here, or did not come up.
    """
    for port in range(wanted.port, wanted.port + wanted.nodes):
        if is_open(port):
            raise ConfigError(f"port {port} is taken by another program", hint="choose another one by --port")
    require_client()
    try:
        require_java()
    except DependencyError:
        if wanted.nodes > 1 or wanted.secured or not containers.are_possible():
            raise
        containers.run(wanted.port, wanted.topics)
        return keep(State(f"127.0.0.1:{wanted.port}", list(wanted.topics)))
    return start(wanted)


def start(wanted: Wanted) -> State:
    """Start the process that holds it.

    Raises:
        DependencyError: It ended; what it said is told.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)  # what a killed one has left
    BUILD.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "local_kafka", "hold", json.dumps(asdict(wanted))]
    root = Path(__file__).parents[1]
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=root, start_new_session=True
        )
    while (found := current()) is None:
        if process.poll() is not None:
            raise DependencyError(f"Kafka did not come up\n{LOG.read_text(encoding='utf-8').strip()}")
        time.sleep(POLL_SECONDS)
    return found


def hold(wanted: Wanted) -> None:
    """Run a cluster until SIGTERM; sooner, that ends this process, and with it the brokers."""
    told: list[int] = []  # not an event: its lock could be held where the signal falls
    with locked("up"):
        with Cluster(wanted.nodes, secured=wanted.secured, port=wanted.port, folder=FOLDER) as cluster:
            for name, partitions in wanted.topics.items():
                cluster.create_topic(name, partitions=partitions)
            secured = (cluster.bootstrap_mtls, str(environment(cluster.security))) if wanted.secured else ()
            signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
            keep(State(cluster.bootstrap, list(wanted.topics), os.getpid(), *secured))
            while not told:
                time.sleep(POLL_SECONDS)
                if not any(node.is_alive for node in cluster.nodes.values()):
                    raise DependencyError("Kafka has ended", hint=f"see {FOLDER}/1.log")
        shutil.rmtree(FOLDER)


def down(state: State) -> None:
    """End what is up and remove its data.

    Raises:
        DependencyError: It does not end.
    """
    if not state.process:
        containers.remove()
        shutil.rmtree(FOLDER)
        return
    os.kill(state.process, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while is_locked("up"):
        if time.monotonic() > deadline:
            raise DependencyError(f"process {state.process} does not end", hint=f"kill -9 {state.process}")
        time.sleep(POLL_SECONDS)


def keep(state: State) -> State:
    """Write the state at once or not at all, for others to find."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    partial = STATE.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(state)), encoding="utf-8")
    partial.rename(STATE)
    return state


def environment(security: Security) -> Path:
    """Write what the environment of a client of this project must hold, for the owner alone."""
    file = FOLDER / "access.env"
    values = {"USERNAME": security.user, "PASSWORD": security.password, "CA": security.ca}
    file.touch(mode=0o600)
    lines = [f"export MODEL_NAME_KAFKA_{name}={value}\n" for name, value in values.items()]
    file.write_text("".join(lines), encoding="utf-8")
    return file
