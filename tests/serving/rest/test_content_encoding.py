"""Decompression of bodies: what compressors of the standard library make, and bounds on time and memory."""

import gzip
import time
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError
from model_name.serving.rest.content_encoding import (
    DEFLATE,
    GZIP,
    MAX_MEMBERS,
    MAX_WINDOW_LOG,
    PIECE_BYTES,
    SLICE_BYTES,
    ZSTD,
    decompress,
)

MIB = 2**20


def compress_raw(body: bytes) -> bytes:
    """Compress to raw deflate."""
    return zlib.compress(body, wbits=-zlib.MAX_WBITS)


COMPRESSORS: list[tuple[bytes, Callable[[bytes], bytes], bool]] = [
    (GZIP, gzip.compress, True),
    (DEFLATE, zlib.compress, False),
    (DEFLATE, compress_raw, False),
    (ZSTD, zstd.compress, True),
]
each_compressor = pytest.mark.parametrize(
    ("coding", "compress", "has_members"), COMPRESSORS, ids=["gzip", "deflate", "raw deflate", "zstd"]
)


@each_compressor
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), repeat=st.sampled_from([1, 50, 5000]))
def test_what_is_compressed_is_decompressed(
    coding: bytes, compress: Callable[[bytes], bytes], parts: list[bytes], repeat: int, *, has_members: bool
) -> None:
    whole = b"".join(part * repeat for part in parts)
    body = b"".join(compress(part * repeat) for part in parts) if has_members else compress(whole)
    assert b"".join(decompress(body, coding)) == whole
    for size in (0, len(body) - 1):
        with pytest.raises(DataError, match=r"the body was cut off|the body is not"):
            b"".join(decompress(body[:size], coding))


@each_compressor
@given(body=st.binary(max_size=200))
def test_any_bytes_are_decompressed_or_refused(
    coding: bytes, compress: Callable[[bytes], bytes], body: bytes, *, has_members: bool
) -> None:
    try:
        list(decompress(body, coding))
        list(decompress(compress(body) + body, coding))
    except DataError:
        pass
    assert b"".join(decompress(compress(body), coding)) == body
    assert has_members in (True, False)


@each_compressor
def test_pieces_of_a_bomb_are_bounded(coding: bytes, compress: Callable[[bytes], bytes], *, has_members: bool) -> None:
    bomb = compress(bytes(64 * MIB))
    tracemalloc.start()
    try:
        assert max(map(len, decompress(bomb, coding))) <= PIECE_BYTES
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB + SLICE_BYTES
    assert has_members in (True, False)


@pytest.mark.parametrize(("coding", "member"), [(GZIP, gzip.compress(b"")), (ZSTD, zstd.compress(b""))])
def test_members_are_bounded_in_number_and_in_time(coding: bytes, member: bytes) -> None:
    assert list(decompress(member * MAX_MEMBERS, coding)) == []
    started = time.thread_time()
    with pytest.raises(DataError, match=f"has more than {MAX_MEMBERS} members"):
        list(decompress(member * (16 * MIB // len(member)), coding))
    assert time.thread_time() - started < 2.0


def test_a_window_of_zstd_is_bounded() -> None:
    options = {zstd.CompressionParameter.window_log: MAX_WINDOW_LOG + 2}
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(bytes(MIB)) + compressor.flush()
    with pytest.raises(DataError, match="the body is not zstd: "):
        list(decompress(body, ZSTD))
