"""Lines of the prediction log: values, outputs, sensitive columns, and the division into chunks."""

import json
from datetime import datetime
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas import Outputs
from model_name.serving.prediction_log import row_selection
from model_name.serving.prediction_log.formatter import RecordFormatter, encode_json_lines, make_struct_factory
from model_name.serving.prediction_log.row_selection import (
    LoggedRequest,
    merge_chunks,
    split_rows,
    try_select_single_rows,
)
from tests.support.prediction_logs import CLASSES, DAY, NOON, ROW, batch, manifest, schema

KEY = b"a key of the test"
TEXTS = st.text(max_size=8)
DATETIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "area": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "age": st.none() | st.integers(-(2**53), 2**53),
            "district": st.none() | TEXTS,
            "is_let": st.none() | st.booleans(),
            "sold": st.none() | DATETIMES.map(datetime.isoformat),
            "remark": st.none() | TEXTS,
        }
    ),
    min_size=1,
    max_size=6,
)


def formatter(table, key=None, text_ids=True):
    return RecordFormatter(manifest(table), slot="blue", key=key, text_ids=text_ids)


def records(logged, record_formatter=None, size=100):
    record_formatter = record_formatter or formatter(logged.manifest.table)
    chunk = list(split_rows(logged, logged.requests, size))
    lines_by_day = record_formatter.format_lines(chunk)
    return [json.loads(line) for lines in lines_by_day.values() for line in lines.text.splitlines()]


def test_a_record_has_the_request_the_version_the_inputs_and_the_outputs():
    [record] = records(batch())
    assert record == {
        "time": "2025-06-21T12:00:00Z",
        "request_id": "request-0",
        "row": 0,
        "protocol": "v1",
        "slot": "blue",
        "model": "flats",
        "version": "7",
        "semver": "1.2.3",
        "inputs": ROW,
        "outputs": {"prediction": 0.0},
        "latency_ms": 3.42,
    }


@given(ROWS)
def test_values_of_every_kind_are_unchanged(rows):
    assert [record["inputs"] for record in records(batch(rows))] == rows


@pytest.mark.parametrize(
    ("task", "outputs", "expected"),
    [
        pytest.param("regression", {"prediction": [1.5]}, {"prediction": 1.5}, id="a number"),
        pytest.param("regression", {"prediction": [np.nan]}, {"prediction": None}, id="not a number"),
        pytest.param("regression", {"prediction": [-np.inf]}, {"prediction": None}, id="an infinite number"),
        pytest.param(
            "regression",
            {"prediction": [1.5], "lower": [0.5], "upper": [np.inf]},
            {"prediction": 1.5, "lower": 0.5, "upper": None},
            id="an interval",
        ),
        pytest.param(
            "binary",
            {"prediction": [True], "probabilities": [[0.25, 0.75]]},
            {"prediction": True, "probabilities": {"false": 0.25, "true": 0.75}},
            id="a boolean label",
        ),
        pytest.param(
            "multiclass",
            {"prediction": ["5 % top"], "probabilities": [[0.25, 0.25, 0.5]]},
            {"prediction": "5 % top", "probabilities": {"low": 0.25, "fair": 0.25, "5 % top": 0.5}},
            id="a text label",
        ),
    ],
)
def test_outputs_of_every_task_are_written(task, outputs, expected):
    arrays = {
        name: np.array(values, dtype=object if task != "regression" else float) for name, values in outputs.items()
    }
    outputs = Outputs(**arrays, classes=tuple(CLASSES[task] or ()))
    [record] = records(batch(of=manifest(schema(task)), outputs=outputs))
    assert record["outputs"] == expected


def test_rows_are_numbered_within_their_request():
    logged = batch([ROW | {"area": float(row)} for row in range(6)], sizes=[1, 3, 2])
    rows = [(record["request_id"], record["row"], record["inputs"]["area"]) for record in records(logged)]
    assert rows == [
        ("request-0", 0, 0.0),
        ("request-1", 0, 1.0),
        ("request-1", 1, 2.0),
        ("request-1", 2, 3.0),
        ("request-2", 0, 4.0),
        ("request-2", 1, 5.0),
    ]


@pytest.mark.parametrize("order", [[1], [0, 2], [2, 1, 0]], ids=["one of three", "first and last", "reversed"])
def test_a_sample_of_the_requests_keeps_its_own_rows(order):
    logged = batch([ROW | {"area": float(row)} for row in range(3)])
    [rows] = split_rows(logged, [logged.requests[position] for position in order], 100)
    [lines] = formatter(schema()).format_lines([rows]).values()
    parsed = [json.loads(line) for line in lines.text.splitlines()]
    assert [record["outputs"]["prediction"] * 2 for record in parsed] == [float(row) for row in order]
    assert [record["inputs"]["area"] for record in parsed] == [float(row) for row in order]


@given(sizes=st.lists(st.integers(0, 9), max_size=12), size=st.integers(1, 5))
def test_selections_hold_every_row_once_and_in_order(sizes, size):
    starts = np.cumsum([0, *sizes])
    requests = [
        LoggedRequest(str(n), "v1", NOON, 0.0, slice(int(start), int(start) + rows))
        for n, (start, rows) in enumerate(zip(starts, sizes, strict=False))
    ]
    selections = list(split_rows(batch(), requests, size))
    assert [index for selection in selections for index in selection.indices] == list(range(sum(sizes)))
    assert all(size <= len(selection.numbers) < 2 * size for selection in selections[:-1])
    numbered = [
        (request.id, number)
        for selection in selections
        for request, number in zip(selection.requests, selection.numbers, strict=True)
    ]
    assert numbered == [(str(n), row) for n, rows in enumerate(sizes) for row in range(rows)]


@given(rows=st.integers(1, 6), order=st.randoms(use_true_random=False), size=st.integers(1, 6), changes=st.booleans())
def test_try_select_single_rows_agrees_with_split_rows(rows, order, size, changes):
    logged = batch([ROW] * rows)
    requests = list(logged.requests)
    if changes:
        order.shuffle(requests)
        requests = requests[: order.randint(1, rows)]
    selection = try_select_single_rows(logged, requests, size)
    if selection is None:
        assert len(requests) < rows or rows > size or requests != list(logged.requests)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_selection, "try_select_single_rows", lambda *_: None)
        [expected] = split_rows(logged, requests, size)
    assert (selection.requests, selection.numbers, selection.indices) == (
        expected.requests,
        expected.numbers,
        expected.indices,
    )


def test_small_batches_of_one_layout_are_merged_and_others_are_not():
    table = schema()
    first, second = manifest(table), manifest(table, version="8")
    batches = [batch(of=first), batch(of=first), batch(of=second), batch([{"area": 1.0}], of=second)]
    parts = [part for each in batches for part in split_rows(each, each.requests, 10)]
    assert [len(chunk) for chunk in merge_chunks(parts, 10)] == [2, 1, 1]
    assert [len(chunk) for chunk in merge_chunks(parts[:2], 1)] == [1, 1]
    [lines] = formatter(table).format_lines(parts[:2]).values()
    assert (lines.rows, lines.text.count(b"\n")) == (2, 2)


def test_lines_are_grouped_by_the_day_of_their_request():
    before, after = batch(received_at=NOON), batch(received_at=NOON + DAY)
    parts = [part for each in (before, after, before) for part in split_rows(each, each.requests, 10)]
    lines = formatter(schema()).format_lines(parts)
    assert {day: part.rows for day, part in lines.items()} == {"2025-06-21": 2, "2025-06-22": 1}


def test_a_column_that_no_client_sent_is_not_in_the_record():
    [record] = records(batch([{"area": 1.0, "district": "x"}]))
    assert record["inputs"] == {"area": 1.0, "district": "x"}


def test_a_record_may_have_no_inputs():
    [record] = records(batch([{"remark": "x"}]), formatter(schema(), text_ids=False))
    assert record["inputs"] == {}


def test_text_ids_are_omitted_unless_the_settings_include_them():
    [record] = records(batch(), formatter(schema(), text_ids=False))
    assert record["inputs"].keys() == ROW.keys() - {"remark"}


def test_without_a_key_sensitive_columns_are_omitted():
    record_formatter = formatter(schema(sensitive=["district", "age"]))
    [record] = records(batch(), record_formatter)
    assert record["inputs"].keys() == ROW.keys() - {"district", "age"}
    assert record_formatter.omitted_columns == ("age", "district")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        pytest.param("district", "east", "east", id="a text"),
        pytest.param("area", 3.0, "3", id="a whole number"),
        pytest.param("area", -0.0, "0", id="minus zero"),
        pytest.param("area", 61.5, "61.5", id="a number"),
        pytest.param("is_let", True, "true", id="a boolean"),
        pytest.param("sold", "2025-03-07T09:30:00", "2025-03-07T09:30:00", id="a datetime"),
        pytest.param("district", "\ud800", "\ud800", id="half a surrogate pair"),
    ],
)
def test_sensitive_values_are_keyed_hashes_of_their_text(name, value, text):
    table = schema(sensitive=[name])
    [record] = records(batch([ROW | {name: value}]), formatter(table, KEY))
    expected = blake2b(text.encode(errors="surrogatepass"), key=KEY, digest_size=16).hexdigest()
    assert record["inputs"][name] == expected
    [other] = records(batch([ROW | {name: value}]), formatter(table, b"another"))
    assert other["inputs"][name] != expected


@pytest.mark.parametrize("name", list(ROW))
def test_a_missing_sensitive_value_stays_missing(name):
    [record] = records(batch([ROW | {name: None}]), formatter(schema(sensitive=[name]), KEY))
    assert record["inputs"][name] is None


def test_a_lone_surrogate_is_replaced_only_in_its_text():
    written = records(batch([ROW | {"district": "a\ud800"}, ROW | {"district": "b,c"}, ROW]))
    assert [record["inputs"]["district"] for record in written] == ["a?", "b,c", "east"]


@pytest.mark.parametrize("name", ['a "quote"', "a \\ slash", "a\ttab", "ü", "a.b", "class", "field_0"])
def test_a_column_may_have_any_name(name):
    assert json.loads(encode_json_lines([make_struct_factory(["area", name])(1.5, "x")])) == {"area": 1.5, name: "x"}


def test_labels_with_the_same_text_become_one_key():
    assert json.loads(encode_json_lines([make_struct_factory(["1", "1"])(0.25, 0.75)])) == {"1": 0.75}
