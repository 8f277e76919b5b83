"""A new bundle that takes over or is refused, and a model that is unloaded and loaded."""

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
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.model_repository import WATCHED_FILES, ModelRepository, BundleReloader, file_signature
from model_name.serving.request_errors import ModelNotLoadedError, UnsupportedOperationError
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState
from tests.support.clients import post_v1
from tests.support.manifests import manifest_of, plane_of, table_of

if TYPE_CHECKING:
    from conftest import Row, Server, StartServer

    from model_name.serving.bundle import Bundle


def fill(directory: Path, text: str = "one") -> None:
    for name in WATCHED_FILES:
        (directory / name).write_text(text, encoding="utf-8")


# The stamp


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda file: file.write_text("longer", encoding="utf-8"), id="another size"),
        pytest.param(lambda file: os.utime(file, ns=(1, 1)), id="another time"),
        pytest.param(lambda file: file.unlink(), id="gone"),
        pytest.param(lambda file: Path(shutil.copy2(file, f"{file}2")).replace(file), id="another file"),
    ],
)
@pytest.mark.parametrize("name", WATCHED_FILES)
def test_a_stamp_tells_that_a_file_has_changed(tmp_path: Path, name: str, change: Any) -> None:
    fill(tmp_path)
    before = file_signature(tmp_path)
    assert file_signature(tmp_path) == before
    change(tmp_path / name)
    assert file_signature(tmp_path) != before


def test_a_stamp_heeds_no_other_file_and_no_missing_folder(tmp_path: Path) -> None:
    fill(tmp_path)
    before = file_signature(tmp_path)
    (tmp_path / "note.txt").write_text("x", encoding="utf-8")
    assert file_signature(tmp_path) == before
    assert file_signature(tmp_path / "nowhere") == ()


# The watch


class Shelf:
    """A folder that is watched, and what it holds.

    Attributes:
        version: Of what is loaded next; a broken bundle where it is None.
        loads: How often one was loaded.
    """

    def __init__(self, directory: Path, seconds: float) -> None:
        fill(directory)
        self.directory = directory
        self.version: str | None = "8"
        self.loads = 0
        self.metrics = ServerMetrics("", CollectorRegistry())
        self.batcher = AdaptiveBatcher(plane_of(manifest_of(table_of())), Limits())
        self.swapper = BundleReloader(directory, self.batcher, self.metrics, seconds=seconds, load=self.load)

    def load(self, directory: Path) -> DataPlane:
        self.loads += 1
        if self.version is None:
            raise DataError("the bundle is broken")
        return plane_of(manifest_of(table_of(), version=self.version, name="another"))

    def look(self) -> None:
        asyncio.run(self.swapper.look())

    @property
    def served(self) -> str:
        return self.batcher.plane.bundle.manifest.version

    def count(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("model_name_bundle_loads_total", {"result": result}) or 0.0


@pytest.fixture
def make_shelf(tmp_path: Path) -> Iterator[Any]:
    """Makes one."""
    made: list[Shelf] = []

    def make(seconds: float = 1e-9) -> Shelf:
        made.append(Shelf(tmp_path, seconds))
        return made[-1]

    yield make
    for shelf in made:
        shelf.batcher.close()


def test_what_has_not_changed_is_not_loaded_again(make_shelf: Any) -> None:
    shelf = make_shelf()
    shelf.look()
    assert (shelf.loads, shelf.served) == (0, "7")


def test_what_has_changed_takes_over_once(make_shelf: Any) -> None:
    shelf = make_shelf()
    fill(shelf.directory, "other")
    shelf.look()
    shelf.look()
    assert (shelf.loads, shelf.served, shelf.count("loaded"), shelf.count("refused")) == (1, "8", 1.0, 0.0)
    (info,) = [
        one for family in shelf.metrics.registry.collect() for one in family.samples if one.name.endswith("_info")
    ]
    assert info.labels["version"] == "8"


def test_what_is_broken_is_refused_once_and_tried_again_when_it_has_changed(
    make_shelf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    shelf = make_shelf()
    shelf.version = None
    fill(shelf.directory, "broken")
    # when
    for _ in range(3):
        shelf.look()
    # then
    assert (shelf.loads, shelf.served, shelf.count("refused")) == (1, "7", 1.0)
    assert caplog.messages == ["the new bundle is refused, version 7 goes on: the bundle is broken"]
    # when
    shelf.version = "9"
    fill(shelf.directory, "mended, at last")
    shelf.look()
    # then
    assert (shelf.loads, shelf.served) == (2, "9")


@pytest.mark.parametrize("seconds", [pytest.param(0, id="never"), pytest.param(3600, id="not yet")])
def test_nobody_looks_before_it_is_time(make_shelf: Any, seconds: float) -> None:
    shelf = make_shelf(seconds)
    fill(shelf.directory, "other")
    shelf.look()
    assert shelf.loads == 0


def test_who_asks_for_a_swap_gets_it_or_is_told_why_not(make_shelf: Any) -> None:
    shelf = make_shelf(0)
    asyncio.run(shelf.swapper.swap())  # though nothing has changed
    assert (shelf.loads, shelf.served) == (1, "8")
    shelf.version = None
    with pytest.raises(DataError, match="the bundle is broken"):
        asyncio.run(shelf.swapper.swap())
    assert (shelf.served, shelf.count("loaded"), shelf.count("refused")) == ("8", 1.0, 1.0)


def test_swaps_come_one_after_the_other(make_shelf: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = make_shelf(0)
    at_once: list[int] = []
    load = shelf.load

    def slowly(directory: Path) -> DataPlane:
        at_once.append(1)
        time.sleep(0.02)
        assert at_once == [1]
        at_once.pop()
        return load(directory)  # type: ignore[no-any-return]

    async def scenario() -> None:
        await asyncio.gather(*(shelf.swapper.swap() for _ in range(3)))

    monkeypatch.setattr(shelf.swapper, "load", slowly)
    asyncio.run(scenario())
    assert shelf.loads == 3


# The repository


class Switch:
    """A repository that counts its loads, and breaks if it is told to."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.loads = 0
        self.is_broken = False
        self.state = ServerState(is_started=True, is_loaded=True)
        self.repository = ModelRepository("flats", self.state, self.swap, is_open=is_open)

    async def swap(self) -> None:
        self.loads += 1
        if self.is_broken:
            raise DataError("the bundle is broken")

    def change(self, name: str, change: str) -> None:
        asyncio.run(self.repository.change(name, change))


def test_a_model_is_unloaded_and_loaded() -> None:
    switch = Switch()
    switch.change("flats", "unload")
    assert (switch.state.is_ready, switch.loads) == (False, 0)
    with pytest.raises(ModelNotLoadedError, match="flats was unloaded; load it to have it answer"):
        switch.repository.require()
    switch.change("flats", "load")
    assert (switch.state.is_ready, switch.loads) == (True, 1)
    switch.repository.require()


def test_a_model_that_cannot_be_loaded_stays_as_it_was() -> None:
    switch = Switch()
    switch.is_broken = True
    for is_loaded in (True, False):
        with pytest.raises(DataError, match="the bundle is broken"):
            switch.change("flats", "load")
        assert switch.state.is_loaded is is_loaded
        switch.change("flats", "unload")


@pytest.mark.parametrize(
    ("is_open", "name", "error"),
    [
        pytest.param(False, "flats", UnsupportedOperationError, id="nobody may"),
        pytest.param(False, "nobody", UnsupportedOperationError, id="nobody may, whatever the model"),
        pytest.param(True, "nobody", NotFoundError, id="another model"),
    ],
)
@pytest.mark.parametrize("change", ["load", "unload"])
def test_a_change_that_may_not_be_is_refused(
    is_open: bool, name: str, error: type[ModelNameError], change: str
) -> None:
    switch = Switch(is_open=is_open)
    with pytest.raises(error):
        switch.change(name, change)
    assert (switch.state.is_loaded, switch.loads) == (True, 0)


# The name


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
        assert time.monotonic() < deadline, "it did not take over"
        time.sleep(0.05)
    # then
    assert server.client.get("/v2/models/regression").json()["name"] == "regression"
    assert post_v1(server, {"instances": rows}).headers["x-model-version"] == "8"
    assert server.client.get("/v2/models/other").status_code == 404
