"""What tensors may hold."""

from typing import Any

import pytest

from model_name.serving.protocols.tensors import label_datatype


@pytest.mark.parametrize(
    ("classes", "datatype"),
    [
        pytest.param((), "FP64", id="a regression"),
        pytest.param((False, True), "BOOL", id="booleans"),
        pytest.param((0, 1, 2), "INT64", id="integers"),
        pytest.param(("a", "b"), "BYTES", id="texts"),
        pytest.param((0, "a", True), "BYTES", id="a mixture"),
    ],
)
def test_labels_keep_their_datatype(classes: tuple[Any, ...], datatype: str) -> None:
    assert label_datatype(classes) == datatype
