"""Choose ports of the loopback interface for the listeners of a cluster."""

import os
import random
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from model_name.errors import DependencyError

# Below the ephemeral ports of Linux: a client that keeps connecting to a killed broker on an ephemeral port may
# connect to itself, and then the broker cannot bind the port again.
PORTS = range(20_000, 32_000)
PORTS_PER_TEST_WORKER = 1500
TEST_WORKER_VARIABLE = "PYTEST_XDIST_WORKER"  # gw0, gw1, ...; inherited by the processes of the tests


@dataclass(frozen=True)
class Ports:
    """Ports of one node.

    Attributes:
        clients: Port for clients, and for other brokers unless the cluster is secured.
        controllers: Port for the controller quorum.
        internal: Port for the other brokers of a secured cluster.
        mtls: Port for clients of a secured cluster with a certificate.
    """

    clients: int
    controllers: int
    internal: int
    mtls: int


def choose_ports(nodes: int, first: int) -> list[Ports]:
    """Choose free ports for all nodes; client ports are consecutive from `first` on, unless that is 0."""
    fixed = range(first, first + nodes) if first else ()
    free = free_ports(4 * nodes, taken=fixed)
    return [Ports(fixed[at] if first else free[4 * at], *free[4 * at + 1 : 4 * at + 4]) for at in range(nodes)]


def free_ports(count: int, taken: Iterable[int] = ()) -> list[int]:
    """Find ports on which nothing listens.

    Args:
        count: Number of ports.
        taken: Ports to leave out.

    Raises:
        DependencyError: The range has fewer free ports than requested.
    """
    ports: list[int] = []
    candidates = port_range()
    for port in random.sample(candidates, len(candidates)):
        if port not in taken and not is_port_open(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise DependencyError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}", hint="see `ss -ltn`")


def port_range() -> range:
    """Return the range to choose from: all ports, or disjoint parts of them for parallel test workers."""
    worker = re.fullmatch(r"gw(\d+)", os.environ.get(TEST_WORKER_VARIABLE, ""))
    if worker is None:
        return PORTS
    begin = int(worker[1]) * PORTS_PER_TEST_WORKER % len(PORTS)
    return PORTS[begin : begin + PORTS_PER_TEST_WORKER]


def is_port_open(port: int) -> bool:
    """Return whether a process listens on a port."""
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0
