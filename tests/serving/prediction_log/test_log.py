import threading
import time
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest

from model_name.core.schemas import Outputs
from model_name.errors import ConfigError
from model_name.serving.prediction_log import log as log_module
from model_name.serving.prediction_log.formatter import RecordFormatter, split_rows
from model_name.serving.prediction_log.log import LoggedBatch, LogSettings, PredictionLog
from tests.support.prediction_logs import DAY, NOON, ROW, batch, files, lines, manifest, schema, wait_for

SOON = {"flush_seconds": 0.02, "upload_seconds": 0.02}


@pytest.fixture
def open_log(tmp_path):
    """`open_log(url, key=..., **settings)`: a started log that is closed in the end."""
    logs = []

    def start(url=tmp_path / "log", key=None, **settings):
        log = PredictionLog(LogSettings(url=str(url), **SOON | settings), slot="blue", key=key)
        log.start()
        logs.append(log)
        return log

    yield start
    for log in logs:
        log.close(10)


@pytest.fixture
def blocked(monkeypatch):
    """`arrived, may_go`: the writer sets the one when it comes to write, and then waits for the other."""
    arrived, may_go = threading.Event(), threading.Event()
    write = log_module.JsonLinesWriter.write

    def wait_and_write(self, part):
        arrived.set()
        may_go.wait(20)
        write(self, part)

    monkeypatch.setattr(log_module.JsonLinesWriter, "write", wait_and_write)
    yield arrived, may_go
    may_go.set()


def many(rows, **changes):
    return batch([ROW] * rows, **changes)


def test_what_was_answered_is_written_within_the_time_of_a_flush(open_log, tmp_path):
    log = open_log()
    log.put(many(3))
    wait_for(lambda: log.written == 3)
    assert [record["inputs"] for record in lines(tmp_path)] == [{k: v for k, v in ROW.items() if k != "remark"}] * 3
    assert log.dropped == 0


def test_closing_writes_what_waits(open_log, tmp_path):
    log = open_log(flush_seconds=3600.0)
    for _ in range(100):
        log.put(many(5))
    log.close(10)
    assert (log.written, len(lines(tmp_path))) == (500, 500)
    log.put(many(2))
    assert (log.written, log.dropped) == (500, 2)
    log.close(10)


def test_many_threads_lose_nothing(open_log, tmp_path):
    log = open_log()
    threads = [threading.Thread(target=lambda: [log.put(many(2)) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close(10)
    assert (log.written, log.dropped, len(lines(tmp_path))) == (800, 0, 800)


def test_a_request_larger_than_a_stretch_is_written_whole(open_log, tmp_path):
    log = open_log()
    rows = 3 * log_module.CHUNK_ROWS + 7
    log.put(many(rows, sizes=[5, rows - 5]))
    log.close(10)
    assert [record["row"] for record in lines(tmp_path)] == [*range(5), *range(rows - 5)]
    assert [record["outputs"]["prediction"] for record in lines(tmp_path)] == [row / 2 for row in range(rows)]


@pytest.mark.parametrize("sizes", [[1] * 40, [10] * 4], ids=["of one row", "of ten rows"])
def test_a_share_of_the_requests_is_logged_each_of_them_whole(open_log, tmp_path, sizes):
    log = open_log(sampling=0.25)
    answered = many(40, sizes=sizes)
    for _ in range(4000 // len(sizes)):
        log.put(answered)
    log.close(10)
    share = log.written / (40 * (4000 // len(sizes)))
    assert 0.25 - 0.04 < share < 0.25 + 0.04  # six standard deviations of 4000 draws
    assert log.dropped == 0
    records = lines(tmp_path)
    assert len(records) == log.written
    assert sum(record["row"] == 0 for record in records) * sizes[0] == len(records)


def test_a_sampling_of_zero_logs_nothing(open_log, tmp_path):
    log = open_log(sampling=0.0)
    log.put(many(100))
    log.close(10)
    assert (log.written, log.dropped, files(tmp_path)) == (0, 0, [])


def test_files_end_by_size_by_day_and_by_version(open_log, tmp_path):
    log = open_log(max_file_bytes=2000)
    for day in range(2):
        for version in ("7", "8"):
            log.put(many(2, received=NOON + day * DAY, of=manifest(schema(), version)))
    log.close(10)
    assert {(file.parent.parent.name, file.parent.name) for file in files(tmp_path)} == {
        (day, version) for day in ("date=2025-06-21", "date=2025-06-22") for version in ("version=7", "version=8")
    }
    log = open_log(tmp_path / "other", max_file_bytes=2000)
    for rows in range(10, 110, 10):
        log.put(many(10))
        wait_for(lambda: log.written == rows)  # noqa: B023  called at once
    sizes = [file.stat().st_size for file in files(tmp_path / "other")]
    assert len(sizes) == 10
    assert all(size >= 2000 for size in sizes)
    assert len(lines(tmp_path / "other")) == 100


def test_no_sensitive_value_is_in_any_file(open_log, tmp_path):
    secrets = {"district": "Atlantis", "area": 61.4242, "sold": "1999-09-09T09:09:09", "remark": "call 0700"}
    table = schema(sensitive=list(secrets))
    keyed, keyless = open_log(tmp_path / "a", b"key", text_ids=True), open_log(tmp_path / "b", text_ids=True)
    for log in (keyed, keyless):
        log.put(batch([ROW | secrets] * 2, of=manifest(table)))
        log.close(10)
    written = b"".join(file.read_bytes() for file in files(tmp_path))
    assert len(written.splitlines()) == 4
    assert not [value for value in secrets.values() if str(value).encode() in written]
    one, other = lines(tmp_path / "a")
    assert one["inputs"] == other["inputs"]
    assert one["inputs"].keys() == ROW.keys()
    assert lines(tmp_path / "b")[0]["inputs"].keys() == ROW.keys() - secrets.keys()


@pytest.mark.parametrize("key", [None, b""], ids=["no key", "an empty key"])
def test_without_a_key_the_log_says_once_what_is_left_out(open_log, caplog, key):
    log = open_log(key=key)
    for version in ("7", "8", "7"):
        log.put(batch(of=manifest(schema(sensitive=["district"]), version)))
    log.close(10)
    assert [record.message for record in caplog.records if record.name == "model_name.predictions"] == [
        "prediction log: without a key, sensitive columns are left out: district"
    ]


def test_a_key_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the key of the prediction log has 65 bytes, 64 is the most"):
        PredictionLog(LogSettings(url=str(tmp_path)), slot="blue", key=b"x" * 65)


def test_a_batch_that_does_not_fit_is_dropped_and_counted(open_log, tmp_path, blocked):
    log = open_log(max_buffered_rows=100, flush_seconds=0.01)
    drops = []
    log.on_drop = drops.append
    log.put(many(1))
    arrived, may_go = blocked
    assert arrived.wait(20)
    for rows in (60, 60, 40, 1, 101):
        log.put(many(rows))
    assert (drops, log.dropped) == ([60, 1, 101], 162)
    may_go.set()
    log.close(10)
    assert (log.written, len(lines(tmp_path))) == (101, 101)


def test_closing_gives_up_when_its_time_is_over(open_log, blocked, caplog):
    log = open_log()
    log.put(many(5))
    started = time.monotonic()
    log.close(0.1)
    assert time.monotonic() - started < 5
    assert (log.written, log.dropped) == (0, 5)
    assert "closed with 5 rows unwritten" in caplog.text
    _, may_go = blocked
    may_go.set()
    log._thread.join(10)
    assert (log.written, log.dropped) == (0, 5)


def test_a_log_that_never_started_counts_what_it_was_given(tmp_path):
    log = PredictionLog(LogSettings(url=str(tmp_path)), slot="blue")
    log.put(many(5))
    log.close(1)
    assert log.dropped == 5


def test_a_place_that_cannot_be_written_costs_rows_and_nothing_else(open_log, tmp_path, caplog):
    place = tmp_path / "log"
    place.write_text("a file where the folder should be")
    log = open_log(place)
    for _ in range(3):
        before = log.dropped
        log.put(many(2))
        wait_for(lambda: log.dropped == before + 2)  # noqa: B023  called at once
    place.unlink()
    log.put(many(4))
    wait_for(lambda: log.written == 4)
    assert log.dropped == 6
    warnings = [record.message for record in caplog.records if record.name == "model_name.predictions"]
    assert len(warnings) == 1  # a minute
    assert f"prediction log {place}: 2 rows dropped so far: " in warnings[0]
    assert len(lines(place)) == 4


def test_a_full_disk_costs_rows_and_nothing_else(open_log, tmp_path, caplog):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    log = open_log()
    log.put(many(1))
    wait_for(lambda: log.written == 1)
    [file] = files(tmp_path)
    kept = file.rename(tmp_path / "kept")
    file.symlink_to(full)
    log.put(many(2))
    wait_for(lambda: log.dropped == 2)
    assert "No space left on device" in caplog.text
    file.unlink()
    kept.rename(file)
    log.put(many(3))
    log.close(10)
    assert (log.written, log.dropped, len(lines(tmp_path))) == (4, 2, 4)


def test_a_store_may_raise_what_it_likes(open_log, monkeypatch):
    class GoneError(Exception):
        """Of no base that anyone knows."""

    url = f"memory://{uuid4().hex}"
    log = open_log(url)
    store = type(log._files.filesystem)
    with monkeypatch.context() as patch:
        patch.setattr(store, "pipe_file", lambda *args, **kwargs: (_ for _ in ()).throw(GoneError("the store is gone")))
        log.put(many(2))
        wait_for(lambda: log.dropped == 2)
    log.put(many(3))
    log.close(10)
    assert (log.written, log.dropped) == (3, 2)


def test_a_batch_that_cannot_be_formatted_costs_its_rows_alone_and_shows_no_value(open_log, caplog):
    log = open_log()
    broken = many(2)
    log.put(
        LoggedBatch(broken.manifest, {"district": np.array(["Atlantis"], object)}, broken.outputs, broken.requests)
    )
    wait_for(lambda: log.dropped == 2)
    log.put(many(3))
    log.close(10)
    assert (log.written, log.dropped) == (3, 2)
    assert "2 rows dropped so far: ValueError in records.py, line " in caplog.text
    assert "Atlantis" not in caplog.text


def test_a_hook_that_raises_fails_no_request(tmp_path):
    log = PredictionLog(LogSettings(url=str(tmp_path), max_buffered_rows=1), slot="blue")
    log.on_drop = lambda rows: 1 / 0
    log.put(many(2))
    assert log.dropped == 2


def test_a_store_gets_a_file_an_upload_and_the_rest_at_the_close(open_log):
    url = f"memory://{uuid4().hex}/log"
    log = open_log(url, upload_seconds=3600.0, max_file_bytes=2000)
    log.put(many(1))
    time.sleep(0.1)
    assert log.written == 0
    log.put(many(10))
    wait_for(lambda: log.written == 11)  # by its size
    log.put(many(2))
    log.close(10)
    memory = fsspec.filesystem("memory")
    found = memory.find(url.removeprefix("memory:/"))
    assert [len(memory.cat(name).splitlines()) for name in found] == [11, 2]


def test_an_empty_batch_is_nothing(open_log, tmp_path):
    log = open_log()
    log.put(LoggedBatch(manifest(schema()), {}, Outputs(np.empty(0)), ()))
    log.close(10)
    assert (log.written, log.dropped, files(tmp_path)) == (0, 0, [])


@pytest.mark.parametrize("sampling", [1.0, 0.25])
def test_to_log_a_batch_leaves_the_work_to_the_writer(tmp_path, sampling):
    # given a batch of many requests
    log = PredictionLog(LogSettings(url=str(tmp_path), sampling=sampling, max_buffered_rows=10**9), slot="blue")
    answered = many(32)
    records = RecordFormatter(answered.manifest, slot="blue", key=None, text_ids=False)
    # then to put it in the log takes a small part of the time in which it is formatted
    formatting = quickest(lambda: records.lines([*split_rows(answered, answered.requests, 1000)]))
    assert quickest(lambda: log.put(answered)) < formatting / 5


def quickest(call):
    """Seconds, of the quickest of many calls."""
    times = []
    for _ in range(200):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)
