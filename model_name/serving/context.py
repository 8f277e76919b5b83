"""What is served, at whichever door a request comes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Any, Literal

from model_name.serving.auth import TokenAuth
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import Manifest
from model_name.serving.model_repository import ModelRepository
from model_name.serving.request_errors import ErrorLogger
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState

Verb = Literal["predict", "explain"]


def _ids() -> Callable[[], str]:
    """Ids for requests that have none: of this process, and counted."""
    return map(f"{token_hex(6)}-{{:08x}}".format, count(1)).__next__


@dataclass(frozen=True)
class ServerContext:
    """One model, and all that its doors share.

    Attributes:
        name: Of the model.
        batcher: What computes.
        state: What the probes are told.
        telemetry: What is counted.
        guard: Who may ask.
        refusals: What is told of requests that are refused.
        repository: Loads and unloads the model, where clients may ask for it.
        about: Name, version and extensions of the server.
        verb: What it does.
        next_id: Makes an id for a request without one.
    """

    name: str
    batcher: AdaptiveBatcher
    state: ServerState
    metrics: ServerMetrics
    auth: TokenAuth
    error_log: ErrorLogger
    repository: ModelRepository
    server_metadata: Mapping[str, Any]
    verb: Verb
    next_id: Callable[[], str] = field(default_factory=_ids)

    @property
    def manifest(self) -> Manifest:
        """All that is known about what answers now."""
        return self.batcher.plane.bundle.manifest
