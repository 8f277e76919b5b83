"""Lifecycle state of a server, as its probes report it."""

from dataclasses import dataclass


@dataclass
class ServerState:
    """Lifecycle state of a server.

    Attributes:
        is_started: Whether the warm-up is over and the server listens.
        is_loaded: Whether a model is loaded.
        is_draining: Whether the server is shutting down but still serves requests.
        is_closed: Whether the server rejects new requests.
    """

    is_started: bool = False
    is_loaded: bool = False
    is_draining: bool = False
    is_closed: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether requests should be routed to this server."""
        return self.is_started and self.is_loaded and not self.is_draining
