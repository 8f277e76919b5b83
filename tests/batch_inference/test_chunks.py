"""Chunks of a streamed table, and the ordered map over them."""

import time

import pytest

from model_name.batch_inference.chunks import map_ordered


def test_results_are_in_the_order_of_the_items():
    def slowly(number):
        time.sleep(0.01 * (number % 3))
        return number

    assert list(map_ordered(slowly, range(12), 4)) == list(range(12))


def test_an_exception_is_raised_at_the_position_of_its_item():
    results = map_ordered(lambda number: 1 / (3 - number), iter(range(10)), 2)
    assert [next(results) for _ in range(3)] == [1 / 3, 1 / 2, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_at_most_two_items_more_than_threads_are_submitted_ahead():
    taken = []
    results = map_ordered(lambda number: number, (taken.append(number) or number for number in range(100)), 3)
    next(results)
    assert len(taken) == 5
    results.close()
