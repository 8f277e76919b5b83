"""Objects that the handlers of all protocols share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any

from model_name.serving.auth import TokenAuth
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import Manifest
from model_name.serving.model_repository import ModelRepository
from model_name.serving.request_errors import ErrorLogger
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState
from model_name.serving.tracing import Tracing


def request_id_generator() -> Callable[[], str]:
    """Make a function that returns a new request id at each call: a prefix of this process and a counter."""
    return map(f"{token_hex(6)}-{{:08x}}".format, count(1)).__next__


@dataclass(frozen=True)
class ServerContext:
    """One served model and the objects that the handlers of all protocols share.

    Attributes:
        name: Name of the model.
        batcher: Batcher that runs the model.
        state: Lifecycle state of the server.
        metrics: Prometheus metrics.
        auth: Authentication of clients.
        error_log: Log of failed requests.
        repository: Model repository extension.
        server_metadata: Name, version and extensions of the server, as V2 describes them.
        next_request_id: Generates an id for a request that has none.
        tracing: Tracing of requests; None if it is off.
    """

    name: str
    batcher: AdaptiveBatcher
    state: ServerState
    metrics: ServerMetrics
    auth: TokenAuth
    error_log: ErrorLogger
    repository: ModelRepository
    server_metadata: Mapping[str, Any]
    next_request_id: Callable[[], str] = field(default_factory=request_id_generator)
    tracing: Tracing | None = None

    @property
    def manifest(self) -> Manifest:
        """Manifest of the bundle that is served now."""
        return self.batcher.plane.bundle.manifest
