"""Reading of request bodies over ASGI, which may be too long, too slow or compressed."""

import asyncio
from collections.abc import Iterator, Mapping

from model_name.errors import DataError, TooLargeError
from model_name.serving.byte_budget import ByteBudget, Reservation
from model_name.serving.limits import Limits
from model_name.serving.request_errors import RequestTimeoutError
from model_name.serving.rest.content_encoding import PIECE_BYTES, decompress, parse_coding
from model_name.serving.rest.messages import Receive


class BodyReader:
    """Reads the bodies of all clients. A body in transit is in no queue yet, so its bytes are reserved here.

    Attributes:
        limits: Limits of one body.
        budget: Budget of all bodies, in which a body is reserved while it is read and decompressed.
    """

    def __init__(self, limits: Limits, budget: ByteBudget) -> None:
        """Start without a body in transit."""
        self.limits = limits
        self.budget = budget

    async def read(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Read the body of a request and decompress it. Its bytes are released when this returns.

        Raises:
            TooLargeError: The body is longer than `max_body_bytes`.
            BusyError: Other bodies take too many bytes.
            UnsupportedMediaTypeError: The content encoding is not supported.
            DataError: The body is incomplete, late or not in its content encoding.
        """
        length = headers.get(b"content-length", b"0")
        if length.isdigit():
            self.limits.check_body(int(length))
        coding = parse_coding(headers.get(b"content-encoding", b""))
        with Reservation(self.budget) as reservation:
            body = await self._read_stream(receive, reservation)
            return body if coding is None else await self._decompress(body, coding, reservation)

    async def _read_stream(self, receive: Receive, reservation: Reservation) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise DataError("the body was cut off")
                    part: bytes = message.get("body", b"")
                    if reservation.size + len(part) > self.limits.body_bytes:
                        raise TooLargeError(f"the body has more than {self.limits.body_bytes} bytes")
                    reservation.grow(len(part))
                    if not body and not message.get("more_body"):
                        return part
                    body += part  # a list of parts would take more memory than their bytes, if they are small
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError as err:
            raise RequestTimeoutError(f"the body did not come within {self.limits.body_seconds:g} s") from err

    async def _decompress(self, body: bytes, coding: bytes, reservation: Reservation) -> bytes:
        """Decompress a body in threads, piece by piece, so that neither its time nor its memory is unbounded."""
        pieces = decompress(body, coding)
        decompressed: list[bytes] = []
        size = 0
        is_complete = False
        while not is_complete:
            batch, is_complete = await asyncio.to_thread(_read_pieces, pieces)
            size += len(batch)
            if size > self.limits.body_bytes:
                raise TooLargeError(f"the body has more than {self.limits.body_bytes} bytes when it is unpacked")
            reservation.grow(len(batch))
            decompressed.append(batch)
        return decompressed[0] if len(decompressed) == 1 else b"".join(decompressed)


def _read_pieces(pieces: Iterator[bytes]) -> tuple[bytes, bool]:
    """Read at least `PIECE_BYTES`, or all that is left; return whether it is."""
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        batch.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            return b"".join(batch), False
    return b"".join(batch), True
