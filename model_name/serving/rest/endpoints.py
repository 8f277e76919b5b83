"""The doors of HTTP: a request of each protocol made of what came, and an answer made of what was computed."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from model_name.errors import DataError
from model_name.serving.batching.executor import InferenceResponse
from model_name.serving.batching.requests import InferenceRequest
from model_name.serving.context import ServerContext
from model_name.serving.protocols.cloudevents import EventResponse, EventRequest, encode_header, is_event
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import BinaryResponse, V2Request
from model_name.serving.rest.messages import JSON, HttpResponse

REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
BINARY = b"application/octet-stream"


class Asked(NamedTuple):
    """A request.

    Attributes:
        request: To be computed.
        told: Makes the answer of HTTP.
    """

    request: InferenceRequest
    told: Callable[[InferenceResponse], HttpResponse]


Door = Callable[[Mapping[bytes, bytes], bytes], Asked]
"""Takes the headers, names in small letters, and the body.

Raises:
    DataError: The headers make no sense.
"""


class Doors:
    """The doors of one model."""

    def __init__(self, service: ServerContext) -> None:
        """Open them."""
        self.service = service

    def predict(self, headers: Mapping[bytes, bytes], body: bytes) -> Asked:
        """V1, or an event with V1 in it."""
        if not is_event(headers):
            return self.rows(headers, body)
        event = EventRequest(body, self._id(headers), headers=headers, name=self.service.name)
        return Asked(event, partial(_event, event))

    def rows(self, headers: Mapping[bytes, bytes], body: bytes) -> Asked:
        """V1."""
        request = V1Request(body, self._id(headers))
        return Asked(request, partial(_json, request.id))

    def infer(self, headers: Mapping[bytes, bytes], body: bytes, version: str = "") -> Asked:
        """V2.

        Args:
            headers: Of the request.
            body: Its body.
            version: Of the model that is asked for; any where empty.

        Raises:
            DataError: A header is no number.
        """
        name, request_id = self.service.name, self._id(headers)
        request = V2Request(body, request_id, name=name, version=version, json_length=_json_length(headers))
        return Asked(request, partial(_tensors, request_id))

    def _id(self, headers: Mapping[bytes, bytes]) -> str:
        """What the client calls its request, if that can stand in a header and in a log; else one of ours."""
        given = headers.get(b"x-request-id")
        return given.decode() if given and REQUEST_ID.fullmatch(given) else self.service.next_id()


def _json(request_id: str, answer: InferenceResponse) -> HttpResponse:
    return HttpResponse(answer.payload, 200, JSON, [(b"x-request-id", request_id.encode())], answer.manifest)


def _tensors(request_id: str, answer: InferenceResponse) -> HttpResponse:
    if not isinstance(answer.payload, BinaryResponse):
        return _json(request_id, answer)
    length = (b"inference-header-content-length", str(answer.payload.json_length).encode())
    return HttpResponse(answer.payload.content, 200, BINARY, [length, (b"x-request-id", request_id.encode())], answer.manifest)


def _event(event: EventRequest, answer: InferenceResponse) -> HttpResponse:
    reply: EventResponse = answer.payload
    headers = [*reply.headers, (b"x-request-id", encode_header(event.id))]  # its id is the client's
    return HttpResponse(reply.body, 200, reply.content_type, headers, answer.manifest)


def _json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """The length of the JSON before binary tensors.

    Raises:
        DataError: It is no number.
    """
    length = headers.get(b"inference-header-content-length")
    if length is None:
        return None
    if not length.isdigit() or len(length) > 12:
        raise DataError("Inference-Header-Content-Length is not a number of bytes")
    return int(length)
