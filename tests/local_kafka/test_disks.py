"""A full log directory."""

import shutil
from contextlib import ExitStack

import pytest
from kafka.errors import KafkaError

from local_kafka.disks import Disk
from model_name.errors import StorageError
from tests.support.kafka_cluster import fast_cluster, read_values, send_values

SIZE_MB = 32
LONG = 2**16


@pytest.fixture
def cluster():
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(fast_cluster(disk_mb=SIZE_MB))
        except StorageError as error:
            pytest.skip(error.message)
        yield cluster


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk", 1)
    try:
        disk.mount()
    except StorageError as error:
        pytest.skip(error.message)
    yield disk
    disk.unmount()
    assert not disk.folder.is_mount()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_with_a_full_disk_exits_and_keeps_its_records(cluster):
    cluster.create_topic("rows")
    send_values(cluster.client_options(), "rows", [b"kept"])
    cluster.fill()
    short_timeouts = cluster.client_options() | {"delivery_timeout_ms": 5000, "request_timeout_ms": 4000}
    with pytest.raises(KafkaError):
        send_values(short_timeouts, "rows", [bytes(LONG)])
    node = cluster.nodes[1]
    node.process.wait(30)
    assert "No space left on device" in node.log.read_text()
    cluster.free()
    cluster.start()
    send_values(cluster.client_options(), "rows", [b"later"])
    assert read_values(cluster.client_options(), "rows", 2) == [b"kept", b"later"]


def test_a_filled_disk_has_no_free_byte(disk):
    disk.fill()
    assert shutil.disk_usage(disk.folder).free == 0
    with pytest.raises(OSError, match="No space left"):
        (disk.folder / "more").write_bytes(b"1")
    disk.free()
    assert shutil.disk_usage(disk.folder).used == 0


def test_a_failed_mount_reports_the_reason(tmp_path, monkeypatch):
    refusing = tmp_path / "mount"
    refusing.write_text("#!/bin/sh\necho 'mount: must be superuser' >&2; exit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StorageError, match="must be superuser"):
        Disk(tmp_path / "disk", 1).mount()
