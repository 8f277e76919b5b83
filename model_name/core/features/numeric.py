"""Features of numbers and booleans. Imports only numpy and pydantic, because servers import it."""

from math import isnan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from model_name.core.features.feature import Feature, clip_to_float32
from model_name.core.schemas.columns import FLOAT32_MAX, Columns, missing_mask
from model_name.core.schemas.row_validation import TypedRow
from model_name.core.schemas.strict_models import LaxTuple

SCALE_DESCRIPTIONS = {"standard": "standardised", "quantile": "by its rank", "log": "its logarithm"}


class NumericFeature(Feature):
    """A number or a boolean, imputed and scaled.

    Attributes:
        scale: Scaling, as in `Encoding.scale`.
        center: Mean that `standard` subtracts.
        spread: Standard deviation that `standard` divides by.
        knots: Quantiles of the training part, for `quantile`.
        ranks: Values that `quantile` maps the knots to.
        fill: Replacement of missing values, applied before scaling; missing values stay NaN if it is None.
    """

    KIND: Literal["number"] = "number"
    scale: Literal["none", "standard", "quantile", "log"] = "none"
    center: float = 0.0
    spread: float = 1.0
    knots: LaxTuple[float] = ()
    ranks: LaxTuple[float] = ()
    fill: float | None = None

    @property
    @override
    def recipe(self) -> tuple[Any, ...]:
        return (*super().recipe, self.scale, self.fill is not None)

    @property
    @override
    def description(self) -> str:
        scaled = "" if self.scale == "none" else f", {SCALE_DESCRIPTIONS[self.scale]}"
        return f"number{scaled}"

    @property
    def is_passthrough(self) -> bool:
        """Whether the values are those of the column, neither imputed nor scaled."""
        return self.scale == "none" and self.fill is None

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        values = columns[self.source]
        if self.fill is not None:
            values = np.where(np.isnan(values), self.fill, values)
        if self.scale == "log":
            values = np.copysign(np.log1p(np.abs(values)), values)
        elif self.scale == "standard":
            values = clip_to_float32((values - self.center) / self.spread)
        elif self.scale == "quantile":
            # With a single knot, np.interp would map NaN to its rank.
            values = np.where(np.isnan(values), np.nan, np.interp(values, self.knots, self.ranks))
        return values

    @override
    def transform_row(self, row: TypedRow) -> float:
        if self.scale in ("log", "quantile"):
            return super().transform_row(row)
        value: float = row[self.source]
        if self.fill is not None and isnan(value):
            value = self.fill
        if self.scale == "standard":
            value = min(max((value - self.center) / self.spread, -FLOAT32_MAX), FLOAT32_MAX)
        return value


class MissingIndicator(Feature):
    """Whether a value is missing: 1 or 0."""

    KIND: Literal["gap"] = "gap"

    @property
    @override
    def description(self) -> str:
        return "whether it is missing"

    @override
    def transform(self, columns: Columns) -> NDArray[Any]:
        return missing_mask(columns[self.source])

    @override
    def transform_row(self, row: TypedRow) -> float:
        value = row[self.source]
        return float(value is None or value != value)  # noqa: PLR0124  NaN differs from itself
