"""A bundle is loaded only if it is complete and unchanged, and what is loaded is what was hashed."""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_name.core.decisions.decision import Decision
from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.serving.bundle import (
    GRAPH_FILE,
    MANIFEST_FILE,
    MAX_MANIFEST_BYTES,
    Bundle,
    create_session,
    file_hash,
    list_files,
    parse_manifest,
    read_bundle,
    read_manifest,
    write_manifest,
)
from model_name.serving.dataplane import DataPlane
from tests.support.graphs import edit_manifest, hash_file, refer_to_external_data, shift_predictions


@pytest.fixture
def directory(bundles: dict[str, Bundle], tmp_path: Path) -> Path:
    """Return a copy of a bundle that a test may damage."""
    return Path(shutil.copytree(bundles["regression"].directory, tmp_path / "bundle"))


def truncate_manifest(directory: Path) -> None:
    path = directory / MANIFEST_FILE
    path.write_bytes(path.read_bytes()[:1000])


def set_in_manifest(**changes: object) -> Callable[[Path], object]:
    return lambda directory: edit_manifest(directory, **changes)


def overwrite_manifest(content: bytes) -> Callable[[Path], object]:
    return lambda directory: (directory / MANIFEST_FILE).write_bytes(content)


def change_one_byte(directory: Path) -> None:
    graph = bytearray((directory / GRAPH_FILE).read_bytes())
    graph[len(graph) // 2] ^= 1
    (directory / GRAPH_FILE).write_bytes(graph)


def replace_graph_by_text(directory: Path) -> None:
    (directory / GRAPH_FILE).write_bytes(b"no graph")
    edit_manifest(directory, files={GRAPH_FILE: file_hash(directory / GRAPH_FILE)})


def replace_graph_by_fifo(directory: Path) -> None:
    (directory / GRAPH_FILE).unlink()
    os.mkfifo(directory / GRAPH_FILE)


def move_graph_outside(directory: Path) -> None:
    (directory / GRAPH_FILE).rename(directory.parent / "graph")
    (directory / GRAPH_FILE).symlink_to("../graph")


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
        pytest.param(
            lambda d: edit_manifest(d, version="1\r\nX-Evil: 1"),
            DataError,
            r"version: Value error, '1\\r\\nX-Evil: 1' is not an identifier",
            id="a version that would be two headers",
        ),
        pytest.param(lambda d: edit_manifest(d, semver=""), DataError, "semver: .* not an identifier", id="no semver"),
        pytest.param(
            lambda d: edit_manifest(d, run_id="../7"), DataError, "run_id: .* identifier", id="a run elsewhere"
        ),
        pytest.param(
            lambda d: edit_manifest(d, name="a\nb"), DataError, "name: .* not a name of a model", id="two lines"
        ),
        pytest.param(
            lambda d: edit_manifest(d, files={GRAPH_FILE: file_hash(d / GRAPH_FILE), "../x": "0" * 64}),
            DataError,
            r"files: Value error, '\.\./x' is not the name of a file in the folder of the bundle",
            id="a file outside",
        ),
        pytest.param(
            lambda d: edit_manifest(d, files={GRAPH_FILE: file_hash(d / GRAPH_FILE), "/dev/zero": "0" * 64}),
            DataError,
            "'/dev/zero' is not the name of a file",
            id="a device",
        ),
        pytest.param(
            replace_graph_by_fifo, DataError, f"{GRAPH_FILE}: is not a regular file", id="a graph that is a FIFO"
        ),
        pytest.param(
            move_graph_outside, DataError, "is a link that leaves the folder", id="a graph that is a link outside"
        ),
        pytest.param(
            lambda d: os.truncate(d / MANIFEST_FILE, MAX_MANIFEST_BYTES + 1),
            DataError,
            f"{MANIFEST_FILE}: has 67,108,865 bytes, more than 67,108,864",
            id="a manifest that is too large",
        ),
        pytest.param(overwrite_manifest(b"[" * 10**6), DataError, "is not JSON", id="a manifest that is nested deeply"),
        pytest.param(overwrite_manifest(b"7"), DataError, "is not a bundle's manifest", id="a number"),
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


def prediction(directory: Path) -> float:
    return float(DataPlane(Bundle.load(directory)).warm_up().prediction[0])


@pytest.mark.parametrize("location", ["data.bin", "sub/data.bin"])
def test_external_data_is_loaded_if_the_manifest_vouches_for_it(directory: Path, location: str) -> None:
    # given
    before = prediction(directory)
    refer_to_external_data(directory, location)
    (directory / location).parent.mkdir(exist_ok=True)
    (directory / location).write_bytes(b"\x02" * 16)
    hashes = {name: hash_file(directory / name) for name in (GRAPH_FILE, location)}
    edit_manifest(directory, files=hashes)
    # then
    assert prediction(directory) == pytest.approx(before + 32)
    assert location in list_files(directory)
    # when it is changed
    (directory / location).write_bytes(b"\x03" * 16)
    with pytest.raises(DataError, match=f"{location}: is not the file that the bundle was written with"):
        Bundle.load(directory)


@pytest.mark.parametrize(
    "location",
    [
        pytest.param("data.bin", id="in the folder"),
        pytest.param("../secret", id="outside"),
        pytest.param("{directory}/data.bin", id="absolute"),
        pytest.param("link", id="a link"),
        pytest.param("nothing", id="missing"),
    ],
)
@pytest.mark.parametrize("has_other", [False, True], ids=["alone", "beside vouched data"])
def test_external_data_that_the_manifest_does_not_list_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, location: str, has_other: bool
) -> None:
    # given
    for path in (directory / "data.bin", directory / "other.bin", directory.parent / "secret"):
        path.write_bytes(b"\x02" * 16)
    (directory / "link").symlink_to("data.bin")
    refer_to_external_data(directory, location.format(directory=directory))
    names = [GRAPH_FILE, *(["other.bin"] if has_other else [])]
    edit_manifest(directory, files={name: hash_file(directory / name) for name in names})
    monkeypatch.chdir(directory)  # where ONNX Runtime looks for the external data of a graph in memory by default
    # then
    with pytest.raises(DataError, match=f"refers to external data that {MANIFEST_FILE} does not vouch for"):
        Bundle.load(directory)


def test_loaded_graph_is_the_one_that_was_hashed(directory: Path) -> None:
    # given a graph that is replaced after its hash was verified
    before = prediction(directory)
    contents = read_bundle(directory)
    shift_predictions(directory, 1000)
    # when the session is created
    session = create_session(contents.files, directory / GRAPH_FILE, threads=1)
    # then it has the bytes that were hashed
    plane = DataPlane(Bundle(directory, contents.manifest, session))
    assert plane.warm_up().prediction[0] == before
    assert prediction(directory) == pytest.approx(before + 1000)


def test_bundle_in_a_volume_of_kubernetes_is_loaded(directory: Path) -> None:
    volume = directory.parent / "volume"
    volume.mkdir()
    directory.rename(volume / "..2026_11_30_14_00_00.1")
    (volume / "..data").symlink_to("..2026_11_30_14_00_00.1")
    for name in (GRAPH_FILE, MANIFEST_FILE):
        (volume / name).symlink_to(f"..data/{name}")
    (directory.parent / "models").symlink_to(volume)
    assert prediction(volume) == prediction(directory.parent / "models")


def test_bundle_knows_the_hash_of_its_manifest(directory: Path) -> None:
    assert Bundle.load(directory).manifest_hash == hash_file(directory / MANIFEST_FILE)


@pytest.mark.parametrize("changes", [{"version": "1\n"}, {"semver": ""}, {"name": "a\0"}, {"files": {"../x": ""}}])
def test_invalid_manifest_is_not_written(directory: Path, changes: dict[str, object]) -> None:
    before = (directory / MANIFEST_FILE).read_bytes()
    with pytest.raises(DataError, match="is not a bundle's manifest"):
        write_manifest(directory, read_manifest(directory).model_copy(update=changes))
    assert (directory / MANIFEST_FILE).read_bytes() == before
    assert {path.name for path in directory.iterdir()} == {GRAPH_FILE, MANIFEST_FILE}


@given(
    st.binary()
    | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_other_bytes_are_no_manifest(text: bytes) -> None:
    with pytest.raises(DataError, match=r"is not JSON|is not a bundle's manifest|has format"):
        parse_manifest(text, Path(MANIFEST_FILE))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_manifest_with_any_other_value_is_accepted_or_refused(directory: Path, data: st.DataObject) -> None:
    raw = json.loads((directory / MANIFEST_FILE).read_bytes())
    key = data.draw(st.sampled_from(sorted(raw)))
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    value = data.draw(st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
    with suppress(DataError):
        manifest = parse_manifest(json.dumps(raw | {key: value}).encode(), Path(MANIFEST_FILE))
        assert manifest.version.isascii()
        assert manifest.name.isprintable()
        assert not any(name.startswith("/") or ".." in name.split("/") for name in manifest.files)
