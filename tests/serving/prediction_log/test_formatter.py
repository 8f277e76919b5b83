"""Lines of the prediction log: values, outputs, sensitive columns and days."""

import json
from datetime import datetime
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas import Outputs
from model_name.serving.prediction_log.blocks import BlockBuilder, LargeBatch
from model_name.serving.prediction_log.formatter import BlockFormatter, encode_line
from tests.support.prediction_logs import CLASSES, DAY, NOON, ROW, batch, expand, manifest, schema

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
    return BlockFormatter(manifest(table), slot="blue", key=key, text_ids=text_ids)


def build_block(*batches, weight=1.0):
    builder = BlockBuilder(batches[0], 0.0)
    for each in batches:
        builder.append(each, None, weight)
    [block] = builder.build()
    return block


def records(logged, block_formatter=None, *, weight=1.0):
    """Format a batch as one block, and return its rows as objects."""
    block_formatter = block_formatter or formatter(logged.manifest.table)
    lines_by_day = block_formatter.format_block(build_block(logged, weight=weight))
    return [row for encoded in lines_by_day.values() for row in expand(json.loads(encoded.text))]


def test_a_record_has_the_request_the_version_the_inputs_and_the_outputs():
    [record] = records(batch())
    assert record == {
        "format": 2,
        "time": "2025-06-21T12:00:00Z",
        "request_id": "request-0",
        "row": 0,
        "weight": 1.0,
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


def test_the_document_of_a_block_has_an_array_per_column():
    block = build_block(batch([ROW] * 3, sizes=[1, 2], trace_ids=["", "4bf92f35"]), weight=2.0)
    [encoded] = formatter(schema()).format_block(block).values()
    assert (encoded.rows, encoded.text.count(b"\n")) == (3, 1)
    assert json.loads(encoded.text) == {
        "format": 2,
        "model": "flats",
        "version": "7",
        "semver": "1.2.3",
        "slot": "blue",
        "requests": {
            "id": ["request-0", "request-1"],
            "trace_id": [None, "4bf92f35"],
            "time": ["2025-06-21T12:00:00Z"] * 2,
            "protocol": ["v1", "v1"],
            "latency_ms": [3.42, 3.42],
            "weight": [2.0, 2.0],
            "first_row": [0, 0],
            "rows": [1, 2],
        },
        "inputs": {name: [value] * 3 for name, value in ROW.items()},
        "outputs": {"prediction": [0.0, 0.5, 1.0]},
    }


def test_the_days_of_a_block_are_formatted_apart():
    days = [NOON, NOON + DAY, NOON]
    batches = [
        batch([ROW | {"area": 10.0 * day}, ROW | {"area": 10.0 * day + 1}], sizes=[2], received_at=received_at)
        for day, received_at in enumerate(days)
    ]
    lines = formatter(schema()).format_block(build_block(*batches))
    assert {day: part.rows for day, part in lines.items()} == {"2025-06-21": 4, "2025-06-22": 2}
    areas = {
        day: [(row["inputs"]["area"], row["row"], row["time"]) for row in expand(json.loads(part.text))]
        for day, part in lines.items()
    }
    first, second = "2025-06-21T12:00:00Z", "2025-06-22T12:00:00Z"
    assert areas == {
        "2025-06-21": [(0.0, 0, first), (1.0, 1, first), (20.0, 0, first), (21.0, 1, first)],
        "2025-06-22": [(10.0, 0, second), (11.0, 1, second)],
    }


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
    block_formatter = formatter(schema(sensitive=["district", "age"]))
    [record] = records(batch(), block_formatter)
    assert record["inputs"].keys() == ROW.keys() - {"district", "age"}
    assert block_formatter.omitted_columns == ("age", "district")


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


@pytest.mark.parametrize("name", ['a "quote"', "a \\ slash", "a\ttab", "ü", "a.b", "class", "half \ud800"])
def test_a_column_may_have_any_name(name):
    expected = name.replace("\ud800", "?")
    assert json.loads(encode_line({"area": [1.5], name: ["x"]})) == {"area": [1.5], expected: ["x"]}


def test_labels_with_the_same_text_become_one_key():
    outputs = Outputs(np.array(["1"], object), np.array([[0.25, 0.75]]), ("1", 1))
    [record] = records(batch(of=manifest(schema("multiclass")), outputs=outputs))
    assert record["outputs"]["probabilities"] == {"1": 0.75}


def test_a_large_batch_is_formatted_as_a_small_one():
    logged = batch([ROW | {"area": float(row)} for row in range(5)], sizes=[1, 3, 1])
    [block] = LargeBatch(logged, None, 1.0, 5, 0.0).build()
    [large], [small] = (formatter(schema()).format_block(each).values() for each in (block, build_block(logged)))
    assert large.text == small.text
