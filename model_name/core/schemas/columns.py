"""Definition of one column of a table: kind, bounds, categories, and the features made of it.

Imports only numpy and pydantic, because servers import it.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, model_validator

from model_name.core.schemas.encodings import Encoding
from model_name.core.schemas.lags import LagSpec
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

Kind = Literal["numeric", "category", "boolean", "datetime", "text-id"]
Columns = dict[str, NDArray[Any]]
"""A table as typed arrays of length n by column name: float64 with NaN for numeric and boolean, datetime64[us] with NaT
for datetime, objects (str or None) for category and text-id."""
FLOAT32_MAX = float(np.finfo(np.float32).max)  # largest input of an ONNX graph


class MatrixColumns(dict[str, NDArray[Any]]):
    """Columns of which some are also the rows of a matrix, so that they can be copied at once.

    Attributes:
        matrix: m x n values of these columns.
        names: Names of the m columns.
    """

    __slots__ = ("matrix", "names")

    def __init__(self, names: Sequence[str], matrix: NDArray[np.float64]) -> None:
        """Create a column of each row; further columns may be added.

        Args:
            names: Names of the columns.
            matrix: m x n values of these columns.
        """
        super().__init__(zip(names, matrix, strict=True))
        self.names = names
        self.matrix = matrix


class Column(FrozenModel):
    """One column of a table.

    Attributes:
        kind: Type of the values.
        nullable: Whether a value may be missing.
        min: Smallest allowed value of a numeric column.
        max: Largest allowed value of a numeric column.
        out_of_bounds: Treatment of rows beyond the bounds; requests cannot drop a row, so `drop` refuses it there.
        values: The categories of a category column; by default those of the training part.
        unseen: Treatment of a category that is not in `values`: `other` treats it as missing.
        feature: Whether the column is an input of the model. A `text-id` never is.
        sensitive: Whether the values must not appear in logs.
        encode: Encoding of the values as features.
        history: Definition of a lag column, which preparation computes from earlier rows and requests must carry.
        description: Free text, shown to people.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    kind: Kind
    nullable: bool = False
    min: float | None = None
    max: float | None = None
    out_of_bounds: Literal["refuse", "clip", "drop"] = "refuse"
    values: LaxTuple[str] | None = None
    unseen: Literal["refuse", "other"] = "other"
    feature: bool = True
    sensitive: bool = False
    encode: Encoding = Encoding()
    history: LagSpec | None = None
    description: str = ""

    @model_validator(mode="after")
    def _check_kind_options(self) -> Self:
        if self.kind != "numeric" and (self.min is not None or self.max is not None):
            raise ValueError(f"min and max belong to numeric columns, this one is {self.kind}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        if self.values is not None and self.kind != "category":
            raise ValueError(f"values belong to category columns, this one is {self.kind}")
        if self.values is not None and len(set(self.values)) < len(self.values):
            raise ValueError("values names a category twice")
        unsupported = self.encode.unsupported_keys(self.kind)
        if unsupported:
            raise ValueError(f"encode.{unsupported[0]} does not belong to a {self.kind} column")
        if self.history is not None and (self.kind != "numeric" or not self.nullable):
            raise ValueError("a history is `kind: numeric, nullable: true`: the first rows have none")
        return self

    @property
    def contract(self) -> tuple[Any, ...]:
        """Settings that decide whether a request's value is accepted; part of the schema's fingerprint."""
        bounds = None if self.out_of_bounds == "clip" else (self.min, self.max)
        values = self.values if self.unseen == "refuse" else None
        return (self.kind, self.nullable, bounds, values)

    @property
    def is_input(self) -> bool:
        """Whether a request must carry the column."""
        return self.feature and self.kind != "text-id"


def label_text(label: Any) -> str:
    """Convert a category or a label to its canonical text: `true`, `3`, `abc`."""
    if isinstance(label, bool | np.bool_):
        return str(bool(label)).lower()
    if isinstance(label, float | np.floating) and float(label).is_integer():
        return str(int(label))
    return label.decode() if isinstance(label, bytes) else str(label)


def display_value(column: Column, value: Any) -> str:
    """Format a value for a message. Messages are logged and sent to clients, so a sensitive value is left out."""
    if column.sensitive:
        return "the value"
    return repr(value) if isinstance(value, str) else str(value)


def and_more(names: Sequence[str]) -> str:
    """Format further names for the end of a message: `" (and a, b)"`, or an empty text if there are none."""
    return f" (and {', '.join(names)})" if names else ""


def float32_bounds(column: Column) -> tuple[float, float]:
    """Return the smallest and the largest valid number of a numeric column, within the range of float32."""
    low = -FLOAT32_MAX if column.min is None else max(column.min, -FLOAT32_MAX)
    high = FLOAT32_MAX if column.max is None else min(column.max, FLOAT32_MAX)
    return low, high


def is_missing(value: Any) -> bool:
    """Return whether a raw value is None, NaN, NaT or pandas' NA."""
    return (
        value is None
        or type(value).__name__ in {"NAType", "NaTType"}
        or (isinstance(value, float | np.floating) and np.isnan(value))
    )


def missing_mask(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which values of a typed column are missing."""
    if values.dtype.kind == "O":
        is_none: NDArray[np.bool_] = values == np.array(None)  # elementwise, which `is` is not
        return is_none
    is_nan: NDArray[np.bool_] = np.isnat(values) if values.dtype.kind == "M" else np.isnan(values)
    return is_nan
