"""A bundle is served only if it is whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_name.core.decisions.decision import Decision
from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.serving.bundle import GRAPH, MANIFEST, Bundle, file_hash


@pytest.fixture
def directory(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(bundles["regression"].directory, tmp_path / "bundle"))


def edit_manifest(directory: Path, **changes: object) -> None:
    path = directory / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate_manifest(directory: Path) -> None:
    path = directory / MANIFEST
    path.write_bytes(path.read_bytes()[:1000])


def change_one_byte(directory: Path) -> None:
    graph = bytearray((directory / GRAPH).read_bytes())
    graph[len(graph) // 2] ^= 1
    (directory / GRAPH).write_bytes(graph)


def vouch_for_no_graph(directory: Path) -> None:
    (directory / GRAPH).write_bytes(b"no graph")
    edit_manifest(directory, files={GRAPH: file_hash(directory / GRAPH)})


@pytest.mark.parametrize(
    ("break_it", "error", "reason"),
    [
        pytest.param(
            change_one_byte,
            DataError,
            "is not the file that the bundle was written with",
            id="a graph that was changed",
        ),
        pytest.param(lambda d: (d / GRAPH).unlink(), NotFoundError, "missing from the bundle", id="no graph"),
        pytest.param(
            lambda d: edit_manifest(d, files={}), DataError, f"does not vouch for {GRAPH}", id="a graph without a hash"
        ),
        pytest.param(vouch_for_no_graph, DataError, f"{GRAPH}: cannot be read", id="a graph that is none"),
        pytest.param(lambda d: (d / MANIFEST).unlink(), NotFoundError, f"{MANIFEST} is missing", id="no manifest"),
        pytest.param(shutil.rmtree, NotFoundError, f"{MANIFEST} is missing", id="no folder"),
        pytest.param(truncate_manifest, DataError, "is not JSON", id="half a manifest"),
        pytest.param(
            lambda d: (d / MANIFEST).write_bytes(b"\xff\xfe"), DataError, "is not JSON", id="a manifest that is no text"
        ),
        pytest.param(lambda d: (d / MANIFEST).write_text("[]"), DataError, "is not a bundle's manifest", id="a list"),
        pytest.param(
            lambda d: edit_manifest(d, format=2), DataError, "has format 2, this version reads 1", id="another format"
        ),
        pytest.param(
            lambda d: edit_manifest(d, nme="x"), DataError, "nme is not a key of Manifest", id="an unknown key"
        ),
        pytest.param(
            lambda d: edit_manifest(d, version=3), DataError, "version: Input should be", id="a value of another type"
        ),
    ],
)
def test_a_broken_bundle_is_refused(
    directory: Path, break_it: Callable[[Path], object], error: type[ModelNameError], reason: str
) -> None:
    break_it(directory)
    with pytest.raises(error, match=reason) as caught:
        Bundle.load(directory)
    assert "\n" not in caught.value.message
    assert str(directory) in caught.value.message


def test_a_file_is_no_bundle(directory: Path) -> None:
    with pytest.raises(NotFoundError, match=f"{MANIFEST} is missing"):
        Bundle.load(directory / GRAPH)


def test_a_bundle_comes_back_as_it_was_written(bundles: dict[str, Bundle], directory: Path) -> None:
    assert Bundle.load(directory).manifest == bundles["regression"].manifest


def test_a_bundle_from_before_there_were_decisions_answers_as_ever(directory: Path) -> None:
    path = directory / MANIFEST
    manifest = json.loads(path.read_text())
    del manifest["decision"]
    path.write_text(json.dumps(manifest))
    assert Bundle.load(directory).manifest.decision == Decision()
