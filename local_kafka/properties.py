"""Build broker settings for a small footprint, a fast start and a fast detection of faults."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from local_kafka.ports import Ports

BrokerSettings = Mapping[str, str | int | float | bool]

# The defaults suit a data centre; a test would wait for each of these.
FAST_START: BrokerSettings = {
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 1000,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    "broker.heartbeat.interval.ms": 500,
    "broker.session.timeout.ms": 3000,  # after which a dead leader is replaced
    "controlled.shutdown.max.retries": 1,
}
LOW_FOOTPRINT: BrokerSettings = {
    "auto.create.topics.enable": False,  # so that a misspelt topic is an error
    "offsets.topic.num.partitions": 5,
    "transaction.state.log.num.partitions": 5,
    "share.coordinator.state.topic.num.partitions": 1,
    "num.network.threads": 2,
    "num.io.threads": 4,
    "background.threads": 2,
    "log.cleaner.dedupe.buffer.size": 2 << 20,  # 128 MiB by default
}


def node_properties(
    number: int, ports: Sequence[Ports], data: Path, security: BrokerSettings, settings: BrokerSettings
) -> dict[str, str]:
    """Build all settings of one node.

    Args:
        number: Number of the node, from 1.
        ports: Ports of all nodes of the cluster.
        data: Log directory of the node.
        security: Security settings; empty for an unsecured cluster.
        settings: Settings of the caller, which take precedence.
    """
    own, replicas = ports[number - 1], min(len(ports), 3)
    listeners = {"CLIENTS": own.clients, "CONTROLLERS": own.controllers}
    listeners |= {"INTERNAL": own.internal, "MTLS": own.mtls} if security else {}
    protocols = dict.fromkeys(listeners, "PLAINTEXT") | ({"CLIENTS": "SASL_SSL", "MTLS": "SSL"} if security else {})
    merged: BrokerSettings = {
        "process.roles": "broker,controller",
        "node.id": number,
        "log.dirs": str(data),
        "controller.quorum.voters": ",".join(f"{at}@127.0.0.1:{one.controllers}" for at, one in enumerate(ports, 1)),
        "controller.listener.names": "CONTROLLERS",
        "inter.broker.listener.name": "INTERNAL" if security else "CLIENTS",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        **replication_settings(replicas),
        **FAST_START,
        **LOW_FOOTPRINT,
        **security,
        **settings,
    }
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in merged.items()}


def replication_settings(replicas: int) -> BrokerSettings:
    """Build the replication settings of topics and internal topics; with three replicas one node may fail."""
    internal = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
    in_sync = 2 if replicas == 3 else 1
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        **{f"{topic}.replication.factor": replicas for topic in internal},
        **{f"{topic}.min.isr": in_sync for topic in internal[1:]},
    }
