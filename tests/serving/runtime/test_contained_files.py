"""Files that are named by an untrusted text are read only inside their folder."""

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import DataError, ModelNameError, NotFoundError, StorageError
from model_name.serving.runtime.contained_files import MAX_LINKS, is_contained_name, read_contained_file

SECRET = b"secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with files, beside a file outside."""
    (tmp_path / "secret").write_bytes(SECRET)
    folder = tmp_path / "folder"
    (folder / "sub/deep").mkdir(parents=True)
    (folder / "file").write_bytes(b"content")
    (folder / "sub/deep/file").write_bytes(b"deep")
    return folder


def read(folder: Path, name: str, max_bytes: int = 100) -> bytes:
    return read_contained_file(folder, name, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("file", b"content", id="a file"),
        pytest.param("sub/deep/file", b"deep", id="a file of a subfolder"),
        pytest.param("link", b"content", id="a link to a file"),
        pytest.param("sub/up", b"content", id="a link upwards inside the folder"),
        pytest.param("..data/file", b"deep", id="a file of a linked folder"),
        pytest.param("mounted", b"deep", id="a link through a link, as in volumes of Kubernetes"),
    ],
)
def test_files_and_links_inside_the_folder_are_read(folder: Path, name: str, content: bytes) -> None:
    (folder / "link").symlink_to("file")
    (folder / "sub/up").symlink_to("../file")
    (folder / "..data").symlink_to("sub/deep")
    (folder / "mounted").symlink_to("..data/file")
    (folder.parent / "alias").symlink_to(folder)
    assert read(folder, name) == content
    assert read(folder.parent / "alias", name) == content


def bind_socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


def write_sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**40)


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        pytest.param(link("../secret"), DataError, "leaves the folder", id="a link outside"),
        pytest.param(link("/etc/hostname"), DataError, "leaves the folder", id="an absolute link"),
        pytest.param(link("../../" * 9 + "x"), DataError, "leaves the folder", id="a link to the root"),
        pytest.param(link("name"), DataError, "leaves the folder", id="a link to itself"),
        pytest.param(link("nothing"), NotFoundError, "is missing from the bundle", id="a link to nothing"),
        pytest.param(link("."), DataError, "is not a regular file", id="a link to the folder"),
        pytest.param(link("sub"), DataError, "is not a regular file", id="a link to a subfolder"),
        pytest.param(Path.mkdir, DataError, "is not a regular file", id="a folder"),
        pytest.param(os.mkfifo, DataError, "is not a regular file", id="a FIFO"),
        pytest.param(bind_socket, StorageError, "cannot be read", id="a socket"),
        pytest.param(lambda path: path.write_bytes(b"x" * 101), DataError, "has 101 bytes, more than 100", id="large"),
        pytest.param(write_sparse, DataError, "more than 100", id="a sparse file of 1 TB"),
        pytest.param(lambda path: None, NotFoundError, "is missing from the bundle", id="missing"),
    ],
)
def test_other_files_are_refused(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[Path], object],
    error: type[ModelNameError],
    reason: str,
) -> None:
    monkeypatch.chdir(folder)  # so that the path of the socket is short
    make(Path("name"))
    with pytest.raises(error, match=reason) as caught:
        read(folder, "name")
    assert str(folder / "name") in caught.value.message


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device without an end")
def test_a_device_is_refused() -> None:
    with pytest.raises(DataError, match="/dev/zero: is not a regular file"):
        read(Path("/dev"), "zero")


def test_a_subfolder_that_is_a_link_outside_is_refused(folder: Path) -> None:
    (folder / "out").symlink_to("..")
    with pytest.raises(DataError, match="is a link that leaves the folder"):
        read(folder, "out/secret")


def test_a_chain_of_links_is_bounded(folder: Path) -> None:
    for number in range(MAX_LINKS + 1):
        (folder / f"link{number}").symlink_to(f"link{number - 1}" if number else "file")
    assert read(folder, f"link{MAX_LINKS - 1}") == b"content"
    with pytest.raises(DataError, match="leaves the folder"):
        read(folder, f"link{MAX_LINKS}")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux tells what a process has opened")
def test_no_descriptor_stays_open(folder: Path) -> None:
    (folder / "out").symlink_to("..")
    for name in ("sub/deep/file", "out/secret", "sub/nothing", "sub"):
        with suppress(ModelNameError):
            read(folder, name)
    descriptors = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
    assert not any(path.startswith(str(folder.parent)) for path in descriptors)


@given(
    st.lists(st.sampled_from(["..", ".", "", "file", "sub", "deep", "secret", "out", "\\", "\0", "..data"])).map(
        "/".join
    )
    | st.text()
)
def test_no_name_leads_outside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    outside = tmp_path_factory.getbasetemp() / "outside"
    folder = outside / "folder"
    if not folder.exists():
        (folder / "sub/deep").mkdir(parents=True)
        (outside / "secret").write_bytes(SECRET)
        (folder / "out").symlink_to("..")
        (folder / "..data").symlink_to("sub")
        (folder / "file").write_bytes(b"content")
    with suppress(ModelNameError):
        assert read(folder, name) == b"content"
    assert not is_contained_name(name) or ".." not in name.split("/")
