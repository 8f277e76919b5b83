"""Reload of a new bundle, and the model repository extension."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry

from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.bundle import BUNDLE_FILES
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.model_repository import BundleReloader, ModelRepository, ModelSource
from model_name.serving.request_errors import ModelNotLoadedError, UnsupportedOperationError
from model_name.serving.runtime.file_signature import file_signature
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState
from tests.support.clients import post_v1
from tests.support.manifests import manifest_of, plane_of, table_of

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer
    from tests.support.tables import Row


def fill(directory: Path, text: str = "one") -> None:
    for name in BUNDLE_FILES:
        (directory / name).write_text(text, encoding="utf-8")


# The file signature


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.write_text("longer", encoding="utf-8"), id="another size"),
        pytest.param(lambda file: os.utime(file, ns=(1, 1)), id="another time"),
        pytest.param(lambda file: file.unlink(), id="deleted"),
        pytest.param(lambda file: Path(shutil.copy2(file, f"{file}2")).replace(file), id="another file"),
    ],
)
@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_a_file_signature_changes_with_a_file(tmp_path: Path, name: str, change: Any) -> None:
    fill(tmp_path)
    before = file_signature(tmp_path, BUNDLE_FILES)
    assert file_signature(tmp_path, BUNDLE_FILES) == before
    change(tmp_path / name)
    assert file_signature(tmp_path, BUNDLE_FILES) != before


def test_a_file_signature_ignores_other_files_and_a_missing_folder(tmp_path: Path) -> None:
    fill(tmp_path)
    before = file_signature(tmp_path, BUNDLE_FILES)
    (tmp_path / "note.txt").write_text("x", encoding="utf-8")
    assert file_signature(tmp_path, BUNDLE_FILES) == before
    assert file_signature(tmp_path / "nowhere", BUNDLE_FILES) == ()


# Reloading


class WatchedBundle:
    """A directory that is watched, without a real bundle.

    Attributes:
        version: Version of the bundle that is loaded next; None for a broken bundle. The first one is 7.
        loads: Number of loads.
    """

    def __init__(self, directory: Path, seconds: float) -> None:
        fill(directory)
        self.directory = directory
        self.version: str | None = "7"
        self.loads = 0
        self.metrics = ServerMetrics("", CollectorRegistry())
        self.source = ModelSource(directory, self.load)
        self.batcher = AdaptiveBatcher(self.source.load(), Limits())
        self.version, self.loads = "8", 0
        self.reloader = BundleReloader(self.source, self.batcher, self.metrics, interval_seconds=seconds)

    def load(self, directory: Path) -> DataPlane:
        self.loads += 1
        if self.version is None:
            raise DataError("the bundle is broken")
        return plane_of(manifest_of(table_of(), version=self.version, name="another"))

    def reload_if_changed(self) -> None:
        asyncio.run(self.reloader.reload_if_changed())

    @property
    def served(self) -> str:
        return self.batcher.plane.bundle.manifest.version

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("model_name_bundle_loads_total", {"result": result}) or 0.0


@pytest.fixture
def make_watched(tmp_path: Path) -> Iterator[Any]:
    """Factory of watched bundles."""
    bundles: list[WatchedBundle] = []

    def make(seconds: float = 1e-9) -> WatchedBundle:
        bundles.append(WatchedBundle(tmp_path, seconds))
        return bundles[-1]

    yield make
    for watched in bundles:
        watched.batcher.close()


def test_an_unchanged_bundle_is_not_reloaded(make_watched: Any) -> None:
    watched = make_watched()
    watched.reload_if_changed()
    assert (watched.loads, watched.served) == (0, "7")


def test_a_changed_bundle_is_reloaded_once(make_watched: Any) -> None:
    watched = make_watched()
    fill(watched.directory, "other")
    watched.reload_if_changed()
    watched.reload_if_changed()
    assert (watched.loads, watched.served, watched.count("loaded"), watched.count("refused")) == (1, "8", 1.0, 0.0)
    (info,) = [
        sample
        for family in watched.metrics.registry.collect()
        for sample in family.samples
        if sample.name.endswith("_info")
    ]
    assert info.labels["version"] == "8"


def test_a_broken_bundle_is_tried_once_and_again_after_a_change(
    make_watched: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    watched = make_watched()
    watched.version = None
    fill(watched.directory, "broken")
    # when
    for _ in range(3):
        watched.reload_if_changed()
    # then
    assert (watched.loads, watched.served, watched.count("refused")) == (1, "7", 1.0)
    assert caplog.messages == ["the new bundle is refused, version 7 stays in service: the bundle is broken"]
    # when
    watched.version = "9"
    fill(watched.directory, "mended, at last")
    watched.reload_if_changed()
    # then
    assert (watched.loads, watched.served) == (2, "9")


@pytest.mark.parametrize("seconds", [pytest.param(0, id="disabled"), pytest.param(3600, id="not due")])
def test_files_are_not_checked_before_the_interval_is_over(make_watched: Any, seconds: float) -> None:
    watched = make_watched(seconds)
    fill(watched.directory, "other")
    watched.reload_if_changed()
    assert watched.loads == 0


def test_a_requested_reload_succeeds_or_raises(make_watched: Any) -> None:
    watched = make_watched(0)
    asyncio.run(watched.reloader.reload())  # although nothing has changed
    assert (watched.loads, watched.served) == (1, "8")
    watched.version = None
    with pytest.raises(DataError, match="the bundle is broken"):
        asyncio.run(watched.reloader.reload())
    assert (watched.served, watched.count("loaded"), watched.count("refused")) == ("8", 1.0, 1.0)


def test_reloads_do_not_overlap(make_watched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = make_watched(0)
    at_once: list[int] = []
    load = watched.load

    def slowly(directory: Path) -> DataPlane:
        at_once.append(1)
        time.sleep(0.02)
        assert at_once == [1]
        at_once.pop()
        return load(directory)  # type: ignore[no-any-return]

    async def scenario() -> None:
        await asyncio.gather(*(watched.reloader.reload() for _ in range(3)))

    monkeypatch.setattr(watched.source, "_load", slowly)
    asyncio.run(scenario())
    assert watched.loads == 3


# The model repository


class FakeRepository:
    """Model repository that counts its loads, and whose bundle may be broken."""

    def __init__(self, *, is_enabled: bool = True) -> None:
        self.loads = 0
        self.is_broken = False
        self.state = ServerState(is_started=True, is_loaded=True)
        self.repository = ModelRepository("flats", self.state, self.reload, is_enabled=is_enabled)

    async def reload(self) -> None:
        self.loads += 1
        if self.is_broken:
            raise DataError("the bundle is broken")

    def load_or_unload(self, name: str, action: Any) -> None:
        asyncio.run(self.repository.load_or_unload(name, action))


def test_a_model_is_unloaded_and_loaded() -> None:
    fake = FakeRepository()
    fake.load_or_unload("flats", "unload")
    assert (fake.state.is_ready, fake.loads) == (False, 0)
    with pytest.raises(ModelNotLoadedError, match="flats was unloaded; load it to have it answer"):
        fake.repository.check_loaded()
    fake.load_or_unload("flats", "load")
    assert (fake.state.is_ready, fake.loads) == (True, 1)
    fake.repository.check_loaded()


def test_a_failed_load_leaves_the_state_unchanged() -> None:
    fake = FakeRepository()
    fake.is_broken = True
    for is_loaded in (True, False):
        with pytest.raises(DataError, match="the bundle is broken"):
            fake.load_or_unload("flats", "load")
        assert fake.state.is_loaded is is_loaded
        fake.load_or_unload("flats", "unload")


@pytest.mark.parametrize(
    ("is_enabled", "name", "error"),
    [
        pytest.param(False, "flats", UnsupportedOperationError, id="disabled"),
        pytest.param(False, "nobody", UnsupportedOperationError, id="disabled, whatever the model"),
        pytest.param(True, "nobody", NotFoundError, id="another model"),
    ],
)
@pytest.mark.parametrize("action", ["load", "unload"])
def test_a_forbidden_load_or_unload_raises(
    is_enabled: bool, name: str, error: type[ModelNameError], action: str
) -> None:
    fake = FakeRepository(is_enabled=is_enabled)
    with pytest.raises(error):
        fake.load_or_unload(name, action)
    assert (fake.state.is_loaded, fake.loads) == (True, 0)


# The name of the model


def test_a_new_bundle_of_another_name_is_served_under_the_old_one(
    bundles: dict[str, Bundle], start_server: StartServer, rows: list[Row], tmp_path: Path
) -> None:
    # given
    copied = Path(shutil.copytree(bundles["regression"].directory, tmp_path / "bundle"))
    server: Server = start_server(copied, "regression", "--watch_seconds", "0.2").wait()
    # when
    manifest = json.loads((copied / "bundle.json").read_text(encoding="utf-8")) | {"name": "other", "version": "8"}
    (copied / "bundle.json").write_text(json.dumps(manifest), encoding="utf-8")
    deadline = time.monotonic() + 20
    while server.client.get("/v2/models/regression").json()["versions"] != ["8"]:
        assert time.monotonic() < deadline, "the new version is not served"
        time.sleep(0.05)
    # then
    assert server.client.get("/v2/models/regression").json()["name"] == "regression"
    assert post_v1(server, {"instances": rows}).headers["x-model-version"] == "8"
    assert server.client.get("/v2/models/other").status_code == 404
