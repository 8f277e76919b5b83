"""Explanations: additivity, classes and importances."""

import numpy as np
import pytest

from model_name.core.models.explanation import ADDITIVITY_TOLERANCE, Explanation
from model_name.errors import ExplanationError


@pytest.mark.parametrize(
    ("values", "score", "is_additive"),
    [
        pytest.param([3e6, -1e6], 7e6 + 0.5, True, id="rounding error of float32"),
        pytest.param([0.3, -0.3], 5.0, True, id="an average row"),
        pytest.param([0.3, -0.3], 5.02, False, id="an average row, off by a part of its contributions"),
        pytest.param([0.0, 0.0], 5.0, True, id="no contributions"),
        pytest.param([0.0, 0.0], 5.01, False, id="no contributions, but another score"),
    ],
)
def test_additivity_error_of_a_single_row(values, score, is_additive):
    base = 5.0 if score < 1e6 else 5e6
    explanation = Explanation(np.array([values]), np.array(base), np.array([score]), "prediction", ["a", "b"])
    assert (explanation.additivity_error < ADDITIVITY_TOLERANCE) == is_additive
    if not is_additive:
        with pytest.raises(ExplanationError, match="Kind: contributions miss the scores by"):
            explanation.check_additive("Kind")


def test_for_classes_selects_one_class_per_row():
    values = np.arange(12.0).reshape(2, 2, 3)
    base = np.array([10.0, 20.0, 30.0])
    scores = values.sum(axis=1) + base
    explanation = Explanation(values, base, scores, "log-odds", ["a", "b"]).for_classes(np.array([2, 0]))
    np.testing.assert_array_equal(explanation.values, [[2.0, 5.0], [6.0, 9.0]])
    np.testing.assert_array_equal(explanation.base, [30.0, 10.0])
    np.testing.assert_array_equal(explanation.scores, [37.0, 25.0])
    assert explanation.additivity_error == 0


def test_importances_of_an_explanation_are_means_over_rows_and_classes():
    values = np.array([[[1.0, -1.0], [0.0, 4.0]]])
    explanation = Explanation(values, np.zeros(2), values.sum(axis=1), "log-odds", ["a", "b"])
    assert explanation.importances == {"b": 2.0, "a": 1.0}
    assert explanation.additivity_error == 0
