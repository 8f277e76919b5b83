import errno
import os
import resource
from uuid import uuid4

import fsspec
import pytest

from model_name.errors import ConfigError, DependencyError
from model_name.serving.prediction_log.log_files import BLOCK_BYTES, JsonLinesWriter
from tests.support.prediction_logs import files

DAY = "2025-06-21"


def log(url, max_file_bytes=10**6):
    return JsonLinesWriter(str(url), max_file_bytes=max_file_bytes)


@pytest.fixture
def small_files():
    """No file may grow beyond 1000 bytes, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write(to, text, day=DAY, version="7"):
    part = to.add(day, version, text, text.count(b"\n"))
    to.write(part)
    part.rows = 0  # as the log does with rows that are settled
    return part


def test_a_local_file_grows(tmp_path):
    to = log(tmp_path / "deep" / "log")
    write(to, b"one\n")
    write(to, b"two\n")
    [file] = files(tmp_path)
    assert file.read_bytes() == b"one\ntwo\n"
    assert file.parent == tmp_path / "deep" / "log" / f"date={DAY}" / "version=7"
    assert file.match(f"*-{os.getpid()}-*-0000.jsonl")


def test_a_file_that_is_full_ends(tmp_path):
    to = log(tmp_path, max_file_bytes=8)
    for text in (b"one\n", b"two\n", b"three\n"):
        write(to, text)
    assert [file.read_bytes() for file in files(tmp_path)] == [b"one\ntwo\n", b"three\n"]


@pytest.mark.parametrize("other", [{"day": "2025-06-22"}, {"version": "8"}], ids=["another day", "another version"])
def test_days_and_versions_have_files_of_their_own(tmp_path, other):
    to = log(tmp_path)
    write(to, b"one\n")
    write(to, b"two\n", **other)
    assert sorted(file.read_bytes() for file in files(tmp_path)) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("version", ["../../up", "a/b", "..", "", "a*[b]?", "\0", "ü %"])
def test_no_version_leaves_its_folder(tmp_path, version):
    write(log(tmp_path / "log"), b"one\n", version=version)
    [file] = files(tmp_path)
    assert file.parent.parent == tmp_path / "log" / f"date={DAY}"
    assert file.parent.name.startswith("version=")


def test_only_what_waits_is_written_and_what_is_idle_ends(tmp_path):
    to = log(tmp_path)
    write(to, b"one\n")
    assert to.parts() == []
    assert to.add(DAY, "7", b"two\n", 1).size == len(b"one\n")  # a pause ends no file
    write(to, b"", version="8")
    assert [part.rows for part in to.parts()] == [1]
    write(to, b"")
    write(to, b"new\n", version="8")
    assert to.parts() == []
    assert to.add(DAY, "7", b"", 0).size == 0


def test_what_a_full_disk_took_a_part_of_is_taken_back(tmp_path, small_files):
    to = log(tmp_path)
    write(to, b"a" * 599 + b"\n")
    part = to.add(DAY, "7", b"b" * 599 + b"\n", 1)
    with pytest.raises(OSError) as raised:
        to.write(part)
    assert raised.value.errno == errno.EFBIG
    [file] = files(tmp_path)
    assert file.stat().st_size == 600
    small_files()
    write(to, b"c\n")
    assert file.read_bytes() == b"a" * 599 + b"\nc\n"


def test_a_block_of_a_local_file_is_due_and_a_store_waits_for_more(tmp_path):
    here, far = log(tmp_path), log(f"memory://{uuid4().hex}")
    block = b"x" * (BLOCK_BYTES - 1)
    assert not here.is_due(here.add(DAY, "7", block, 1))
    assert here.is_due(here.add(DAY, "7", b"\n", 0))
    assert not far.is_due(far.add(DAY, "7", block + b"\n", 1))
    assert far.is_due(far.add(DAY, "7", b"x" * 10**6, 1))


def test_each_upload_is_a_file_of_its_own():
    url = f"memory://{uuid4().hex}/log"
    to = log(url)
    write(to, b"one\n")
    write(to, b"two\n")
    found = fsspec.filesystem("memory").find(url.removeprefix("memory:/"))
    assert [fsspec.filesystem("memory").cat(name) for name in found] == [b"one\n", b"two\n"]


def test_a_store_with_real_folders_gets_them(tmp_path):
    to = log(f"dir::file://{tmp_path}/log")
    assert not to.is_local
    write(to, b"one\n")
    assert len(files(tmp_path)) == 1


def test_a_url_of_a_file_is_a_local_folder(tmp_path):
    to = log(f"file://{tmp_path}/log")
    assert to.is_local
    write(to, b"one\n")
    assert len(files(tmp_path / "log")) == 1


@pytest.mark.parametrize(
    ("url", "error"),
    [
        pytest.param("nowhere://x", ConfigError, id="no such kind of URL"),
        pytest.param("oss://bucket/log", DependencyError, id="a package that is not installed"),
    ],
)
def test_a_url_that_nothing_can_be_written_to_is_refused_at_the_start(url, error):
    with pytest.raises(error, match=url):
        log(url)
