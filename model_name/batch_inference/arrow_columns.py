"""Conversion of columns between Arrow and NumPy."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_name.core.schemas import Label
from model_name.core.schemas.columns import Kind, label_text

ARROW_TYPES: dict[Kind, pa.DataType] = {
    "numeric": pa.float64(),
    "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
    "category": pa.string(),
    "text-id": pa.string(),
}
"""Arrow type of each kind of column."""


def to_numpy(values: Any) -> NDArray[Any]:
    """Convert an Arrow column to NumPy; equal texts share one object, which is three times as fast."""
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.uint8()) if values.null_count else values  # otherwise they become objects
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        values = values.dictionary_encode()
    if not pa.types.is_dictionary(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    texts = np.array([*values.dictionary.to_pylist(), None], dtype=object)
    column: NDArray[Any] = texts[values.indices.fill_null(len(values.dictionary)).to_numpy()]
    return column


def to_arrow(values: NDArray[Any], kind: pa.DataType) -> Any:
    """Convert a typed NumPy column to Arrow; missing values become null."""
    if pa.types.is_string(kind) and not {*map(type, values)} <= {str, type(None)}:  # labels of several types
        values = np.array([label_text(value) for value in values], dtype=object)
    return pa.array(values, from_pandas=True).cast(kind)


def label_type(classes: tuple[Label, ...]) -> pa.DataType:
    """Return the Arrow type of class labels; string if they have several types."""
    types = {type(label) for label in classes}
    if types == {bool}:
        return pa.bool_()
    return pa.int64() if types == {int} else pa.string()
