"""The settings of a broker that is small, starts quickly and lets a test see faults soon."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from local_kafka.ports import Ports

Settings = Mapping[str, str | int | float | bool]

# What Kafka's defaults are made for is a server room; a test waits for each of these.
QUICK: Settings = {
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 3000,  # after which a dead leader has a successor
    "controlled.shutdown.max.retries": 1,
}
SMALL: Settings = {
    "auto.create.topics.enable": False,  # a misspelt topic is an error
    "offsets.topic.num.partitions": 5,
    "transaction.state.log.num.partitions": 5,
    "share.coordinator.state.topic.num.partitions": 1,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "log.cleaner.dedupe.buffer.size": 2 << 20,  # 128 MiB by default
}


def properties(
    number: int, ports: Sequence[Ports], data: Path, security: Settings, settings: Settings
) -> dict[str, str]:
    """All settings of one node.

    Args:
        number: Of the node, from 1.
        ports: Of every node of the cluster.
        data: Its log directory.
        security: What a secured cluster adds; empty for one that takes everybody.
        settings: Of the caller; they win.
    """
    own, copies = ports[number - 1], min(len(ports), 3)
    listeners = {"CLIENTS": own.clients, "CONTROLLERS": own.controllers}
    listeners |= {"INTERNAL": own.internal, "MTLS": own.mtls} if security else {}
    protocols = dict.fromkeys(listeners, "PLAINTEXT") | ({"CLIENTS": "SASL_SSL", "MTLS": "SSL"} if security else {})
    found: Settings = {
        "process.roles": "broker,controller",
        "node.id": number,
        "log.dirs": str(data),
        "controller.quorum.voters": ",".join(f"{at}@127.0.0.1:{one.controllers}" for at, one in enumerate(ports, 1)),
        "controller.listener.names": "CONTROLLERS",
        "inter.broker.listener.name": "INTERNAL" if security else "CLIENTS",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        **replication(copies),
        **QUICK,
        **SMALL,
        **security,
        **settings,
    }
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in found.items()}


def replication(copies: int) -> Settings:
    """Of topics and of what Kafka keeps for itself: with three copies one node may be lost."""
    internal = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    safe = 2 if copies == 3 else 1
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": safe,
        **{f"{topic}.replication.factor": copies for topic in internal},
        **{f"{topic}.min.isr": safe for topic in internal[1:]},
    }
