"""Outputs of a model and their column names."""

import numpy as np
import pytest

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import label_text


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (True, "true"),
        (np.False_, "false"),
        (3, "3"),
        (3.0, "3"),
        (np.float32(2.5), "2.5"),
        ("abc", "abc"),
        (b"abc", "abc"),
        (float("inf"), "inf"),
    ],
)
def test_labels_have_one_canonical_text(label, text):
    assert label_text(label) == text


def test_output_columns_are_named_by_class():
    # given probabilities of three rows
    outputs = Outputs.from_scores(np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]), (False, True))
    # then the class with the larger probability is predicted, the first one of equals
    assert outputs.prediction.tolist() == [False, True, False]
    assert list(outputs.columns) == ["prediction", "probability_false", "probability_true"]
    assert outputs.columns["probability_true"].tolist() == [0.1, 0.8, 0.5]
    # and a regression has only predictions
    plain = Outputs.from_scores(np.array([[1.0], [2.0]]), ())
    assert list(plain.columns) == ["prediction"]
    assert plain.prediction.tolist() == [1.0, 2.0]
