"""Prediction log: buffering, sampling, dropped rows, failures of disks and stores, and closing."""

import json
import threading
import time
from functools import cache
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest

from model_name.core.schemas import Outputs
from model_name.errors import ConfigError
from model_name.serving.prediction_log import log as log_module
from model_name.serving.prediction_log.blocks import MAX_BLOCK_ROWS, LoggedBatch
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from tests.support.prediction_logs import DAY, NOON, ROW, batch, files, lines, manifest, schema, wait_for

SHORT_INTERVALS = {"flush_seconds": 0.02, "upload_seconds": 0.02}


@pytest.fixture
def open_log(tmp_path):
    """Create started logs by `open_log(url, key=..., **settings)`; they are closed after the test."""
    logs = []

    def start(url=tmp_path / "log", key=None, **settings):
        log = PredictionLog(LogSettings(url=str(url), **SHORT_INTERVALS | settings), slot="blue", key=key)
        log.start()
        logs.append(log)
        return log

    yield start
    for log in logs:
        log.close(10)


@pytest.fixture
def blocked_writer(monkeypatch):
    """Return two events, `is_writing` and `may_write`: the writer sets the first, and waits for the second."""
    is_writing, may_write = threading.Event(), threading.Event()
    write = log_module.JsonLinesWriter.write

    def wait_and_write(self, file):
        is_writing.set()
        may_write.wait(20)
        write(self, file)

    monkeypatch.setattr(log_module.JsonLinesWriter, "write", wait_and_write)
    yield is_writing, may_write
    may_write.set()


def many(rows, **changes):
    return batch([ROW] * rows, **changes)


@cache
def batch_of_one():
    return batch()


def test_rows_are_written_within_the_flush_interval(open_log, tmp_path):
    log = open_log()
    log.put(many(3))
    wait_for(lambda: log.written == 3)
    assert [record["inputs"] for record in lines(tmp_path)] == [{k: v for k, v in ROW.items() if k != "remark"}] * 3
    assert log.dropped == 0


def test_closing_writes_the_buffered_rows(open_log, tmp_path):
    log = open_log(flush_seconds=3600.0)
    for _ in range(100):
        log.put(many(5))
    log.close(10)
    assert (log.written, len(lines(tmp_path))) == (500, 500)
    log.put(many(2))
    assert (log.written, log.dropped) == (500, 2)
    log.close(10)


def test_closing_writes_a_backlog_without_regard_to_the_share_of_the_processor(open_log, tmp_path):
    # Given rows that take seconds of the processor, of which the log may use a twenty-fifth
    log = open_log(max_buffered_bytes=2**30)
    rows = [ROW] * 50_000
    large = batch(rows, sizes=[len(rows)])
    for _ in range(10):
        log._buffer.append(large, None, len(rows), 1.0)  # as `put`, without sampling
        log._unsettled_rows += len(rows)
    # When it is closed
    started = time.monotonic()
    log.close(60)
    # Then all of them are written in a fraction of that time
    assert (log.written, log.dropped, log.waiting) == (500_000, 0, 0)
    assert log.cpu_seconds / log_module.MAX_CPU_SHARE > 4 * (time.monotonic() - started)


def test_rows_beyond_the_rate_that_can_be_written_are_sampled_with_their_weights(
    open_log, tmp_path, blocked_writer, caplog
):
    # Given a log that cannot write, and a small buffer
    log = open_log(max_buffered_bytes=2**21)
    is_writing, may_write = blocked_writer
    log.put(batch())
    assert is_writing.wait(20)
    # When many more rows arrive than it can hold
    offered = 20_000
    probabilities = []
    for _ in range(offered):
        probabilities.append(log.probability)
        log.put(batch_of_one())
    # Then the probability has fallen step by step, no row is dropped, and the weighted sum of the rows is about theirs
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] == 1.0
    assert 2**-7 <= probabilities[-1] < 0.1
    assert log.dropped == 0
    may_write.set()
    wait_for(lambda: log.probability == 1.0)
    wait_for(lambda: "requests were sampled with a probability of" in caplog.text)
    log.close(20)
    weights = [record["weight"] for record in lines(tmp_path)]
    assert len(weights) == log.written < offered / 2
    assert sum(weights) == pytest.approx(offered, rel=0.25)  # six standard deviations


def test_concurrent_puts_lose_no_row(open_log, tmp_path):
    log = open_log()
    threads = [threading.Thread(target=lambda: [log.put(many(2)) for _ in range(50)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close(10)
    assert (log.written, log.dropped, len(lines(tmp_path))) == (800, 0, 800)


def test_a_request_larger_than_a_chunk_is_written_completely(open_log, tmp_path):
    log = open_log()
    rows = 3 * MAX_BLOCK_ROWS + 7
    log.put(many(rows, sizes=[5, rows - 5]))
    log.close(10)
    assert [record["row"] for record in lines(tmp_path)] == [*range(5), *range(rows - 5)]
    assert [record["outputs"]["prediction"] for record in lines(tmp_path)] == [row / 2 for row in range(rows)]


@pytest.mark.parametrize("sizes", [[1] * 40, [10] * 4], ids=["of one row", "of ten rows"])
def test_sampled_requests_are_logged_with_all_their_rows(open_log, tmp_path, sizes):
    log = open_log(sampling=0.25)
    logged = many(40, sizes=sizes)
    for _ in range(4000 // len(sizes)):
        log.put(logged)
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


def test_a_new_file_starts_by_size_by_day_and_by_version(open_log, tmp_path):
    log = open_log(max_file_bytes=2000)
    for day in range(2):
        for version in ("7", "8"):
            log.put(many(2, received_at=NOON + day * DAY, of=manifest(schema(), version)))
    log.close(10)
    assert {(file.parent.parent.name, file.parent.name) for file in files(tmp_path)} == {
        (day, version) for day in ("date=2025-06-21", "date=2025-06-22") for version in ("version=7", "version=8")
    }
    log = open_log(tmp_path / "other", max_file_bytes=1000)
    for rows in range(10, 110, 10):
        log.put(many(10))
        wait_for(lambda: log.written == rows)  # noqa: B023  called at once
    sizes = [file.stat().st_size for file in files(tmp_path / "other")]
    assert len(sizes) == 10
    assert all(size >= 1000 for size in sizes)
    assert len(lines(tmp_path / "other")) == 100


def test_no_sensitive_value_is_in_any_file(open_log, tmp_path):
    secrets = {"district": "Atlantis", "area": 61.4242, "sold": "1999-09-09T09:09:09", "remark": "call 0700"}
    table = schema(sensitive=list(secrets))
    keyed, keyless = open_log(tmp_path / "a", b"key", text_ids=True), open_log(tmp_path / "b", text_ids=True)
    for log in (keyed, keyless):
        log.put(batch([ROW | secrets] * 2, of=manifest(table)))
        log.close(10)
    written = b"".join(file.read_bytes() for file in files(tmp_path))
    assert len(lines(tmp_path)) == 4
    assert not [value for value in secrets.values() if str(value).encode() in written]
    one, other = lines(tmp_path / "a")
    assert one["inputs"] == other["inputs"]
    assert one["inputs"].keys() == ROW.keys()
    assert lines(tmp_path / "b")[0]["inputs"].keys() == ROW.keys() - secrets.keys()


@pytest.mark.parametrize("key", [None, b""], ids=["no key", "an empty key"])
def test_without_a_key_the_omitted_columns_are_logged_once(open_log, caplog, key):
    log = open_log(key=key)
    for version in ("7", "8", "7"):
        log.put(batch(of=manifest(schema(sensitive=["district"]), version)))
    log.close(10)
    assert [record.message for record in caplog.records if record.name == "model_name.predictions"] == [
        "prediction log: without a key, sensitive columns are left out: district"
    ]


def test_a_key_that_is_too_long_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match="the key of the prediction log has 65 bytes, 64 is the most"):
        PredictionLog(LogSettings(url=str(tmp_path)), slot="blue", key=b"x" * 65)


def test_a_batch_that_does_not_fit_is_dropped_and_counted(open_log, tmp_path, blocked_writer):
    log = open_log(max_buffered_rows=101, flush_seconds=0.01)  # one of them is being written
    drops = []
    log.on_drop = drops.append
    log.put(many(1))
    is_writing, may_write = blocked_writer
    assert is_writing.wait(20)
    for rows in (60, 60, 40, 1, 101):
        log.put(many(rows))
    assert (drops, log.dropped) == ([60, 1, 101], 162)
    may_write.set()
    log.close(10)
    assert (log.written, len(lines(tmp_path))) == (101, 101)


def test_closing_drops_the_remaining_rows_after_its_timeout(open_log, blocked_writer, caplog):
    log = open_log()
    log.put(many(5))
    started = time.monotonic()
    log.close(0.1)
    assert time.monotonic() - started < 5
    assert (log.written, log.dropped) == (0, 5)
    assert "closed with 5 rows unwritten" in caplog.text
    _, may_write = blocked_writer
    may_write.set()
    log._thread.join(10)
    assert (log.written, log.dropped) == (0, 5)


def test_a_log_that_never_started_counts_its_rows_as_dropped(tmp_path):
    log = PredictionLog(LogSettings(url=str(tmp_path)), slot="blue")
    log.put(many(5))
    log.close(1)
    assert log.dropped == 5


def test_a_path_that_cannot_be_written_drops_rows_and_fails_nothing(open_log, tmp_path, caplog):
    path = tmp_path / "log"
    path.write_text("a file where the folder should be")
    log = open_log(path)
    for _ in range(3):
        before = log.dropped
        log.put(many(2))
        wait_for(lambda: log.dropped == before + 2)  # noqa: B023  called at once
    path.unlink()
    log.put(many(4))
    wait_for(lambda: log.written == 4)
    assert log.dropped == 6
    warnings = [record.message for record in caplog.records if record.name == "model_name.predictions"]
    assert len(warnings) == 1  # one per minute
    assert f"prediction log {path}: 2 rows dropped so far: " in warnings[0]
    assert len(lines(path)) == 4


def test_a_full_disk_drops_rows_and_fails_nothing(open_log, tmp_path, caplog):
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
    wait_for(lambda: "No space left on device" in caplog.text)
    assert log.dropped == 2
    file.unlink()
    kept.rename(file)
    log.put(many(3))
    log.close(10)
    assert (log.written, log.dropped, len(lines(tmp_path))) == (4, 2, 4)


def test_any_exception_of_a_store_drops_rows_and_fails_nothing(open_log, monkeypatch):
    class GoneError(Exception):
        """Exception without a common base class."""

    url = f"memory://{uuid4().hex}"
    log = open_log(url)
    store = type(log._writer.filesystem)
    with monkeypatch.context() as patch:
        patch.setattr(store, "pipe_file", lambda *args, **kwargs: (_ for _ in ()).throw(GoneError("the store is gone")))
        log.put(many(2))
        wait_for(lambda: log.dropped == 2)
    log.put(many(3))
    log.close(10)
    assert (log.written, log.dropped) == (3, 2)


def test_a_batch_that_cannot_be_formatted_is_dropped_and_its_values_are_not_logged(open_log, caplog):
    log = open_log()
    broken = many(2)
    log.put(broken._replace(inputs={"district": np.array(["Atlantis"], object)}))
    wait_for(lambda: log.dropped == 2)
    log.put(many(3))
    log.close(10)
    assert (log.written, log.dropped, log.waiting) == (3, 2, 0)
    assert "2 rows dropped so far: ValueError in blocks.py, line " in caplog.text
    assert "Atlantis" not in caplog.text


def test_a_drop_callback_that_raises_does_not_make_put_raise(tmp_path):
    log = PredictionLog(LogSettings(url=str(tmp_path), max_buffered_rows=1), slot="blue")
    log.on_drop = lambda rows: 1 / 0
    log.put(many(2))
    assert log.dropped == 2


def test_a_store_gets_one_file_per_upload_and_the_rest_on_close(open_log):
    url = f"memory://{uuid4().hex}/log"
    log = open_log(url, upload_seconds=3600.0, max_file_bytes=1500)
    log.put(many(1))
    time.sleep(0.1)
    assert log.written == 0
    log.put(many(10))
    wait_for(lambda: log.written == 11)  # the file has reached its final size
    log.put(many(2))
    log.close(10)
    memory = fsspec.filesystem("memory")
    stored = [memory.cat(name).splitlines() for name in memory.find(url.removeprefix("memory:/"))]
    assert [[len(json.loads(line)["requests"]["id"]) for line in each] for each in stored] == [[1, 10], [2]]


def test_an_empty_batch_writes_nothing(open_log, tmp_path):
    log = open_log()
    log.put(LoggedBatch(manifest(schema()), (), (), {}, Outputs(np.empty(0)), 0.0))
    log.close(10)
    assert (log.written, log.dropped, files(tmp_path)) == (0, 0, [])
