"""The terms of ASGI, an answer, and the body of a request, which may be too long, too slow or packed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, NamedTuple
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError  # noqa: N812  it is one

from model_name.errors import DataError, TooLargeError
from model_name.serving.bundle import Manifest
from model_name.serving.limits import Limits
from model_name.serving.refusals import MediaError, SlowError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON = b"application/json"
HTML = b"text/html; charset=utf-8"

SECURITY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
"""What browsers must not do with any answer."""


class Http(NamedTuple):
    """An answer."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: Headers = []
    manifest: Manifest | None = None


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: It is longer than it may be.
        DataError: It does not come, or is encoded as nothing that is known.
    """
    most = limits.body_bytes
    length = headers.get(b"content-length", b"0")
    if length.isdigit():
        limits.check_body(int(length))
    body = await _all(receive, limits)
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else _decoded(body, encoding.strip().lower(), most)


async def _all(receive: Receive, limits: Limits) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise DataError("the body was cut off")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > limits.body_bytes:
                    raise TooLargeError(f"the body has more than {limits.body_bytes} bytes")
                if not message.get("more_body"):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError as err:
        raise SlowError(f"the body did not come within {limits.body_seconds:g} s") from err


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
        raise MediaError("the body is encoded as nothing that this server knows: gzip, deflate")
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
