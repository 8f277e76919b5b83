"""What the probes of a server are told."""

from dataclasses import dataclass


@dataclass
class ServerState:
    """Where a server is between its start and its end.

    Attributes:
        is_started: Whether the warm-up is over.
        is_loaded: Whether a model answers.
        is_draining: Whether the server is about to end.
        is_closed: Whether it takes no new work.
    """

    is_started: bool = False
    is_loaded: bool = False
    is_draining: bool = False
    is_closed: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether requests are to be sent here."""
        return self.is_started and self.is_loaded and not self.is_draining
