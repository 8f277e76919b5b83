"""Budget of bytes that the bodies of all requests may take together."""

import pytest

from model_name.errors import BusyError
from model_name.serving.byte_budget import ByteBudget


def test_bytes_beyond_the_limit_are_rejected_until_others_are_released() -> None:
    budget = ByteBudget(10)
    budget.reserve(6)
    budget.reserve(4)
    with pytest.raises(BusyError, match="too many bytes of requests are held already; try again in a second"):
        budget.reserve(1)
    assert budget.used == 10
    budget.release(4)
    budget.reserve(1)
    assert budget.used == 7


def test_a_body_above_the_limit_is_accepted_while_nothing_else_is_reserved() -> None:
    budget = ByteBudget(10)
    budget.reserve(11)
    with pytest.raises(BusyError):
        budget.reserve(1)
    budget.release(11)
    assert budget.used == 0
