"""Files and folders, local or behind an fsspec URL: open, replace atomically, identify versions, translate errors."""

import errno
import os
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec

from model_name.errors import ConfigError, DependencyError, ModelNameError, NotFoundError, StorageError

OPEN_ERRORS = (OSError, ImportError, ValueError)
"""Errors of opening a URL: the file is inaccessible, the package for the scheme is missing, the scheme is unknown."""

VERSION_KEYS = ("size", "mtime", "created", "ETag", "etag", "md5Hash", "LastModified", "last_modified", "updated")


def resolve_url(url: str) -> tuple[Any, str]:
    """Return the file system of a path or URL, and the path in it.

    Raises:
        ConfigError: fsspec does not know the scheme of the URL.
        DependencyError: The package for the scheme is not installed.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as err:
        raise DependencyError(f"{url}: {err}") from err
    except ValueError as err:
        raise ConfigError(f"{url}: {err}") from err
    return filesystem, str(path)


def open_file(url: str, mode: str = "rb", **options: Any) -> IO[Any]:
    """Open a file; callers translate `OPEN_ERRORS`, because the error differs between configs and tables.

    Args:
        url: Path or URL of the file.
        mode: Mode of the built-in `open`.
        options: Further options of `fsspec.open`, such as `compression` and `encoding`.
    """
    file: IO[Any] = fsspec.open(url, mode, **options).open()
    return file


def read_bytes(url: str) -> bytes:
    """Read a whole file."""
    with open_file(url) as file:
        return bytes(file.read())


def exists(url: str) -> bool:
    """Return whether a file or folder exists; callers translate `OPEN_ERRORS`."""
    filesystem, path = fsspec.core.url_to_fs(url)
    return bool(filesystem.exists(path))


def file_version(url: str) -> dict[str, str]:
    """Return metadata that changes with the content of a file: its size, modification time or ETag.

    Raises:
        NotFoundError: The file does not exist.
        StorageError: The storage cannot be reached.
    """
    filesystem, path = resolve_url(url)
    with translate_write_errors(url):
        try:
            info = filesystem.info(path)
        except FileNotFoundError as err:
            raise NotFoundError(f"{url}: there is no such file", hint="check the path of the table") from err
    return {key: str(info[key]) for key in VERSION_KEYS if info.get(key) is not None}


def download_bundle(url: str) -> str:
    """Return the local folder of a bundle; a bundle behind a URL is copied to a temporary folder.

    Raises:
        NotFoundError: The folder does not exist.
        DependencyError: The package for the scheme of the URL is not installed, or the scheme is unknown.
    """
    try:
        filesystem, path = resolve_url(url)
    except ConfigError as err:
        raise DependencyError(err.message) from err
    if not filesystem.exists(path):
        raise NotFoundError(f"{url}: there is no such bundle", hint="name the folder that holds bundle.json")
    if "file" in filesystem.protocol:
        return path
    folder = tempfile.mkdtemp(prefix="model-name-bundle-")
    filesystem.get(path.rstrip("/") + "/", folder + "/", recursive=True)
    return folder


@contextmanager
def atomic_write(url: str) -> Generator[IO[bytes]]:
    """Open a temporary file that replaces `url` when the block ends, and is removed if the block raises.

    Missing parent folders are created.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
    """
    filesystem, path = resolve_url(url)
    temporary = f"{path}.{os.getpid()}.part"
    with translate_write_errors(url):
        filesystem.makedirs(str(Path(path).parent), exist_ok=True)
        try:
            with filesystem.open(temporary, "wb") as file:
                yield file
            filesystem.mv(temporary, path)
        finally:
            if filesystem.exists(temporary):
                filesystem.rm(temporary)


@contextmanager
def translate_write_errors(url: str) -> Generator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says that `url` cannot be written.

    Raises:
        StorageError: The block raised an `OSError`.
    """
    with _translate_os_errors(lambda err: storage_error(url, err)):
        yield


@contextmanager
def translate_read_errors(url: str) -> Generator[None]:
    """Turn an `OSError` of the block into a `StorageError` that says that `url` cannot be read.

    Raises:
        StorageError: The block raised an `OSError`.
    """
    with _translate_os_errors(lambda err: StorageError(f"{url}: cannot be read: {err.strerror or err}")):
        yield


@contextmanager
def _translate_os_errors(to_storage_error: Callable[[OSError], StorageError]) -> Generator[None]:
    """Turn an `OSError` of the block into the error that `to_storage_error` makes of it."""
    try:
        yield
    except ModelNameError:  # PreemptedError, which a signal raises, is an OSError as well
        raise
    except OSError as err:
        raise to_storage_error(err) from err


def storage_error(url: str, err: OSError) -> StorageError:
    """Translate the error of a failed write; a `StorageError` is returned as it is."""
    if isinstance(err, StorageError):
        return err
    if err.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"{url}: the disk is full; nothing was left half-written", hint="free some space and run again"
        )
    return StorageError(f"{url}: cannot be written: {err.strerror or err}", hint="check the path and its permissions")
