"""Signature of files, to detect that they were written or replaced."""

from collections.abc import Sequence
from pathlib import Path

FileSignature = tuple[tuple[int, int, int], ...]
"""Inode, size in bytes and modification time in nanoseconds of each file: changes when a file is written."""


def file_signature(directory: Path, files: Sequence[str]) -> FileSignature:
    """Compute the signature of files. Missing ones are skipped: they may be about to be written."""
    signature = []
    for name in files:
        try:
            stat = (directory / name).stat()
        except OSError:
            continue
        signature.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(signature)
