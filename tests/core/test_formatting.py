"""Figures are short."""

import pytest

from model_name.core.formatting import format_number, format_percent, format_bytes


@pytest.mark.parametrize(
    ("told_value", "words"),
    [
        pytest.param(format_number(None), "–", id="nothing"),
        pytest.param(format_number(123456.7), "123,457", id="large"),
        pytest.param(format_number(0.00012345), "0.0001234", id="small"),
        pytest.param(format_percent(0.0001), "< 0.1 %", id="nearly none"),
        pytest.param(format_percent(0.0), "0.0 %", id="none"),
        pytest.param(format_bytes(512), "512 bytes", id="bytes"),
        pytest.param(format_bytes(3 * 1024**2), "3 MiB", id="mebibytes"),
    ],
)
def test_figures_are_short(told_value, words):
    assert told_value == words
