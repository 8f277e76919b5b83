"""A Kafka cluster of one or three nodes on the loopback interface, with the faults that tests inject.

    with Cluster(nodes=3) as cluster:
        cluster.create_topic("rows", partitions=4)
        with KafkaProducer(**cluster.client_options()) as producer:
            producer.send("rows", b"1").get(10)
        cluster.kill(cluster.leader("rows"))

The context manager starts the cluster and removes it at the end. It also ends with the process that started it. With
`java=cds.fast_start_options()` it starts faster.
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

from local_kafka.disks import Disk
from local_kafka.jars import fetch_libraries, require_java
from local_kafka.nodes import Node
from local_kafka.ports import choose_ports, is_port_open
from local_kafka.properties import BrokerSettings, node_properties
from local_kafka.security import ClusterSecurity
from model_name.errors import DependencyError

if TYPE_CHECKING:
    from kafka import KafkaAdminClient

START_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.05
REQUEST_TIMEOUT_MS = 2000  # a suspended node does not respond, and stays in the metadata for a while
LOGGING_PROPERTIES = {
    "showDateTime": "true",
    "dateTimeFormat": "HH:mm:ss.SSS",
    "showThreadName": "false",
    "log.org.apache.kafka.common.config": "warn",  # otherwise hundreds of lines of settings
    "log.kafka.server.KafkaConfig": "warn",
}


class Cluster:
    """Brokers that run within a `with` block.

    Attributes:
        folder: Folder of the settings, data and logs (`1.log`, ...) of the nodes.
        nodes: Processes of the nodes, by number from 1.
        secured: Whether clients must authenticate; only then the following attributes apply.
        security: Users and certificates.
        user: User with all permissions.
        password: Password of the user.
        stranger: User without permissions.
        stranger_password: Password of the stranger.
        ca: PEM file of the authority that signed the certificates of the brokers.
        client_certificate: PEM file of the client certificate for `bootstrap_mtls`.
        client_key: PEM file of its key.
    """

    def __init__(
        self,
        nodes: int = 1,
        *,
        secured: bool = False,
        folder: Path | str | None = None,
        disk_mb: int = 0,
        settings: BrokerSettings | None = None,
        port: int = 0,
        heap_mb: int = 384,
        java: Sequence[str] = (),
    ) -> None:
        """Configure the cluster; entering the context manager starts it.

        Args:
            nodes: Number of nodes: 1, or 3 with every topic on all of them and two in-sync replicas per write.
            secured: Whether clients must authenticate by a password over TLS, or by a certificate.
            folder: Empty folder for the cluster; by default a temporary one, removed at the end.
            disk_mb: Size of a disk for the log directory of each node in MiB, for `fill` and `free`; 0 for no disk.
            settings: Additional broker settings, such as {"message.max.bytes": 1000}; they take precedence.
            port: Client port of the first node, the others follow; 0 for any free ports.
            heap_mb: Maximum heap of a node, in MiB.
            java: Additional Java options, such as those of `cds.fast_start_options`.
        """
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="kafka-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name if self._temporary else folder or "").resolve()
        self.ports = choose_ports(nodes, port)
        self.nodes: dict[int, Node] = {}
        self._disks = [Disk(self._home(number) / "disk", disk_mb) for number in range(1, nodes + 1)] if disk_mb else []
        self._settings, self._heap_mb, self._java = settings or {}, heap_mb, java
        self._stack = ExitStack()

        self.secured = secured
        self.security = security = ClusterSecurity(self.folder / "security")
        self.user, self.password = security.user, security.password
        self.stranger, self.stranger_password = security.stranger, security.stranger_password
        self.ca = security.ca
        self.client_certificate, self.client_key = security.client_certificate, security.client_key

    @property
    def bootstrap(self) -> str:
        """Addresses of all nodes, separated by commas."""
        return ",".join(f"127.0.0.1:{ports.clients}" for ports in self.ports)

    @property
    def bootstrap_mtls(self) -> str:
        """Addresses of a secured cluster for clients with a certificate."""
        return ",".join(f"127.0.0.1:{ports.mtls}" for ports in self.ports)

    def client_options(self, mechanism: str = "SCRAM-SHA-512") -> dict[str, Any]:
        """Build the options of a client of kafka-python: `KafkaProducer(**cluster.client_options())`.

        Args:
            mechanism: SASL mechanism of a secured cluster: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        """
        return {"bootstrap_servers": self.bootstrap} | (self.security.client_options(mechanism) if self.secured else {})

    def mtls_client_options(self) -> dict[str, Any]:
        """Build the options of a client that authenticates by a certificate."""
        return {"bootstrap_servers": self.bootstrap_mtls} | self.security.mtls_client_options()

    def __enter__(self) -> Self:
        """Start all nodes and wait until they respond.

        Raises:
            DependencyError: Java or the jars are missing, or a node did not start; the message contains its log.
            StorageError: This machine does not allow mounting the disks.
        """
        with ExitStack() as stack:
            if self._temporary:
                stack.enter_context(self._temporary)
            for disk in self._disks:
                disk.mount()
                stack.callback(disk.unmount)
            stack.callback(self._kill_all)
            self._format()
            self.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill all nodes and remove temporary files."""
        self._stack.close()

    def start(self, *numbers: int) -> None:
        """Start stopped nodes, all by default, and wait until every running node responds.

        Raises:
            DependencyError: A node did not start; the message contains its log.
        """
        for number in numbers or self.nodes:
            self.nodes[number].start()
        self.wait()

    def stop(self, *numbers: int) -> None:
        """Stop nodes by SIGTERM, all by default."""
        chosen = [self.nodes[number] for number in numbers or self.nodes]
        for node in chosen:
            node.terminate()
        for node in chosen:
            node.reap()

    def kill(self, number: int = 1) -> None:
        """Kill a node, as a crash does."""
        self.nodes[number].kill()

    def restart(self, number: int = 1) -> None:
        """Stop a node and start it again."""
        self.stop(number)
        self.start(number)

    def suspend(self, number: int = 1) -> None:
        """Suspend a node: its connections stay open, but it does not respond."""
        self.nodes[number].suspend()

    def resume(self, number: int = 1) -> None:
        """Resume a suspended node."""
        self.nodes[number].resume()

    def fill(self, number: int = 1) -> None:
        """Fill the disk of a node: Kafka exits at its next write."""
        self._disks[number - 1].fill()

    def free(self, number: int = 1) -> None:
        """Free the space on the disk of a node; `start` the node then."""
        self._disks[number - 1].free()

    def create_topic(
        self, name: str, *, partitions: int = 1, replication: int = -1, config: Mapping[str, str | int] | None = None
    ) -> str:
        """Create a topic and wait until each of its partitions has a leader.

        Args:
            name: Name of the topic.
            partitions: Number of partitions.
            replication: Replication factor; by default the number of nodes.
            config: Settings of the topic, such as {"cleanup.policy": "compact"}.

        Returns:
            The name.
        """
        spec = {"num_partitions": partitions, "replication_factor": replication, "configs": dict(config or {})}
        self._call_admin(lambda admin: admin.create_topics({name: spec}, wait_for_metadata=True), timeout_ms=30_000)
        return name

    def leader(self, topic: str, partition: int = 0) -> int:
        """Return the number of the node that leads a partition; -1 while there is none."""
        (description,) = self._call_admin(lambda admin: admin.describe_topics([topic]))
        partitions = description["partitions"]
        return next(int(one["leader_id"]) for one in partitions if one["partition_index"] == partition)

    def admin(self, **options: Any) -> "KafkaAdminClient":
        """Create an admin client that connects to the running nodes; close it, or use it in a `with` block."""
        from kafka import KafkaAdminClient

        running = [node.address for node in self.nodes.values() if node.is_running]
        return KafkaAdminClient(**self.client_options() | {"bootstrap_servers": running or self.bootstrap} | options)

    def wait(self, timeout_seconds: float = START_TIMEOUT_SECONDS) -> None:
        """Wait until every running node responds and sees the others, and, if all nodes run, partitions have leaders.

        Raises:
            DependencyError: A node exited or does not respond; the message contains its log.
        """
        deadline = time.monotonic() + timeout_seconds
        running = [node for node in self.nodes.values() if node.is_running]
        numbers = {node.number for node in running}
        for node in running:
            while not self._is_ready(node, numbers):
                if not node.is_alive:
                    raise self._start_error(node, f"ended with exit code {node.exit_code}")
                if time.monotonic() > deadline:
                    raise self._start_error(node, f"does not answer after {timeout_seconds:g} s")
                time.sleep(POLL_SECONDS)

    def _is_ready(self, node: Node, running: set[int]) -> bool:
        from kafka.errors import KafkaError

        if not is_port_open(node.port):
            return False
        try:
            with self.admin(bootstrap_servers=node.address, bootstrap_timeout_ms=5000) as admin:
                known = {one["broker_id"] for one in admin.describe_cluster()["brokers"] if not one.get("is_fenced")}
                topics = admin.describe_topics() if running == set(self.nodes) else ()
        except KafkaError:
            return False
        return running <= known and all(one["leader_id"] >= 0 for topic in topics for one in topic["partitions"])

    def _call_admin(self, call: Callable[["KafkaAdminClient"], Any], timeout_ms: int = REQUEST_TIMEOUT_MS) -> Any:
        """Call an admin client, and retry if it contacted a node that has stopped but is still in the metadata."""
        from kafka.errors import KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError

        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                with self.admin(request_timeout_ms=timeout_ms) as admin:
                    return call(admin)
            except (KafkaConnectionError, KafkaTimeoutError, RequestTimedOutError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_SECONDS)

    def _format(self) -> None:
        """Write the settings of all nodes and format their log directories in parallel."""
        java, jars = require_java(), fetch_libraries()
        options = [f"-Xmx{self._heap_mb}m", *self._java]
        logging = [f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in LOGGING_PROPERTIES.items()]
        run = [java, *options, *logging, "-cp", f"{jars}/*"]
        if self.secured:
            self.security.write_files()
        cluster, formats = new_cluster_id(), []
        for number, ports in enumerate(self.ports, 1):
            file, log = self._configure(number), self.folder / f"{number}.log"
            self.nodes[number] = Node(number, ports.clients, [*run, "kafka.Kafka", str(file)], log)
            tool = [*run, "kafka.tools.StorageTool", "format", "--cluster-id", cluster, "--config", str(file)]
            tool += self.security.scram_options() if self.secured else []
            formats.append(subprocess.Popen(tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for process in formats:
            output, _ = process.communicate()
            if process.returncode:
                raise DependencyError(f"Kafka could not format a log directory\n{output.strip()}")

    def _configure(self, number: int) -> Path:
        """Write the settings of a node."""
        home = self._home(number)
        home.mkdir(parents=True, exist_ok=True)
        data = (self._disks[number - 1].folder if self._disks else home) / "data"
        security = self.security.broker_settings() if self.secured else {}
        properties = node_properties(number, self.ports, data, security, self._settings)
        file = home / "server.properties"
        file.touch(mode=0o600)  # may contain passwords
        file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
        return file

    def _home(self, number: int) -> Path:
        return self.folder / str(number)

    def _kill_all(self) -> None:
        """Kill all nodes; stopping the last of three would wait seconds for others to take over its partitions."""
        for node in self.nodes.values():
            node.close()

    def _start_error(self, node: Node, reason: str) -> DependencyError:
        hint = "" if self._temporary else f"its whole log is {node.log}"
        return DependencyError(f"Kafka node {node.number} {reason}\n{node.error_log_tail()}", hint=hint)


def new_cluster_id() -> str:
    """Generate a cluster id: 16 bytes in Base64, without a leading dash, which would look like an option."""
    while True:
        new_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not new_id.startswith("-"):
            return new_id
