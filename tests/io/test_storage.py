"""Files and folders, local or behind a URL."""

import os
from pathlib import Path

import fsspec
import pytest

from model_name.errors import ConfigError, DependencyError, NotFoundError, PreemptedError, StorageError
from model_name.io import storage
from model_name.io.storage import atomic_write, storage_error


@pytest.fixture(params=["local", "memory"])
def root(request, workplace):
    """Return the prefix of paths: the working directory, or a URL."""
    if request.param == "local":
        return f"{workplace}/"
    return f"memory://{workplace.name}-{os.urandom(4).hex()}/"


def write(url, content):
    with atomic_write(url) as file:
        file.write(content)
    return url


def test_a_written_file_exists_and_is_read_back(root):
    url = write(f"{root}folder/on/the/way/t.bin", b"new")
    assert (storage.exists(url), storage.exists(f"{root}other")) == (True, False)
    assert storage.read_bytes(url) == b"new"
    with storage.open_file(url, "rt", encoding="utf-8") as file:
        assert file.read() == "new"


def test_the_version_of_a_file_changes_with_its_content(root):
    url = write(f"{root}t.bin", b"old")
    before = storage.file_version(url)
    assert storage.file_version(url) == before
    write(url, b"newer")
    assert storage.file_version(url) != before
    assert before["size"] == "3"


def test_the_version_of_a_missing_file_is_not_found(root):
    with pytest.raises(NotFoundError, match="there is no such file"):
        storage.file_version(f"{root}t.bin")


def test_a_bundle_behind_a_url_is_copied_and_a_local_one_is_not(root):
    write(f"{root}bundle/bundle.json", b"{}")
    write(f"{root}bundle/deep/model.onnx", b"graph")
    folder = Path(storage.download_bundle(f"{root}bundle"))
    assert (folder / "deep" / "model.onnx").read_bytes() == b"graph"
    assert (str(folder) == f"{root}bundle") == (not root.startswith("memory"))


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        pytest.param("nowhere", NotFoundError, "nowhere: there is no such bundle", id="missing"),
        pytest.param("nope://a/b", DependencyError, "Protocol not known: nope", id="unknown scheme"),
    ],
)
def test_an_unusable_bundle_is_reported(workplace, url, error, message):
    with pytest.raises(error, match=message):
        storage.download_bundle(url)


@pytest.mark.parametrize("use", [storage.resolve_url, storage.file_version, lambda url: write(url, b"")])
def test_an_unknown_scheme_is_a_config_error(use):
    with pytest.raises(ConfigError, match="nope://a/b: Protocol not known: nope"):
        use("nope://a/b")


def fail(error):
    raise error


@pytest.mark.parametrize("translate", [storage.translate_read_errors, storage.translate_write_errors])
def test_signals_and_defects_are_not_translated(translate):
    for error in (PreemptedError("told to stop"), KeyboardInterrupt(), KeyError("bug")):
        with pytest.raises(type(error)) as caught, translate("t"):
            fail(error)
        assert caught.value is error


def test_read_errors_name_the_file():
    with pytest.raises(StorageError, match="t: cannot be read: Input/output error"), storage.translate_read_errors("t"):
        fail(OSError(5, "Input/output error"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(KeyError("bug"), KeyError, id="a bug"),
        pytest.param(KeyboardInterrupt(), KeyboardInterrupt, id="an interruption"),
        pytest.param(PreemptedError("told to stop"), PreemptedError, id="a preemption, also an OSError"),
        pytest.param(OSError(28, "No space left on device"), StorageError, id="a full disk"),
    ],
)
def test_a_failed_write_keeps_the_old_file_and_raises_the_error(root, error, expected):
    # given an existing file
    filesystem, path = fsspec.core.url_to_fs(f"{root}t.bin")
    filesystem.makedirs(str(Path(path).parent), exist_ok=True)
    filesystem.pipe_file(path, b"old")

    def overwrite():
        with atomic_write(f"{root}t.bin") as file:
            file.write(b"half")
            raise error

    # when replacing it fails
    with pytest.raises(expected):
        overwrite()
    # then only the old file exists
    assert filesystem.cat_file(path) == b"old"
    assert [Path(name).name for name in filesystem.ls(str(Path(path).parent), detail=False)] == ["t.bin"]


def test_storage_errors_are_not_wrapped_again():
    err = StorageError("full")
    assert storage_error("t", err) is err
    assert "the disk is full; nothing was left half-written" in storage_error("t", OSError(28, "x")).message
    assert storage_error("t", OSError(122, "quota")).hint == "free some space and run again"
