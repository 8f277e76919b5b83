"""A bundle is loaded only if it is complete and unchanged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model_name.core.decisions.decision import Decision
from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.serving.bundle import GRAPH_FILE, MANIFEST_FILE, Bundle, file_hash


@pytest.fixture
def directory(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    """Return a copy of a bundle that a test may damage."""
    return Path(shutil.copytree(bundles["regression"].directory, tmp_path / "bundle"))


def edit_manifest(directory: Path, **changes: object) -> None:
    path = directory / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def truncate_manifest(directory: Path) -> None:
    path = directory / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:1000])


def overwrite_manifest(content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / MANIFEST_FILE).write_bytes(content)


def change_one_byte(directory: Path) -> None:
    graph = bytearray((directory / GRAPH_FILE).read_bytes())
    graph[len(graph) // 2] ^= 1
    (directory / GRAPH_FILE).write_bytes(graph)


def replace_graph_by_text(directory: Path) -> None:
    (directory / GRAPH_FILE).write_bytes(b"no graph")
    edit_manifest(directory, files={GRAPH_FILE: file_hash(directory / GRAPH_FILE)})


@pytest.mark.parametrize(
    ("damage", "error", "reason"),
    [
        pytest.param(
            change_one_byte,
            DataError,
            "is not the file that the bundle was written with",
            id="a changed graph",
        ),
        pytest.param(lambda d: (d / GRAPH_FILE).unlink(), NotFoundError, "missing from the bundle", id="no graph"),
        pytest.param(
            lambda d: edit_manifest(d, files={}),
            DataError,
            f"does not vouch for {GRAPH_FILE}",
            id="a graph without a hash",
        ),
        pytest.param(replace_graph_by_text, DataError, f"{GRAPH_FILE}: cannot be read", id="a graph that is not ONNX"),
        pytest.param(
            lambda d: (d / MANIFEST_FILE).unlink(), NotFoundError, f"{MANIFEST_FILE} is missing", id="no manifest"
        ),
        pytest.param(shutil.rmtree, NotFoundError, f"{MANIFEST_FILE} is missing", id="no folder"),
        pytest.param(truncate_manifest, DataError, "is not JSON", id="a truncated manifest"),
        pytest.param(
            overwrite_manifest(b"\xff\xfe"),
            DataError,
            "is not JSON",
            id="a manifest that is not UTF-8",
        ),
        pytest.param(overwrite_manifest(b"[]"), DataError, "is not a bundle's manifest", id="a list"),
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
def test_damaged_bundle_is_refused(
    directory: Path, damage: Callable[[Path], object], error: type[ModelNameError], reason: str
) -> None:
    damage(directory)
    with pytest.raises(error, match=reason) as caught:
        Bundle.load(directory)
    assert "\n" not in caught.value.message
    assert str(directory) in caught.value.message


def test_file_instead_of_a_bundle_is_refused(directory: Path) -> None:
    with pytest.raises(NotFoundError, match=f"{MANIFEST_FILE} is missing"):
        Bundle.load(directory / GRAPH_FILE)


def test_loaded_manifest_equals_the_written_one(bundles: dict[str, Bundle], directory: Path) -> None:
    assert Bundle.load(directory).manifest == bundles["regression"].manifest


def test_bundle_without_a_decision_has_the_default_decision(directory: Path) -> None:
    path = directory / MANIFEST_FILE
    manifest = json.loads(path.read_text())
    del manifest["decision"]
    path.write_text(json.dumps(manifest))
    assert Bundle.load(directory).manifest.decision == Decision()
