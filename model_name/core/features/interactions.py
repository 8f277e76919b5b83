"""Features of two columns. Imports only numpy and pydantic, because servers import it."""

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from model_name.core.features.categorical import CategoryMap, category_positions
from model_name.core.features.feature import Feature, clip_to_float32
from model_name.core.schemas.columns import FLOAT32_MAX, Columns
from model_name.core.schemas.row_validation import TypedRow


class ProductFeature(Feature):
    """Product of two numbers.

    Attributes:
        other: Name of the second column.
    """

    KIND: Literal["product"] = "product"
    other: str

    @property
    @override
    def sources(self) -> tuple[str, ...]:
        return (self.source, self.other)

    @property
    @override
    def description(self) -> str:
        return f"times {self.other}"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        return clip_to_float32(columns[self.source] * columns[self.other])

    @override
    def transform_row(self, row: TypedRow) -> float:
        return min(max(float(row[self.source] * row[self.other]), -FLOAT32_MAX), FLOAT32_MAX)


class CrossFeature(Feature):
    """Position of a pair of categories; NaN if the pair is unseen or one of them is missing.

    Attributes:
        other: Name of the second column.
    """

    KIND: Literal["cross"] = "cross"
    other: str

    @property
    @override
    def sources(self) -> tuple[str, ...]:
        return (self.source, self.other)

    @property
    @override
    def kind(self) -> Literal["number", "category"]:
        return "category"

    @property
    @override
    def categories(self) -> tuple[str, ...]:
        """Always empty: the values are pairs, not categories of one column."""
        return ()

    @property
    @override
    def description(self) -> str:
        return f"one of {len(self.values):,} pairs with {self.other}"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        return self._codes.transform(category_pairs(columns[self.source], columns[self.other]))

    @cached_property
    def _codes(self) -> CategoryMap:
        return CategoryMap(np.nan, category_positions(self.values))


def category_pairs(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Join two columns of categories into one of pairs, None where one of them is missing."""
    joined = np.empty(len(first), dtype=object)
    joined[:] = [
        None if one is None or other is None else f"{one} & {other}" for one, other in zip(first, second, strict=True)
    ]
    return joined
