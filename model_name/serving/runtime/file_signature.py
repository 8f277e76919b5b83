"""Signature of files, to detect that they were written or replaced."""

from collections.abc import Callable, Sequence
from pathlib import Path
from time import sleep
from typing import TypeVar

from model_name.errors import DataError, ModelNameError

T = TypeVar("T")

READ_ATTEMPTS = 4
SETTLE_SECONDS = 0.1  # in which files that are being replaced one by one are complete

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


def read_unchanged(directory: Path, list_files: Callable[[], Sequence[str]], read: Callable[[], T]) -> T:
    """Read files of a directory, again if they are changed in the meantime.

    Args:
        directory: Directory of the files.
        list_files: Lists the names of the files.
        read: Reads the files.

    Raises:
        ModelNameError: The files cannot be read, and do not change.
        DataError: The files were changed during each of several attempts.
    """
    for _ in range(READ_ATTEMPTS):
        files = list_files()
        before = file_signature(directory, files)
        try:
            result = read()
        except ModelNameError:
            sleep(SETTLE_SECONDS)
            if file_signature(directory, files) == before:
                raise
        else:
            if file_signature(directory, files) == before:
                return result
    hint = "write a new folder, and replace the old one, or a link to it, in one step"
    raise DataError(f"{directory}: was changed while it was read, {READ_ATTEMPTS} times", hint=hint)
