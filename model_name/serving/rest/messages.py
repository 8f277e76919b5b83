"""HTTP responses and their headers, and the types of ASGI."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from model_name.errors import ModelNameError
from model_name.serving.bundle import Manifest
from model_name.serving.context import ServerContext
from model_name.serving.request_errors import client_message
from model_name.serving.request_lifecycle import REQUEST_ID_HEADER

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"

SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
"""Headers of every response that restrict what a browser does with it."""

CONNECTION_CLOSE = (b"connection", b"close")
"""Header of the last response on a connection."""
REQUEST_ID = REQUEST_ID_HEADER.encode()
UNSAFE_BYTES = re.compile(rb"[^\t\x20-\x7e]")  # would end a header, or are not ASCII
RETRY_AFTER = (b"retry-after", b"1")
WWW_AUTHENTICATE = (b"www-authenticate", b"Bearer")


class HttpResponse(NamedTuple):
    """Response without the headers that all responses share.

    Attributes:
        body: Bytes of the body.
        status: Status code.
        content_type: Value of the header of that name.
        headers: Further headers.
        manifest: Manifest of the bundle that predicted; None for the one that is served now.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = []
    manifest: Manifest | None = None


class CommonHeaders:
    """Headers that all responses share: model version, slot and restrictions for browsers."""

    def __init__(self, context: ServerContext) -> None:
        """Read the version of the model and the state of the server from a context."""
        self.context = context
        self._manifest: Manifest | None = None
        self._headers: Headers = []

    def build(self, response: HttpResponse) -> Headers:
        """Build the shared headers of a response; the last of them is `connection: close` while the server drains."""
        manifest = response.manifest or self.context.manifest
        if manifest is not self._manifest:
            values = {b"x-model-version": manifest.version, b"x-model-semver": manifest.semver}
            values[b"x-model-slot"] = self.context.metrics.slot
            versions = [(name, value.encode("ascii", "replace")) for name, value in values.items()]
            self._manifest, self._headers = manifest, [*_replace_unsafe_bytes(versions), *SECURITY_HEADERS]
        return [*self._headers, CONNECTION_CLOSE] if self.context.state.is_draining else self._headers


def response_headers(response: HttpResponse, identity: Headers, common: Headers) -> Headers:
    """List all headers of a response but those that uvicorn adds.

    No header can end in the middle of its value: those that all responses share are valid, and others are made so.

    Args:
        response: Response to a request.
        identity: Headers that name the request.
        common: Headers that all responses share.
    """
    length = (b"content-length", b"%d" % len(response.body))
    headers = [(b"content-type", response.content_type), length, *identity, *common]
    return headers + _replace_unsafe_bytes(response.headers) if response.headers else headers


def _replace_unsafe_bytes(headers: Headers) -> Headers:
    """Replace bytes that a value must not have by question marks."""
    return [(name, UNSAFE_BYTES.sub(b"?", value)) for name, value in headers]


def error_response(err: ModelNameError) -> HttpResponse:
    """Render an error as JSON, with the headers that its status needs."""
    headers: Headers = []
    match err.http_status:
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            headers = [RETRY_AFTER]
        case HTTPStatus.UNAUTHORIZED:
            headers = [WWW_AUTHENTICATE]
        case HTTPStatus.METHOD_NOT_ALLOWED:
            headers = [(b"allow", err.hint.encode())]
        case HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            headers = [(b"accept-encoding", err.hint.encode())]
    return HttpResponse(orjson.dumps({"error": client_message(err)}), err.http_status, JSON, headers)
