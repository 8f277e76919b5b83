"""Buffer of the prediction log: which rows share a block, when a block is taken out, and the bounds of the memory."""

import time

import numpy as np
import pytest

from model_name.core.schemas import Outputs
from model_name.serving.prediction_log.block_buffer import MAX_OPEN_BLOCKS, BlockBuffer
from model_name.serving.prediction_log.blocks import MAX_BLOCK_ROWS, BlockBuilder, LargeBatch
from tests.support.prediction_logs import ROW, batch, manifest, schema

ONE = batch()
MANY = batch([ROW] * 100)
LARGE = batch([ROW] * (MAX_BLOCK_ROWS // 2), sizes=[MAX_BLOCK_ROWS // 2])


def append(buffer, logged, times=1):
    for _ in range(times):
        buffer.append(logged, None, len(logged.outputs.prediction), 1.0)


def pop_all(buffer):
    items = []
    while (item := buffer.pop(0.0)) is not None:
        items.append(item)
        buffer.release(item.rows, item.memory_bytes)
    return items


def test_batches_of_one_layout_share_a_block_until_it_is_full():
    buffer = BlockBuffer()
    append(buffer, MANY, 20)
    assert not buffer.is_ready(3600)
    append(buffer, MANY, 2)
    assert buffer.is_ready(3600)
    assert [item.rows for item in pop_all(buffer)] == [2000, 200]
    assert (buffer.rows, buffer.memory_bytes) == (0, 0)


def test_a_block_is_taken_out_by_its_age():
    buffer = BlockBuffer()
    append(buffer, ONE)
    assert (buffer.is_ready(3600), buffer.pop(3600)) == (False, None)
    time.sleep(0.002)
    assert buffer.is_ready(0.001)
    assert buffer.pop(0.001).rows == 1


def test_a_large_batch_is_neither_copied_nor_does_it_keep_the_bodies():
    buffer = BlockBuffer()
    append(buffer, LARGE)
    assert buffer.is_ready(3600)
    [item] = pop_all(buffer)
    assert isinstance(item, LargeBatch)
    assert item.batch.inputs["area"] is LARGE.inputs["area"]
    assert item.batch.requests[0] is not LARGE.requests[0]
    assert item.memory_bytes > LARGE.requests[0].size


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(batch(of=manifest(schema(), "8")), id="another version"),
        pytest.param(batch([{"area": 1.0}]), id="fewer columns"),
        pytest.param(batch(outputs=Outputs(np.zeros(1), lower=np.zeros(1), upper=np.zeros(1))), id="an interval"),
    ],
)
def test_alternating_layouts_share_two_blocks(other):
    buffer = BlockBuffer()
    for _ in range(50):
        append(buffer, ONE)
        append(buffer, other)
    assert [item.rows for item in pop_all(buffer)] == [50, 50]


def test_the_memory_of_many_layouts_is_counted():
    # Given batches with as many layouts as a client may choose
    buffer = BlockBuffer()
    batches = [batch(of=manifest(schema(), str(version))) for version in range(3 * MAX_OPEN_BLOCKS)]
    for logged in batches:
        append(buffer, logged)
    # Then those of the open blocks count with their reserved memory, the others with that of a row
    whole = BlockBuilder(ONE, 0.0).memory_bytes
    assert MAX_OPEN_BLOCKS * whole < buffer.memory_bytes < (MAX_OPEN_BLOCKS + 0.5) * whole
    assert [item.rows for item in pop_all(buffer)] == [1] * len(batches)
    assert (buffer.rows, buffer.memory_bytes) == (0, 0)
