"""Content encodings of request bodies: gzip, deflate and zstd, decompressed piece by piece."""

from collections.abc import Generator, Iterator
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError  # noqa: N812  it is an exception class

from model_name.errors import DataError
from model_name.serving.request_errors import UnsupportedMediaTypeError

GZIP, DEFLATE, ZSTD, IDENTITY = b"gzip", b"deflate", b"zstd", b"identity"
CODINGS = {GZIP: GZIP, b"x-gzip": GZIP, DEFLATE: DEFLATE, ZSTD: ZSTD}
"""Supported content codings by their names in headers."""
SUPPORTED = ", ".join(name.decode() for name in CODINGS)
PIECE_BYTES = 2**20  # of decompressed data
SLICE_BYTES = 2**16  # of compressed data: decompressors copy the rest of what they are given
MAX_MEMBERS = 4096  # of a gzip or zstd body: one takes 20 bytes, and the time of some KB
MAX_WINDOW_LOG = 23  # 8 MB, which RFC 9659 sets as the limit of zstd as a content coding
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WBITS = MAX_WBITS | 16  # as zlib encodes the formats
RAW_WBITS = -MAX_WBITS


def parse_coding(header: bytes) -> bytes | None:
    """Parse the header `content-encoding`; None if the body is not encoded.

    Raises:
        UnsupportedMediaTypeError: The body has several codings, or one that is not supported.
    """
    names = [name.strip().lower() for name in header.split(b",")]
    names = [name for name in names if name not in (b"", IDENTITY)]
    if not names:
        return None
    if len(names) > 1:
        raise UnsupportedMediaTypeError(
            f"the body has {len(names)} content encodings, this server takes one: {SUPPORTED}", hint=SUPPORTED
        )
    if names[0] not in CODINGS:
        raise UnsupportedMediaTypeError(
            f"the body is encoded as nothing that this server knows: {SUPPORTED}", hint=SUPPORTED
        )
    return CODINGS[names[0]]


def decompress(body: bytes, coding: bytes) -> Iterator[bytes]:
    """Decompress a body in pieces of at most `PIECE_BYTES`, in time linear in both sizes.

    Args:
        body: Compressed body: one or several members of gzip, frames of zstd, or one stream of zlib or raw deflate.
        coding: One of the values of `CODINGS`.

    Raises:
        DataError: The body is broken, incomplete, longer than what is compressed, or has too many members.
    """
    name = coding.decode()
    view = memoryview(body)
    position = 0
    for _ in range(MAX_MEMBERS):
        if coding == ZSTD:
            position = yield from _decompress_frame(view, position)
        else:
            position = yield from _decompress_member(view, position, coding)
        if position == len(body):
            return
        if coding != ZSTD and body[position : position + 2] != GZIP_MAGIC:
            raise DataError(f"the body goes on for {len(body) - position} bytes after what is {name}")
    raise DataError(f"the body has more than {MAX_MEMBERS} members of {name}")


def _wbits(start: bytes, coding: bytes) -> int:
    """Choose the format by the first bytes of a body: clients call gzip deflate, and raw deflate too."""
    if start == GZIP_MAGIC:
        return GZIP_WBITS
    has_zlib_header = len(start) == 2 and start[0] & 0x0F == 8 and int.from_bytes(start) % 31 == 0
    return MAX_WBITS if has_zlib_header or coding != DEFLATE else RAW_WBITS


def _decompress_member(view: memoryview, position: int, coding: bytes) -> Generator[bytes, None, int]:
    """Decompress one stream of zlib; return the position behind it."""
    decompressor = decompressobj(_wbits(bytes(view[position : position + 2]), coding))
    while not decompressor.eof:
        data: bytes | memoryview = decompressor.unconsumed_tail
        if not data:
            data = view[position : position + SLICE_BYTES]
            position += len(data)
        try:
            piece = decompressor.decompress(data, PIECE_BYTES)
        except ZlibError as err:
            raise DataError(f"the body is not {coding.decode()}: {err}") from err
        if piece:
            yield piece
        elif not data:
            raise DataError("the body was cut off")
    return position - len(decompressor.unused_data)


def _decompress_frame(view: memoryview, position: int) -> Generator[bytes, None, int]:
    """Decompress one frame of zstd; return the position behind it."""
    from backports import zstd  # few clients use it

    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
    decompressor = zstd.ZstdDecompressor(options=options)
    while not decompressor.eof:
        data = view[position : position + SLICE_BYTES] if decompressor.needs_input else b""
        position += len(data)
        try:
            piece = decompressor.decompress(data, PIECE_BYTES)
        except zstd.ZstdError as err:
            raise DataError(f"the body is not zstd: {err}") from err
        if piece:
            yield piece
        elif not data and decompressor.needs_input:
            raise DataError("the body was cut off")
    return position - len(decompressor.unused_data)
