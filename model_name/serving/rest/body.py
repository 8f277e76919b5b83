"""Reading of request bodies over ASGI, which may be too long, too slow or compressed."""

import asyncio
from collections.abc import Mapping
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError  # noqa: N812  it is an exception class

from model_name.errors import BusyError, DataError, TooLargeError
from model_name.serving.limits import Limits
from model_name.serving.request_errors import RequestTimeoutError, UnsupportedMediaTypeError
from model_name.serving.rest.messages import Receive


class BodyReader:
    """Reads the bodies of all clients. A body in transit is in no queue yet, so its memory is bounded here.

    Attributes:
        limits: Limits of one body, and of all together.
        bytes_in_flight: Number of bytes received of all bodies that are being read.
    """

    def __init__(self, limits: Limits) -> None:
        """Start without a body in transit."""
        self.limits = limits
        self.bytes_in_flight = 0

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read the body of a request and decompress it.

        Raises:
            TooLargeError: The body is longer than `max_body_bytes`.
            BusyError: Too many bytes of other bodies are in transit.
            DataError: The body is incomplete, late or not in its content encoding.
        """
        max_bytes = self.limits.body_bytes
        length = headers.get(b"content-length", b"0")
        if length.isdigit():
            self.limits.check_body(int(length))
        body = await self._read_stream(receive)
        encoding = headers.get(b"content-encoding")
        if encoding is None:
            return body
        return await asyncio.to_thread(_decompress, body, encoding.strip().lower(), max_bytes)  # may take 0.1 s

    async def _read_stream(self, receive: Receive) -> bytes:
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
                    self.bytes_in_flight += len(parts[-1])
                    if size > self.limits.body_bytes:
                        raise TooLargeError(f"the body has more than {self.limits.body_bytes} bytes")
                    if size < self.bytes_in_flight > self.limits.queued_bytes:
                        raise BusyError("too many bodies are being read already; try again in a second")
                    if not message.get("more_body"):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError as err:
            raise RequestTimeoutError(f"the body did not come within {self.limits.body_seconds:g} s") from err
        finally:
            self.bytes_in_flight -= size


def _decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Decompress a body, up to a maximum size.

    Raises:
        UnsupportedMediaTypeError: The content encoding is none of gzip, deflate and identity.
        DataError: The compressed body is broken or incomplete.
        TooLargeError: The decompressed body is longer than `max_bytes`.
    """
    if encoding == b"identity":
        return body
    if encoding not in (b"gzip", b"deflate"):
        raise UnsupportedMediaTypeError("the body is encoded as nothing that this server knows: gzip, deflate")
    decompressor = decompressobj(wbits=MAX_WBITS | 32)  # detects gzip and zlib by their headers
    try:
        decompressed = decompressor.decompress(body, max_bytes + 1)
    except ZlibError as err:
        raise DataError(f"the body is not {encoding.decode()}: {err}") from err
    if len(decompressed) > max_bytes:
        raise TooLargeError(f"the body has more than {max_bytes} bytes when it is unpacked")
    if not decompressor.eof:
        raise DataError("the body was cut off")
    if decompressor.unused_data:
        extra = len(decompressor.unused_data)
        raise DataError(f"the body goes on for {extra} bytes after what is {encoding.decode()}")
    return decompressed
