"""A Kafka cluster of one or three nodes on the loopback of this machine, and the faults that a test wants of it.

    with Cluster(nodes=3) as cluster:
        cluster.create_topic("rows", partitions=4)
        with KafkaProducer(**cluster.connection()) as producer:
            producer.send("rows", b"1").get(10)
        cluster.kill(cluster.leader("rows"))

It starts when it is entered and is gone when it is left; it also ends with the process that started it.
"""

import base64
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from local_kafka.cds import quick_java
from local_kafka.disks import Disk
from local_kafka.jars import libraries, require_java
from local_kafka.nodes import Node
from local_kafka.ports import choose_ports, is_open
from local_kafka.properties import Settings, properties
from local_kafka.security import Security
from model_name.errors import DependencyError

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

START_SECONDS = 60.0
POLL_SECONDS = 0.05
REQUEST_MS = 2000  # a node that hangs is asked in vain until the others know
LOGGING = {
    "showDateTime": "true",
    "dateTimeFormat": "HH:mm:ss.SSS",
    "showThreadName": "false",
    "log.org.apache.kafka.common.config": "warn",  # hundreds of lines of settings
    "log.kafka.server.KafkaConfig": "warn",
}


class Cluster:
    """Brokers that run while it is entered.

    Attributes:
        folder: Where settings, data and the logs of the nodes (`1.log`, ...) lie.
        nodes: The processes, by number from 1.
        secured: Whether these matter:
        security: Who may come in, with all that follows.
        user: Who may do everything.
        password: Of the user.
        stranger: Who has a password and may do nothing.
        stranger_password: Of the stranger.
        ca: A PEM file, whose certificate signed that of the brokers.
        client_certificate: A PEM file for `bootstrap_mtls`.
        client_key: Its key.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        secured: bool = False,
        folder: Path | str | None = None,
        disk_mb: int = 0,
        settings: Settings | None = None,
        port: int = 0,
        heap_mb: int = 384,
        java: Sequence[str] | None = None,
    ) -> None:
        """Say what it shall be; nothing starts yet.

        Args:
            nodes: 1, or 3 with every topic on all of them and two that must have a record.
            secured: Whether clients come in by a password over TLS, or by a certificate, and not else.
            folder: An empty folder of its own; by default a temporary one that is removed in the end.
            disk_mb: If not 0, the log directory of each node is on a disk of so many MiB, for `fill` and `free`.
            settings: Further settings of the brokers, such as {"message.max.bytes": 1000}; they win.
            port: Where clients reach the first node, the others at the next ones; by default any free ones.
            heap_mb: The most heap of a node, in MiB.
            java: Options of Java. The default starts fastest; for throughput give `()`.
        """
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name if self._temporary else folder or "").resolve()
        self.ports = choose_ports(nodes, port)
        self.nodes: dict[int, Node] = {}
        self._disks = [Disk(self._home(number) / "disk", disk_mb) for number in range(1, nodes + 1)] if disk_mb else []
        self._settings, self._heap_mb, self._java = settings or {}, heap_mb, java
        self._stack = ExitStack()

        self.secured = secured
        self.security = security = Security(self.folder / "security")
        self.user, self.password = security.user, security.password
        self.stranger, self.stranger_password = security.stranger, security.stranger_password
        self.ca = security.ca
        self.client_certificate, self.client_key = security.client_certificate, security.client_key

    @property
    def bootstrap(self) -> str:
        """The addresses of all nodes, as clients take them."""
        return ",".join(f"127.0.0.1:{ports.clients}" for ports in self.ports)

    @property
    def bootstrap_mtls(self) -> str:
        """The addresses for clients of a secured cluster that show a certificate."""
        return ",".join(f"127.0.0.1:{ports.mtls}" for ports in self.ports)

    def connection(self, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """What a client of kafka-python needs to get in: `KafkaProducer(**cluster.connection())`.

        Args:
            mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, where the cluster is secured.
        """
        return {"bootstrap_servers": self.bootstrap} | (self.security.connection(mechanism) if self.secured else {})

    def connection_mtls(self) -> dict[str, Any]:
        """The same with the certificate of the client in place of a password."""
        return {"bootstrap_servers": self.bootstrap_mtls} | self.security.connection_mtls()

    def __enter__(self) -> Self:
        """Start all nodes and wait till they answer.

        Raises:
            DependencyError: There is no Java or no jars, or a node did not come up; what its log complains of is told.
            StorageError: Small disks were asked for and this machine does not allow them.
        """
        with ExitStack() as stack:
            if self._temporary:
                stack.enter_context(self._temporary)
            for disk in self._disks:
                disk.mount()
                stack.callback(disk.unmount)
            stack.callback(self._end)
            self._format()
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all nodes at once and remove what is temporary."""
        self._stack.close()

    def start(self, *numbers: int) -> None:
        """Start nodes that were stopped or killed, all by default, and wait till every living node answers.

        Raises:
            DependencyError: One did not come up; what its log complains of is told.
        """
        for number in numbers or self.nodes:
            self.nodes[number].start()
        self.wait()

    def stop(self, *numbers: int) -> None:
        """End nodes cleanly, all by default."""
        chosen = [self.nodes[number] for number in numbers or self.nodes]
        for node in chosen:
            node.terminate()
        for node in chosen:
            node.reap()

    def kill(self, number: int = 1) -> None:
        """End a node at once, as a crash does."""
        self.nodes[number].kill()

    def restart(self, number: int = 1) -> None:
        """End a node cleanly and start it again."""
        self.stop(number)
        self.start(number)

    def suspend(self, number: int = 1) -> None:
        """Let a node hang: its connections stay open, and it does not answer."""
        self.nodes[number].suspend()

    def resume(self, number: int = 1) -> None:
        """Let a suspended node go on."""
        self.nodes[number].resume()

    def fill(self, number: int = 1) -> None:
        """Leave no byte on the small disk of a node: Kafka ends when it has to write the next record."""
        self._disks[number - 1].fill()

    def free(self, number: int = 1) -> None:
        """Make the space free again; `start` the node then."""
        self._disks[number - 1].free()

    def create_topic(
        self, name: str, *, partitions: int = 1, replication: int = -1, config: Mapping[str, str | int] | None = None
    ) -> str:
        """Create a topic and wait till each of its partitions has a leader.

        Args:
            name: Of the topic.
            partitions: How many.
            replication: On how many nodes; by default on all.
            config: Settings of the topic, such as {"cleanup.policy": "compact"}.

        Returns:
            The name.
        """
        wanted = {"num_partitions": partitions, "replication_factor": replication, "configs": dict(config or {})}
        self._ask(lambda admin: admin.create_topics({name: wanted}, wait_for_metadata=True), patience_ms=30_000)
        return name

    def leader(self, topic: str, partition: int = 0) -> int:
        """The number of the node that leads a partition; -1 while none does."""
        (found,) = self._ask(lambda admin: admin.describe_topics([topic]))
        return next(int(one["leader_id"]) for one in found["partitions"] if one["partition_index"] == partition)

    def admin(self, **options: Any) -> "KafkaAdminClient":
        """A client for administration that starts at the living nodes; close it, or use it in a `with`."""
        from kafka import KafkaAdminClient

        living = [node.address for node in self.nodes.values() if node.is_answering]
        return KafkaAdminClient(**self.connection() | {"bootstrap_servers": living or self.bootstrap} | options)

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Wait till every living node answers and knows the others; of a whole cluster each partition has a leader.

        Raises:
            DependencyError: One does not, or it ended; what its log complains of is told.
        """
        deadline = time.monotonic() + seconds
        waiting = [node for node in self.nodes.values() if node.is_answering]
        living = {node.number for node in waiting}
        for node in waiting:
            while not self._answers(node, living):
                if not node.is_alive:
                    raise self._failure(node, f"ended with exit code {node.exit_code}")
                if time.monotonic() > deadline:
                    raise self._failure(node, f"does not answer after {seconds:g} s")
                time.sleep(POLL_SECONDS)

    def _answers(self, node: Node, living: set[int]) -> bool:
        from kafka.errors import KafkaError

        if not is_open(node.port):
            return False
        try:
            with self.admin(bootstrap_servers=node.address, bootstrap_timeout_ms=5000) as admin:
                known = {one["broker_id"] for one in admin.describe_cluster()["brokers"] if not one.get("is_fenced")}
                topics = admin.describe_topics() if living == set(self.nodes) else ()
        except KafkaError:
            return False
        return living <= known and all(one["leader_id"] >= 0 for topic in topics for one in topic["partitions"])

    def _ask(self, call: Callable[["KafkaAdminClient"], Any], patience_ms: int = REQUEST_MS) -> Any:
        """Call the client for administration, again if it turned to a node that is gone but still named."""
        from kafka.errors import KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError

        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with self.admin(request_timeout_ms=patience_ms) as admin:
                    return call(admin)
            except (KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _options(self) -> Sequence[str]:
        """Of Java."""
        return quick_java(lambda options: Cluster(java=options)) if self._java is None else self._java

    def _format(self) -> None:
        """Write the settings of each node and make its log directory ready, all at once."""
        java, jars = require_java(), libraries()
        options = [f"-Xmx{self._heap_mb}m", *self._options()]
        logging = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in LOGGING.items()]
        run = [java, *options, *logging, "-cp", f"{jars}/*"]
        if self.secured:
            self.security.write()
        cluster, formats = cluster_id(), []
        for number, ports in enumerate(self.ports, 1):
            file, log = self._configure(number), self.folder / f"{number}.log"
            self.nodes[number] = Node(number, ports.clients, [*run, "kafka.Kafka", str(file)], log)
            tool = [*run, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(file)]
            tool += self.security.scram() if self.secured else []
            formats.append(subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for process in formats:
            told, _ = process.communicate()
            if process.returncode:
                raise DependencyError(f"Kafka could not format a log directory\n{told.strip()}")

    def _configure(self, number: int) -> Path:
        home = self._home(number)
        home.mkdir(parents=True, exist_ok=True)
        data = (self._disks[number - 1].folder if self._disks else home) / "data"
        security = self.security.settings() if self.secured else {}
        found = properties(number, self.ports, data, security, self._settings)
        file = home / "server.properties"
        file.touch(mode=0o600)  # it may hold passwords
        file.write_text("".join(f"{name}={value}\n" for name, value in found.items()), encoding="utf-8")
        return file

    def _home(self, number: int) -> Path:
        return self.folder / str(number)

    def _end(self) -> None:
        """Kill all nodes: the last of three would wait seconds for the others to take over what it leads."""
        for node in self.nodes.values():
            node.close()

    def _failure(self, node: Node, what: str) -> DependencyError:
        hint = "" if self._temporary else f"its whole log is {node.log}"
        return DependencyError(f"Kafka node {node.number} {what}\n{node.complaint()}", hint=hint)


def cluster_id() -> str:
    """A new one: 16 bytes, and no dash in front that would look like an option."""
    while True:
        found = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not found.startswith("-"):
            return found
