"""Base class of features. Imports only numpy and pydantic, because servers import it."""

from abc import ABC, abstractmethod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas.columns import FLOAT32_MAX, Columns
from model_name.core.schemas.row_validation import TypedRow, typed_rows_to_columns
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

Matrix = NDArray[np.float32]
"""n x d features, NaN where a value is missing. float32, because every served graph computes with it."""


class Feature(FrozenModel, ABC):
    """A fitted feature: one column of the matrix.

    Attributes:
        name: Name of the feature in explanations.
        source: Name of the column that the feature is computed from.
        values: The known categories, in the order of their codes if the feature has codes; none for a number.
    """

    KIND: str
    name: str
    source: str
    values: LaxTuple[str] = ()

    @property
    def kind(self) -> Literal["number", "category"]:
        """Type of the feature's values: ordered numbers, or codes, which are positions in `values`."""
        return "number"

    @property
    def is_seasonal(self) -> bool:
        """False if the feature only grows with time in the training part, so that a smooth model would extrapolate."""
        return True

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of all columns that the feature is computed from."""
        return (self.source,)

    @property
    def description(self) -> str:
        """Human-readable description."""
        return self.kind

    @property
    def recipe(self) -> tuple[Any, ...]:
        """Settings that define the feature independently of the data; if they change, so does the model's recipe."""
        return (self.KIND, self.name, self.source)

    @property
    def categories(self) -> tuple[str, ...]:
        """Known categories of the source column; none for a number."""
        return self.values

    @abstractmethod
    def transform(self, columns: Columns) -> NDArray[Any]:
        """Compute the n values of the feature from typed columns."""

    def transform_row(self, row: TypedRow) -> float:
        """Compute the value of the feature from a typed row; equal to `transform` of a table with this row alone.

        Subclasses override it where Python computes a single value in less time than numpy.
        """
        return float(self.transform(typed_rows_to_columns([{source: row[source] for source in self.sources}]))[0])


def clip_to_float32(values: NDArray[Any]) -> NDArray[Any]:
    """Clip numbers to the range of float32; beyond it they would become infinite, which some models refuse."""
    clipped: NDArray[Any] = np.clip(values, -FLOAT32_MAX, FLOAT32_MAX)
    return clipped
