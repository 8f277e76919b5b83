import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import AuditError, StorageError
from model_name.io.audit import GENESIS_HASH, AuditTrail

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=5,
)


def add(trail, number=0, **details):
    return trail.append(actor="me", event="promoted", subject=f"model {number}", details=details)


@pytest.fixture(params=["local", "memory"])
def location(request, workplace):
    if request.param == "local":
        return str(workplace / "deep" / "audit")
    return f"memory://audit-{os.urandom(6).hex()}"


def written(location, entries=4):
    trail = AuditTrail(location)
    for number in range(entries):
        add(trail, number, score=number / 3)
    return trail


def test_entries_are_numbered_and_chained(location):
    # given a trail that does not exist yet
    trail = AuditTrail(location)
    assert (trail.entries(), trail.verify()) == ([], 0)
    # when two trails on the same folder append entries
    appended = [add(trail, 1), add(AuditTrail(location), 2, note="ü"), add(trail, 3)]
    # then each holds the hash of the previous entry
    assert [entry.number for entry in appended] == [1, 2, 3]
    assert [entry.previous for entry in appended] == [GENESIS_HASH, appended[0].hash, appended[1].hash]
    assert trail.entries() == appended
    assert trail.verify() == 3
    assert all(entry.time.endswith("+00:00") for entry in appended)


@given(
    st.lists(
        st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.dictionaries(st.text("xyz"), JSON, max_size=3)),
        max_size=4,
    )
)
def test_any_entry_is_read_back_and_verified(drawn):
    trail = AuditTrail(f"memory://audit-{os.urandom(6).hex()}")
    written = [trail.append(actor=text, event="x", subject=text, details=details) for text, details in drawn]
    assert trail.verify() == len(drawn)
    assert [(entry.actor, entry.details) for entry in trail.entries()] == drawn
    assert [entry.hash for entry in trail.entries()] == [entry.hash for entry in written]


def test_other_files_are_ignored(location):
    trail = written(location, entries=2)
    for name in ("1.json", "00000003.txt", "notes.json", "00000003.json.bak", "³.json", "00000003.json.7.part"):
        trail.filesystem.pipe_file(f"{trail.root}/{name}", b"other")
    assert trail.verify() == 2
    assert add(trail).number == 3


def tamper(trail, action, position, field, value):
    """Tamper with the entry at a position and return the number that `verify` must name."""
    files = sorted(trail.filesystem.ls(trail.root, detail=False))
    path, last = files[position - 1], len(files)
    document = json.loads(trail.filesystem.cat_file(path))
    if action == "remove":
        trail.filesystem.rm(path)
        # the removal of the last entry cannot be detected
        return f"entry {position} of .* is missing" if position < last else None
    if action == "insert":
        # every later entry is renumbered by one
        for number in range(last, position - 1, -1):
            moved = json.loads(trail.filesystem.cat_file(files[number - 1])) | {"number": number + 1}
            store(trail, number + 1, moved)
        store(trail, position, document | {"subject": "forged"})
        # the forged entry has the right `previous`; the hash in the entry after it does not match
        return rf"entry ({position}|{position + 1}|{position} or {position + 1}) of .* was changed"
    if action == "garbage":
        trail.filesystem.pipe_file(path, b"{" + value.encode())
        return f"entry {position} of .* was changed"
    if action == "layout":
        trail.filesystem.pipe_file(path, json.dumps(document).encode())
        return f"entry {position} of .* was changed"
    store(trail, position, document | {field: value if field != "number" else position + 7})
    if field not in ("number", "previous") and position == last:
        return None  # no later entry holds its hash
    if field == "previous" and position == last > 1:
        return f"entry {position - 1} or {position} of .* was changed"  # no later entry shows which one was changed
    if field not in ("number", "previous") and position == last - 1:
        return f"entry {position} or {last} of .* was changed"
    return f"entry {position} of .* was changed"


def store(trail, number, document):
    trail.filesystem.pipe_file(
        f"{trail.root}/{number:08d}.json", (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
    )


@given(
    entries=st.integers(1, 5),
    data=st.data(),
    action=st.sampled_from(["change", "change", "remove", "insert", "garbage", "layout"]),
    field=st.sampled_from(["time", "actor", "event", "subject", "number", "previous"]),
    value=st.text("abcdef0123456789", min_size=70, max_size=72),
)
def test_verify_names_the_first_tampered_entry(entries, data, action, field, value):
    # given a trail
    trail = written(f"memory://audit-{os.urandom(6).hex()}", entries)
    # when an entry is changed, removed or inserted
    position = data.draw(st.integers(1, entries))
    expected = tamper(trail, action, position, field, value)
    # then `verify` names it, unless it was the last entry, whose hash no other entry holds
    if expected is None:
        assert trail.verify() in (entries, entries - 1)
        return
    with pytest.raises(AuditError, match=expected):
        trail.verify()


def test_append_fails_after_an_unreadable_entry(location):
    trail = written(location, entries=2)
    trail.filesystem.pipe_file(f"{trail.root}/00000002.json", b"{}")
    with pytest.raises(AuditError, match=r"entry 2 of .* cannot be read"):
        add(trail)


def write_some(location, count):
    return [add(AuditTrail(location), number).number for number in range(count)]


def test_concurrent_threads_get_different_numbers(workplace):
    location = str(workplace / "audit")
    with ThreadPoolExecutor(8) as pool:
        numbers = [number for part in pool.map(write_some, [location] * 8, [6] * 8) for number in part]
    assert sorted(numbers) == list(range(1, 49))
    assert AuditTrail(location).verify() == 48


def test_concurrent_processes_get_different_numbers(workplace):
    location = str(workplace / "audit")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        parts = pool.starmap(write_some, [(location, 15)] * 4)
    assert sorted(number for part in parts for number in part) == list(range(1, 61))
    assert AuditTrail(location).verify() == 60
    assert len(list(Path(location).iterdir())) == 60  # no half-written file is left


def test_an_unwritable_path_is_named(workplace):
    Path("file").touch()
    with pytest.raises(StorageError, match="file/audit: cannot be written"):
        add(AuditTrail("file/audit"))
