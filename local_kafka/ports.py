"""Ports of the loopback for the listeners of a cluster."""

import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from model_name.errors import DependencyError

# Below where Linux takes the ports of outgoing connections: a client that tries again and again to reach a killed
# broker at such a port may in the end be connected with itself, and the broker cannot come back.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Ports:
    """Where one node listens.

    Attributes:
        clients: For clients; brokers use it among themselves unless it asks for a password.
        controllers: Of the quorum.
        internal: Of the brokers of a secured cluster among themselves.
        mtls: For clients of a secured cluster that show a certificate.
    """

    clients: int
    controllers: int
    internal: int
    mtls: int


def choose_ports(nodes: int, first: int) -> list[Ports]:
    """Ports of the loopback that nobody listens on; those of clients from `first` on, unless that is 0."""
    fixed = range(first, first + nodes) if first else ()
    free = free_ports(4 * nodes, taken=fixed)
    return [Ports(fixed[at] if first else free[4 * at], *free[4 * at + 1 : 4 * at + 4]) for at in range(nodes)]


def free_ports(count: int, taken: Iterable[int] = ()) -> list[int]:
    """So many ports of the loopback that nobody listens on."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and not is_open(port):
            found.append(port)
        if len(found) == count:
            return found
    raise DependencyError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}", hint="see `ss -ltn`")


def is_open(port: int) -> bool:
    """Whether somebody listens on a port of the loopback."""
    with socket.socket() as asked:
        asked.settimeout(1)
        return asked.connect_ex(("127.0.0.1", port)) == 0
