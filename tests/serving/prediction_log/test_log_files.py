"""Files of the prediction log: local files that grow, uploads, names, and full disks."""

import errno
import os
import resource
import threading
from uuid import uuid4

import fsspec
import pytest

from model_name.errors import ConfigError, DependencyError
from model_name.serving.prediction_log import log_files
from model_name.serving.prediction_log.log_files import CHECK_NAME, MAX_UPLOAD_BYTES, JsonLinesWriter
from tests.support.prediction_logs import files

DAY = "2025-06-21"


def open_writer(url, max_file_bytes=10**6):
    return JsonLinesWriter(str(url), max_file_bytes=max_file_bytes)


@pytest.fixture
def small_files():
    """Limit the size of files to 1000 bytes, as if the disk were full then; returns a function that lifts the limit."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(writer, text, day=DAY, version="7"):
    file = writer.add(day, version, text, text.count(b"\n"))
    writer.write(file)
    file.rows = 0  # as the log does after a write
    return file


def test_a_local_file_grows(tmp_path):
    writer = open_writer(tmp_path / "deep" / "log")
    write(writer, b"one\n")
    write(writer, b"two\n")
    [file] = files(tmp_path)
    assert file.read_bytes() == b"one\ntwo\n"
    assert file.parent == tmp_path / "deep" / "log" / f"date={DAY}" / "version=7"
    assert file.match(f"*-{os.getpid()}-*-0000.jsonl")


def test_a_new_file_starts_when_one_is_full(tmp_path):
    writer = open_writer(tmp_path, max_file_bytes=8)
    for text in (b"one\n", b"two\n", b"three\n"):
        write(writer, text)
    assert [file.read_bytes() for file in files(tmp_path)] == [b"one\ntwo\n", b"three\n"]


@pytest.mark.parametrize("other", [{"day": "2025-06-22"}, {"version": "8"}], ids=["another day", "another version"])
def test_each_day_and_version_has_its_own_file(tmp_path, other):
    writer = open_writer(tmp_path)
    write(writer, b"one\n")
    write(writer, b"two\n", **other)
    assert sorted(file.read_bytes() for file in files(tmp_path)) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("version", ["../../up", "a/b", "..", "", "a*[b]?", "\0", "ü %"])
def test_no_version_escapes_its_folder(tmp_path, version):
    write(open_writer(tmp_path / "log"), b"one\n", version=version)
    [file] = files(tmp_path)
    assert file.parent.parent == tmp_path / "log" / f"date={DAY}"
    assert file.parent.name.startswith("version=")


def test_only_buffered_files_are_written_and_idle_ones_end(tmp_path):
    writer = open_writer(tmp_path)
    write(writer, b"one\n")
    assert writer.buffered_files() == []
    assert writer.add(DAY, "7", b"two\n", 1).size == len(b"one\n")  # a pause of all traffic ends no file
    write(writer, b"", version="8")
    assert [file.rows for file in writer.buffered_files()] == [1]
    write(writer, b"")
    write(writer, b"new\n", version="8")
    assert writer.buffered_files() == []
    assert writer.add(DAY, "7", b"", 0).size == 0


def test_a_partial_write_to_a_full_disk_is_truncated(tmp_path, small_files):
    writer = open_writer(tmp_path)
    write(writer, b"a" * 599 + b"\n")
    log_file = writer.add(DAY, "7", b"b" * 599 + b"\n", 1)
    with pytest.raises(OSError) as raised:
        writer.write(log_file)
    assert raised.value.errno == errno.EFBIG
    [file] = files(tmp_path)
    assert file.stat().st_size == 600
    small_files()
    write(writer, b"c\n")
    assert file.read_bytes() == b"a" * 599 + b"\nc\n"


def test_a_local_file_is_due_with_each_block_and_a_store_with_a_full_file(tmp_path):
    local, remote = open_writer(tmp_path), open_writer(f"memory://{uuid4().hex}")
    assert local.is_due(local.add(DAY, "7", b"x\n", 1))
    assert not remote.is_due(remote.add(DAY, "7", b"x" * (10**6 - 1), 1))
    assert remote.is_due(remote.add(DAY, "7", b"x", 1))


def test_a_store_gets_files_of_limited_size_because_they_are_held_in_memory():
    remote = open_writer(f"memory://{uuid4().hex}", max_file_bytes=10**12)
    assert not remote.is_due(remote.add(DAY, "7", b"x" * (MAX_UPLOAD_BYTES - 1), 1))
    assert remote.is_due(remote.add(DAY, "7", b"x", 1))


def test_each_upload_is_one_file():
    url = f"memory://{uuid4().hex}/log"
    writer = open_writer(url)
    write(writer, b"one\n")
    write(writer, b"two\n")
    names = fsspec.filesystem("memory").find(url.removeprefix("memory:/"))
    assert [fsspec.filesystem("memory").cat(name) for name in names] == [b"one\n", b"two\n"]


def test_folders_are_created_in_a_store_that_has_them(tmp_path):
    writer = open_writer(f"dir::file://{tmp_path}/log")
    assert not writer.is_local
    write(writer, b"one\n")
    assert len(files(tmp_path)) == 1


def test_a_file_url_is_a_local_folder(tmp_path):
    writer = open_writer(f"file://{tmp_path}/log")
    assert writer.is_local
    write(writer, b"one\n")
    assert len(files(tmp_path / "log")) == 1


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("nowhere://x", ConfigError, id="an unsupported scheme"),
        pytest.param("oss://bucket/log", DependencyError, id="a package that is not installed"),
    ],
)
def test_an_unsupported_url_is_rejected_at_start(url, error):
    with pytest.raises(error, match=url):
        open_writer(url)


def test_a_writable_folder_or_store_passes_the_check_and_gets_no_file(tmp_path):
    open_writer(tmp_path / "deep" / "log").check_writable()
    assert [*(tmp_path / "deep" / "log").iterdir()] == []
    url = f"memory://{uuid4().hex}/log"
    open_writer(url).check_writable()
    assert fsspec.filesystem("memory").find(url.removeprefix("memory:/")) == []


@pytest.mark.parametrize("scheme", ["", "dir::file://"], ids=["a local folder", "a store"])
def test_a_folder_that_cannot_be_created_is_an_error_at_start(tmp_path, scheme):
    (tmp_path / "log").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=f"prediction log {tmp_path}/log: cannot be written: ") as raised:
        open_writer(f"{scheme}{tmp_path}/log").check_writable()
    assert "name a folder or bucket" in raised.value.hint


class UnreachableError(Exception):
    """Exception of a store that cannot be reached."""


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        pytest.param(UnreachableError("no route"), "UnreachableError: no route", id="an exception of its client"),
        pytest.param(ConnectionRefusedError("refused"), "ConnectionRefusedError: refused", id="a refused connection"),
        pytest.param(None, "TimeoutError: no answer for 0.01 s", id="no answer"),
    ],
)
def test_a_store_that_cannot_be_reached_at_start_is_logged(monkeypatch, caplog, failure, message):
    writer = open_writer(f"memory://{uuid4().hex}/log")
    may_end = threading.Event()

    def fail(path, content):
        assert path.endswith(CHECK_NAME)
        if failure is None:
            may_end.wait(20)
        else:
            raise failure

    monkeypatch.setattr(writer.filesystem, "pipe_file", fail)
    monkeypatch.setattr(log_files, "CHECK_SECONDS", 0.01 if failure is None else 20)
    writer.check_writable()
    may_end.set()
    assert [record.message.partition("cannot be checked, ")[2] for record in caplog.records] == [message]


def test_a_store_that_denies_access_is_an_error_at_start(monkeypatch):
    writer = open_writer(f"memory://{uuid4().hex}/log")

    def fail(path, content):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(writer.filesystem, "pipe_file", fail)
    with pytest.raises(ConfigError, match="cannot be written: Access Denied"):
        writer.check_writable()
