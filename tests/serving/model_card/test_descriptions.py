"""Descriptions of column profiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.serving.model_card.descriptions import bin_shares


@given(st.lists(st.floats(-1e6, 1e6), min_size=21, max_size=21).map(sorted))
def test_bin_shares_sum_to_one(quantiles):
    shares = bin_shares(quantiles)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= 0


def test_bin_shares_of_a_denormal_range_sum_to_one():
    assert sum(bin_shares([0.0] * 20 + [2.2250738585e-313])) == pytest.approx(1)


def test_bin_shares_of_evenly_spaced_quantiles_are_equal():
    assert bin_shares(list(np.linspace(0, 100, 21))) == pytest.approx([1 / 24] * 24)
