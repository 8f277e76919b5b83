"""Folders, local or behind an fsspec URL."""

import tempfile

import fsspec

from model_name.errors import DependencyError, NotFoundError


def download_bundle(place: str) -> str:
    """A bundle's local folder; one behind a URL is copied.

    Raises:
        NotFoundError: It is not there.
        DependencyError: The package for its URL is missing.
    """
    try:
        filesystem, path = fsspec.core.url_to_fs(place)
    except (ImportError, ValueError) as err:  # a store whose package is not installed, or one that there is not
        raise DependencyError(f"{place}: {err}") from err
    if not filesystem.exists(path):
        raise NotFoundError(f"{place}: there is no such bundle", hint="name the folder that holds bundle.json")
    if "file" in filesystem.protocol:
        return str(path)
    folder = tempfile.mkdtemp(prefix="model-name-bundle-")
    filesystem.get(path.rstrip("/") + "/", folder + "/", recursive=True)
    return folder
