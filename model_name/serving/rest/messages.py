"""The terms of ASGI, an answer, and the body of a request, which may be too long, too slow or packed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError  # noqa: N812  it is one

from model_name.errors import BusyError, DataError, TooLargeError
from model_name.serving.bundle import Manifest
from model_name.serving.limits import Limits
from model_name.serving.request_errors import UnsupportedMediaTypeError, RequestTimeoutError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"

SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
"""What browsers must not do with any answer."""


CONNECTION_CLOSE = (b"connection", b"close")
"""Of the last answer on a connection."""


class HttpResponse(NamedTuple):
    """An answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = []
    manifest: Manifest | None = None


def response_headers(answer: HttpResponse, standing: Headers) -> Headers:
    """The headers of an answer, with those of every answer."""
    length = (b"content-length", b"%d" % len(answer.body))
    return [(b"content-type", answer.content_type), length, *standing, *answer.headers]


class BodyReader:
    """Reads bodies, of all clients: while one comes in, it waits in no queue and has to be bounded here.

    Attributes:
        limits: How long one may be, and all together.
        size: Of what has come of all that are being read, in bytes.
    """

    def __init__(self, limits: Limits) -> None:
        """Begin with none."""
        self.limits = limits
        self.size = 0

    async def body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """The body of a request.

        Raises:
            TooLargeError: It is longer than it may be.
            BusyError: There is no room for more of it.
            DataError: It does not come, or is encoded as nothing that is known.
        """
        most = self.limits.body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit():
            self.limits.check_body(int(length))
        body = await self._all(receive)
        encoding = headers.get(b"content-encoding")
        if encoding is None:
            return body
        return await asyncio.to_thread(_decoded, body, encoding.strip().lower(), most)  # may take a tenth of a second

    async def _all(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise DataError("the body was cut off")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    self.size += len(parts[-1])
                    if size > self.limits.body_bytes:
                        raise TooLargeError(f"the body has more than {self.limits.body_bytes} bytes")
                    if size < self.size > self.limits.queued_bytes:
                        raise BusyError("too many bodies are being read already; try again in a second")
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError as err:
            raise RequestTimeoutError(f"the body did not come within {self.limits.body_seconds:g} s") from err
        finally:
            self.size -= size


def _decoded(body: bytes, encoding: bytes, most: int) -> bytes:
    """A compressed body, unpacked as far as it may be long.

    Raises:
        MediaError: It is compressed by something else.
        DataError: It is broken.
        TooLargeError: It is longer than it may be.
    """
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise UnsupportedMediaTypeError("the body is encoded as nothing that this server knows: gzip, deflate")
    unpacker = decompressobj(wbits=MAX_WBITS | 32)  # either, by its header
    try:
        unpacked = unpacker.decompress(body, most + 1)
    except ZlibError as err:
        raise DataError(f"the body is not {encoding.decode()}: {err}") from err
    if len(unpacked) > most:
        raise TooLargeError(f"the body has more than {most} bytes when it is unpacked")
    if not unpacker.eof:
        raise DataError("the body was cut off")
    if unpacker.unused_data:
        raise DataError(f"the body goes on for {len(unpacker.unused_data)} bytes after what is {encoding.decode()}")
    return unpacked
