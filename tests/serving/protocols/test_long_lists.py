"""Long bodies are parsed in parts with the same result as whole ones, and hold the interpreter for a short time."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from model_name.errors import DataError, ModelNameError
from model_name.serving.batching.requests import InferenceRequest
from model_name.serving.limits import Limits
from model_name.serving.protocols import fast_json, long_lists, v1, v2
from model_name.serving.protocols.cloudevents import EventRequest
from model_name.serving.protocols.v1 import V1Request
from model_name.serving.protocols.v2 import V2Request
from tests.serving.protocols.test_fast_decoders import PLANE, json_bodies, to_lists
from tests.support.counts import count

LIMITS = Limits(rows=40, text_length=12)
MANY = settings(max_examples=count(reduced=100, full=500), deadline=None, suppress_health_check=list(HealthCheck))
PART_BYTES = 64


def request_of(protocol: str, body: bytes) -> InferenceRequest:
    return V1Request(body, "") if protocol == "v1" else V2Request(body, "", name="flats")


def outcome(protocol: str, body: bytes) -> Any:
    """Decode a body: columns and interval level, or None if it is rejected."""
    request = request_of(protocol, body)
    try:
        decoded = request.decode(PLANE, LIMITS)
        return to_lists(decoded), decoded.interval, request.id
    except ModelNameError:
        return None


def parse_short_parts(patch: pytest.MonkeyPatch) -> None:
    """Parse every body in parts of a few bytes."""
    for module in (fast_json, v1, v2):
        patch.setattr(module, "MIN_LONG_BYTES", 0)
    patch.setattr(long_lists, "PART_BYTES", PART_BYTES)
    patch.setattr(long_lists, "CUT_DISTANCES", tuple(PART_BYTES * factor for factor in (1, 2, 3, 5, 8, 13, 21, 34, 50)))


@pytest.mark.parametrize("protocol", ["v1", "v2"])
@MANY
@given(data=st.data())
def test_a_body_in_parts_is_decoded_as_the_whole_one(protocol: str, data: st.DataObject) -> None:
    # Given a body, most of them valid
    body = data.draw(json_bodies(protocol))
    expected = outcome(protocol, body)
    event("accepted" if expected else "rejected")
    # When it is parsed in parts of a few bytes
    with pytest.MonkeyPatch.context() as patch:
        parse_short_parts(patch)
        actual = outcome(protocol, body)
    # Then the result is the same
    assert actual == expected


ROW: dict[str, Any] = {"size": 61.5, "floor": 3.0, "is new": True, "colour": "red", "sold": "2025-03-07T09:30:00"}


def long_body(rows: int, **changes: Any) -> dict[str, Any]:
    return {"instances": [ROW | changes] * rows}


@pytest.mark.parametrize(
    "colour", ["a},b", "],", "}, {", '"},', "\\},", '{"instances":[', "é},"], ids=lambda text: f"colour {text}"
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n ", " :")], ids=["compact", "spaces", "lines"])
def test_texts_that_look_like_the_end_of_a_row_are_read(colour: str, separators: tuple[str, str]) -> None:
    body = json.dumps(long_body(3000, colour=colour) | {"parameters": {}}, separators=separators).encode()
    body += b" " * long_lists.MIN_LONG_BYTES
    decoded = V1Request(body, "").decode(PLANE, Limits())
    assert to_lists(decoded)["colour"] == [colour] * 3000


@pytest.mark.parametrize(
    ("row", "message"),
    [
        pytest.param('{"size": 1, "size": 2}', "size, row 12000: comes twice", id="a key twice"),
        pytest.param('{"size": 1', "not JSON", id="a row without an end"),
        pytest.param('"' + "x" * 5_000_000 + '"', "more than 4194304 bytes", id="a row too long"),
    ],
)
@pytest.mark.parametrize("after", [0, 12_000], ids=["at the end", "in the middle"])
def test_a_fault_in_a_long_body_is_named(row: str, message: str, after: int) -> None:
    rows = json.dumps([ROW] * 12_000).encode()[1:-1]
    rest = b"," + json.dumps([ROW] * after).encode()[1:-1] if after else b""
    with pytest.raises(DataError, match=message):
        V1Request(b'{"instances": [' + rows + b"," + row.encode() + rest + b"]}", "").decode(PLANE, Limits())


def test_rows_beyond_the_limit_are_not_parsed() -> None:
    body = b'{"instances": [' + b"[]," * 3_000_000 + b"[]]}"
    seconds = []
    for _ in range(4):
        started = time.thread_time()
        with pytest.raises(ModelNameError, match=r"more than 1000 rows"):
            V1Request(body, "").decode(PLANE, Limits(rows=1000))
        seconds.append(time.thread_time() - started)
    assert min(seconds) < 0.5


def test_nan_in_a_long_body_is_rejected_by_its_column() -> None:
    rows = json.dumps([ROW] * 12_000).encode().replace(b"61.5", b"NaN", 1)
    decoded = V1Request(b'{"instances": ' + rows + b"}", "").decode(PLANE, Limits())
    with pytest.raises(DataError, match=r"^size, row 0: not a number$"):
        PLANE.check(decoded.to_columns(PLANE.inputs))


@pytest.mark.parametrize("nesting", ["flat", "[n, 1]"])
@pytest.mark.parametrize("parameters", [None, {"a": 1}])
@pytest.mark.parametrize("start", [{}, {"id": "mine"}], ids=["no id", "an id before the inputs"])
def test_long_tensors_are_read(nesting: str, parameters: Any, start: dict[str, Any]) -> None:
    rows = 30_000
    kinds = {"size": "FP64", "floor": "FP64", "is new": "BOOL", "colour": "BYTES", "sold": "BYTES"}
    tensors: list[dict[str, Any]] = [
        {"name": name, "shape": [rows], "datatype": kinds[name], "data": [value] * rows} for name, value in ROW.items()
    ]
    if nesting != "flat":
        tensors[0] |= {"shape": [rows, 1], "data": [[61.5]] * rows}
    if parameters:
        tensors[1]["parameters"] = parameters
    request = V2Request(json.dumps(start | {"inputs": tensors}).encode(), "", name="flats")
    columns = to_lists(request.decode(PLANE, Limits()))
    assert columns == {name: [value] * rows for name, value in ROW.items()}
    assert request.id == start.get("id", "")


def test_an_event_with_many_rows_in_binary_mode_is_read() -> None:
    headers = {b"ce-specversion": b"1.0", b"ce-id": b"mine", b"ce-source": b"/here", b"ce-type": b"t"}
    body = json.dumps(long_body(12_000) | {"parameters": {"interval": 0.9}}).encode()
    request = EventRequest(body, "", headers=headers, name="flats")
    decoded = request.decode(PLANE, Limits())
    assert (len(decoded.rows or ()), decoded.interval, request.id) == (12_000, 0.9, "mine")
    with pytest.raises(DataError, match=r"^id: "):
        EventRequest(body, "", headers={b"ce-specversion": b"1.0"}, name="flats").decode(PLANE, Limits())


class PauseMeter:
    """Measures the longest time for which another thread held the interpreter."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> PauseMeter:
        self._thread.start()
        time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.is_set():
            started = time.perf_counter()
            time.sleep(0.0005)
            self.longest = max(self.longest, time.perf_counter() - started)


@pytest.mark.parametrize("protocol", ["v1", "v2"])
def test_other_threads_run_while_100_000_rows_are_decoded(protocol: str) -> None:
    # Given a body for which a parser holds the interpreter for a fraction of the time of its decoding
    rows = 100_000
    v2_tensors = [
        {
            "name": name,
            "shape": [rows],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value] * rows,
        }
        for name, value in ROW.items()
    ]
    v2_tensors[2]["datatype"] = "BOOL"
    body = json.dumps(long_body(rows) if protocol == "v1" else {"inputs": v2_tensors}).encode()
    pauses, seconds = [], []
    for _ in range(4):
        # When it is decoded
        with PauseMeter() as meter:
            started = time.thread_time()
            decoded = request_of(protocol, body).decode(PLANE, Limits())
            seconds.append(time.thread_time() - started)
        pauses.append(meter.longest)
        assert isinstance((decoded.table or {})["size"], np.ndarray)
    # Then another thread was never kept waiting for more than a part of it; the best of several times counts
    assert min(pauses) < 0.03, (pauses, seconds)
