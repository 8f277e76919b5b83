"""Reading of files that are named by an untrusted text: inside one folder, regular, of bounded size, each once."""

import errno
import os
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from model_name.errors import DataError, NotFoundError, StorageError

MAX_LINKS = 40  # on the way to one file, as in Linux
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # opening a FIFO must not wait for its writer


def is_contained_name(name: str) -> bool:
    """Return whether a text is a relative path that cannot leave its folder, in its normal form."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."}.intersection(parts)


def read_contained_file(directory: Path, name: str, *, max_bytes: int) -> bytes:
    """Read a file below a directory.

    The directory may be a link, and so may the file if it stays inside, as in volumes of Kubernetes. Each part of the
    path is opened by itself, so that no link that is replaced in the meantime leads outside.

    Args:
        directory: Directory of the file.
        name: Path of the file in the directory, see `is_contained_name`.
        max_bytes: Maximum size of the file.

    Raises:
        NotFoundError: The file does not exist.
        DataError: The path leaves the directory, or the file is not a regular file or too large.
        StorageError: The file cannot be read.
    """
    path = directory / name
    if not is_contained_name(name):
        raise DataError(f"{directory}: {name[:100]!r} is not the name of a file in this folder")
    try:
        descriptor = _open_below(directory, name)
        try:
            status = os.fstat(descriptor)
            if not S_ISREG(status.st_mode):
                raise DataError(f"{path}: is not a regular file")
            if status.st_size > max_bytes:
                raise DataError(f"{path}: has {status.st_size:,} bytes, more than {max_bytes:,}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(status.st_size + 1)  # one more, so that a file that grows differs from its hash
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise NotFoundError(f"{path}: is missing from the bundle", hint="fetch the bundle again") from err
    except IsADirectoryError as err:
        raise DataError(f"{path}: is not a regular file") from err
    except OSError as err:
        raise StorageError(f"{path}: cannot be read: {err.strerror}") from err


def _open_below(directory: Path, name: str) -> int:
    """Open a file below a directory and return its descriptor; links are followed as long as they stay inside.

    Raises:
        DataError: The path leaves the directory.
        OSError: A part of the path cannot be opened.
    """
    pending, links = [*reversed(PurePosixPath(name).parts)], 0
    folders = [os.open(directory, FOLDER_FLAGS)]
    try:
        while pending:
            part = pending.pop()
            if part == "..":
                os.close(folders.pop())
                if not folders:
                    raise DataError(f"{directory / name}: is a link that leaves the folder")
            elif (target := _read_link(part, folders[-1])) is not None:
                links += 1
                if target.is_absolute() or links > MAX_LINKS:
                    raise DataError(f"{directory / name}: is a link that leaves the folder")
                pending += reversed(target.parts)
            elif pending:
                folders.append(os.open(part, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folders[-1]))
            else:
                return os.open(part, FILE_FLAGS | os.O_NOFOLLOW, dir_fd=folders[-1])
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        for folder in folders:
            os.close(folder)


def _read_link(name: str, folder: int) -> PurePosixPath | None:
    """Return the target of a symbolic link, or None for anything else."""
    try:
        return PurePosixPath(os.readlink(name, dir_fd=folder))
    except OSError as err:
        if err.errno == errno.EINVAL:
            return None
        raise
