"""One request asked of a data plane as a server does, without a server."""

import json
from typing import Any

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request


def ask(plane: DataPlane, request: InferenceRequest, limits: Limits | None = None) -> Any:
    """The reply to one request; raises why there is none."""
    (reply,) = infer_batch(plane, [request], limits or Limits()).responses
    if isinstance(reply, ModelNameError):
        raise reply
    return reply


def ask_v1(plane: DataPlane, body: Any) -> Any:
    """The answer to a body of V1."""
    return json.loads(ask(plane, V1Request(json.dumps(body).encode(), "1")))


def ask_v2(plane: DataPlane, body: Any, name: str = "flats") -> Any:
    """The answer to a body of V2 in JSON."""
    return json.loads(ask(plane, V2Request(json.dumps(body).encode(), "1", name=name)))
