"""Blocks of logged rows: copies of small batches, and the division of large ones."""

from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import MatrixColumns
from model_name.serving.prediction_log import blocks as blocks_module
from model_name.serving.prediction_log.blocks import Block, BlockBuilder, LargeBatch, block_capacity
from tests.support.prediction_logs import ROW, batch, manifest, schema

SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=8)


def numbered(sizes, first=0):
    """Create a batch whose rows have their numbers as area and, halved, as prediction."""
    count = sum(sizes)
    rows = [ROW | {"area": float(first + row), "district": str(first + row)} for row in range(count)]
    return batch(rows, of=MANIFEST, sizes=sizes, outputs=Outputs(np.arange(first, first + count) / 2))


MANIFEST = manifest(schema())


def rows_of(block: Block):
    """List the rows of a block: request, number within the request, and the number of the batch's row three times."""
    requests = block.requests
    names = [
        (record[0], first + row)
        for record, first, count in zip(requests.records, requests.first_rows, requests.row_counts, strict=True)
        for row in range(count)
    ]
    values = zip(block.inputs["area"], block.inputs["district"], block.outputs["prediction"], strict=True)
    assert len(names) == block.rows
    return [(*name, area, float(text), output * 2) for name, (area, text, output) in zip(names, values, strict=True)]


def expected_rows(logged, requests=None):
    return [
        (logged.requests[request].id, row, *[logged.inputs["area"][logged.rows[request].start + row]] * 3)
        for request in (range(len(logged.rows)) if requests is None else requests)
        for row in range(logged.rows[request].stop - logged.rows[request].start)
    ]


@st.composite
def sampled_batches(draw):
    logged = numbered(draw(SIZES), first=draw(st.integers(0, 1000)))
    chosen = draw(st.none() | st.sets(st.integers(0, len(logged.rows) - 1), min_size=1).map(sorted))
    return logged, chosen


def as_columns(columns):
    return dict(columns)


def as_matrix(columns):
    names = ["area", "age", "is_let"]
    inputs = MatrixColumns(names, np.array([columns[name] for name in names]))
    inputs.update({name: columns[name] for name in ("district", "sold", "remark")})
    return inputs


def as_rows(columns):
    """Convert columns to typed rows, as the server has them if there are few."""
    names = ("area", "age", "is_let", "district", "sold", "remark")
    return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name].tolist() for name in names), strict=True)]


@given(st.lists(st.tuples(sampled_batches(), st.sampled_from([as_matrix, as_rows])), min_size=1, max_size=6))
def test_a_block_has_the_sampled_rows_of_its_batches_in_order(samples):
    samples = [(logged, requests, form) for (logged, requests), form in samples]
    builder = None
    for number, (logged, requests, form) in enumerate(samples):
        batch_of_form = logged._replace(inputs=form(logged.inputs))
        builder = builder or BlockBuilder(batch_of_form, 0.0)
        assert builder.fits(batch_of_form, 1)
        builder.append(batch_of_form, requests, float(number))
    [block] = builder.build()
    assert rows_of(block) == [row for logged, requests, _ in samples for row in expected_rows(logged, requests)]
    assert block.inputs["sold"] == [datetime(2025, 3, 7, 9, 30)] * block.rows
    assert np.isnan(block.inputs["age"]).all()
    assert not block.inputs["is_let"].any()
    counts = [len(logged.rows) if requests is None else len(requests) for logged, requests, _ in samples]
    assert block.requests.weights.tolist() == np.repeat(np.arange(len(samples)), counts).tolist()


@pytest.mark.parametrize("form", [as_columns, as_matrix, as_rows])
@pytest.mark.parametrize("names", [["area"], ["district"], ["area", "is_let"], ["sold", "area"]])
def test_any_set_of_columns_is_copied(names, form):
    logged = numbered([1, 2, 1])
    full = form(logged.inputs)
    if isinstance(full, list):
        inputs = [{name: row[name] for name in names} for row in full]
    elif form is as_matrix:
        numbers = [name for name in names if name in ("area", "is_let")]
        matrix = np.array([full[name] for name in numbers]).reshape(len(numbers), 4)
        inputs = MatrixColumns(numbers, matrix)
        inputs.update({name: full[name] for name in names if name not in numbers})
    else:
        inputs = {name: full[name] for name in names}
    builder = BlockBuilder(logged._replace(inputs=inputs), 0.0)
    for requests in (None, [0, 2]):
        builder.append(logged._replace(inputs=inputs), requests, 1.0)
    builder.trim()
    [block] = builder.build()
    assert {*block.inputs} == {*names}
    for name, values in block.inputs.items():
        expected = [logged.inputs[name].tolist()[row] for row in (0, 1, 2, 3, 0, 3)]
        assert [*values] == expected


@given(sampled_batches(), st.integers(1, 5))
def test_a_large_batch_is_divided_into_blocks_in_order(sample, capacity):
    logged, requests = sample
    expected = expected_rows(logged, requests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks_module, "MAX_BLOCK_ROWS", capacity)
        blocks = list(LargeBatch(logged, requests, 1.0, len(expected), 0.0).build())
    assert [row for block in blocks for row in rows_of(block)] == expected
    assert all(block.rows == capacity for block in blocks[:-1])
    assert 0 < blocks[-1].rows <= capacity


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"inputs": {"area": np.zeros(3), "district": np.array(["x"], object)}}, id="a number too many"),
        pytest.param({"inputs": {"area": np.zeros(1), "district": np.array(["x"] * 2, object)}}, id="a text too many"),
        pytest.param({"outputs": Outputs(np.zeros(1), lower=np.zeros(2), upper=np.zeros(1))}, id="an output too many"),
    ],
)
def test_a_block_with_columns_of_different_lengths_is_an_error(change):
    logged = batch([{"area": 1.0, "district": "x"}], of=MANIFEST)._replace(**change)
    builder = BlockBuilder(logged, 0.0)
    builder.append(logged, None, 1.0)
    assert builder.rows == 1
    with pytest.raises(ValueError, match=r"1 rows have 2 values|broadcast"):
        next(builder.build())


def test_a_batch_of_another_layout_does_not_fit():
    logged = numbered([1])
    builder = BlockBuilder(logged, 0.0)
    assert builder.fits(logged, 1)
    interval = Outputs(np.zeros(1), lower=np.zeros(1), upper=np.zeros(1))
    for other in (
        logged._replace(manifest=manifest(schema())),
        logged._replace(inputs={"area": logged.inputs["area"]}),
        logged._replace(outputs=interval),
    ):
        assert not builder.fits(other, 1)
    assert not builder.fits(logged, builder.max_batch_rows + 1)


def test_a_wide_table_has_fewer_rows_in_a_block():
    assert block_capacity(1) == blocks_module.MAX_BLOCK_ROWS
    assert block_capacity(1000) * 1001 * 8 <= blocks_module.MAX_BLOCK_BYTES
    assert block_capacity(10**9) == 1
