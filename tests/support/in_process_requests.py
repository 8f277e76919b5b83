"""Requests that a data plane infers without a server."""

import json
from typing import Any

from model_name.errors import ModelNameError
from model_name.serving.batching.requests import InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request


def infer_request(plane: DataPlane, request: InferenceRequest, limits: Limits | None = None) -> Any:
    """Infer one request; raises its error."""
    (response,) = infer_batch(plane, [request], limits or Limits()).responses
    if isinstance(response, ModelNameError):
        raise response
    return response


def infer_v1(plane: DataPlane, body: Any) -> Any:
    """Infer a body of V1, and parse the response."""
    return json.loads(infer_request(plane, V1Request(json.dumps(body).encode(), "1")))


def infer_v2(plane: DataPlane, body: Any, name: str = "flats") -> Any:
    """Infer a body of V2 in JSON, and parse the response."""
    return json.loads(infer_request(plane, V2Request(json.dumps(body).encode(), "1", name=name)))
