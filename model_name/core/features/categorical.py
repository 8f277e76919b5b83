"""Features of categories. Imports only numpy and pydantic, because servers import it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from model_name.core.features.feature import Feature
from model_name.core.schemas.columns import Columns
from model_name.core.schemas.row_validation import TypedRow
from model_name.core.schemas.strict_models import LaxTuple

OTHER_CATEGORY = "(other)"  # rare categories are merged into it


class OrdinalFeature(Feature):
    """Position of a category; NaN for a missing or unseen one.

    Attributes:
        rare: Rare categories, which share the last position, that of `OTHER_CATEGORY`.
    """

    KIND: Literal["code"] = "code"
    rare: LaxTuple[str] = ()

    @property
    @override
    def kind(self) -> Literal["number", "category"]:
        return "category"

    @property
    @override
    def recipe(self) -> tuple[Any, ...]:
        return (*super().recipe, bool(self.rare))

    @property
    @override
    def categories(self) -> tuple[str, ...]:
        """Known categories of the source column, with the rare ones instead of `OTHER_CATEGORY`."""
        return (*self.values[:-1], *self.rare) if self.rare else self.values

    @property
    @override
    def description(self) -> str:
        return f"one of {len(self.values):,} categories"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        return self._codes.transform(columns[self.source])

    @override
    def transform_row(self, row: TypedRow) -> float:
        return self._codes[row[self.source]]

    @cached_property
    def _codes(self) -> "CategoryMap":
        rare_code = float(len(self.values) - 1)
        return CategoryMap(np.nan, category_positions(self.values) | dict.fromkeys(self.rare, rare_code))


class OneHotFeature(Feature):
    """Whether a value is one of some categories, 1 or 0: a single category, or all rare ones."""

    KIND: Literal["one-hot"] = "one-hot"

    @property
    @override
    def description(self) -> str:
        return "whether it is this category" if len(self.values) == 1 else "whether it is a rare category"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        return self._flags.transform(columns[self.source])

    @override
    def transform_row(self, row: TypedRow) -> float:
        return self._flags[row[self.source]]

    @cached_property
    def _flags(self) -> "CategoryMap":
        return CategoryMap(0.0, dict.fromkeys(self.values, 1.0))


class TargetEncodedFeature(Feature):
    """Mean of the target, or share of a class, in the rows of a category.

    Attributes:
        rates: Means of the categories, shrunk towards the prior.
        rare: Categories that share one mean.
        prior: Mean of all rows, for a missing or unseen category.
    """

    KIND: Literal["rate"] = "rate"
    rates: LaxTuple[float]
    rare: LaxTuple[str] = ()
    prior: float

    @property
    @override
    def description(self) -> str:
        return f"mean of the target for each of {len(self.values):,} categories"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        return self._means.transform(columns[self.source])

    @override
    def transform_row(self, row: TypedRow) -> float:
        return self._means[row[self.source]]

    @cached_property
    def _means(self) -> "CategoryMap":
        return CategoryMap(self.prior, dict(zip(self.values, self.rates, strict=True)))


class CategoryMap(dict[Any, float]):
    """Number of each category, with a default for missing and unseen ones."""

    def __init__(self, default: float, known: Mapping[Any, float]) -> None:
        """Map each known category to its number and all others to the default."""
        super().__init__(known)
        self.default = default

    def __missing__(self, value: Any) -> float:
        """Return the default for a missing or unseen category."""
        return self.default

    def transform(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Map each of n categories to its number."""
        return np.fromiter(map(self.__getitem__, values.tolist()), dtype=np.float64, count=len(values))


def category_positions(values: LaxTuple[str]) -> dict[str, float]:
    """Map each category to its position."""
    return {value: float(code) for code, value in enumerate(values)}
