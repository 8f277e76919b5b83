"""Conversion of columns between Arrow and NumPy."""

import numpy as np

from model_name.batch_inference.arrow_columns import label_type, to_arrow


def test_labels_of_several_types_become_texts():
    assert label_type((1, "a", False)) == label_type(("a", "b", "c"))
    values = np.array([1, "a", False], dtype=object)
    assert to_arrow(values, label_type((1, "a", False))).to_pylist() == ["1", "a", "false"]
