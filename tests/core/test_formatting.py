"""Formatting of numbers."""

import pytest

from model_name.core.formatting import format_bytes, format_number, format_percent


@pytest.mark.parametrize(
    ("formatted", "expected"),
    [
        pytest.param(format_number(None), "–", id="None"),
        pytest.param(format_number(123456.7), "123,457", id="large"),
        pytest.param(format_number(0.00012345), "0.0001234", id="small"),
        pytest.param(format_percent(0.0001), "< 0.1 %", id="a small share"),
        pytest.param(format_percent(0.0), "0.0 %", id="zero"),
        pytest.param(format_bytes(512), "512 bytes", id="bytes"),
        pytest.param(format_bytes(3 * 1024**2), "3 MiB", id="mebibytes"),
    ],
)
def test_numbers_are_formatted_briefly(formatted, expected):
    assert formatted == expected
