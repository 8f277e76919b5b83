"""Transformation of typed columns into the feature matrix: fitted once, then the same code in training and serving.

Imports only numpy and pydantic, because servers import it. `core.features.fitting` fits the features.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from operator import itemgetter
from typing import Annotated

import numpy as np
from pydantic import Field

from model_name.core.features.categorical import OneHotFeature, OrdinalFeature, TargetEncodedFeature
from model_name.core.features.datetimes import DatePartFeature, HolidayFeature
from model_name.core.features.feature import Feature, Matrix
from model_name.core.features.interactions import CrossFeature, ProductFeature
from model_name.core.features.numeric import MissingIndicator, NumericFeature
from model_name.core.schemas.columns import Columns
from model_name.core.schemas.row_validation import TypedRow
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple

AnyFeature = Annotated[
    NumericFeature
    | MissingIndicator
    | OrdinalFeature
    | OneHotFeature
    | TargetEncodedFeature
    | DatePartFeature
    | HolidayFeature
    | ProductFeature
    | CrossFeature,
    Field(discriminator="KIND"),
]


class Features(FrozenModel):
    """The fitted features of a model, with everything that a server needs to compute the matrix of a request.

    Attributes:
        columns: The features, one per column of the matrix.
    """

    columns: LaxTuple[AnyFeature]

    @property
    def names(self) -> list[str]:
        """Names of the d features, in the order of the matrix."""
        return [feature.name for feature in self.columns]

    def categories(self, source: str) -> tuple[str, ...]:
        """List the known categories of a column; none if it is of another kind."""
        known = [feature for feature in self.columns if feature.source == source]
        return tuple(dict.fromkeys(value for feature in known for value in feature.categories))

    def transform(self, columns: Columns) -> Matrix:
        """Compute the n x d matrix of typed columns."""
        rows = len(next(iter(columns.values())))
        matrix = np.empty((rows, len(self.columns)), dtype=np.float32)
        for position, feature in self._computed:
            matrix[:, position] = feature.transform(columns)
        if self._passthrough:
            positions, sources = self._passthrough
            matrix[:, positions] = np.array([columns[source] for source in sources]).T
        return matrix

    def transform_rows(self, rows: Sequence[TypedRow]) -> Matrix:
        """Compute the n x d matrix of typed rows; equal to `transform`, and faster for a few rows."""
        functions = self._row_functions
        return np.array([[function(row) for function in functions] for row in rows], dtype=np.float32)

    @cached_property
    def _row_functions(self) -> list[Callable[[TypedRow], float]]:
        """Functions that compute the features of a row."""
        return [
            itemgetter(feature.source) if _is_passthrough(feature) else feature.transform_row
            for feature in self.columns
        ]

    @cached_property
    def _passthrough(self) -> tuple[list[int], list[str]] | None:
        """Positions and sources of unchanged numbers, which are copied at once: much faster for a single row."""
        positions = [position for position, feature in enumerate(self.columns) if _is_passthrough(feature)]
        return (positions, [self.columns[position].source for position in positions]) if positions else None

    @cached_property
    def _computed(self) -> list[tuple[int, Feature]]:
        """Positions of all other features."""
        return [(position, feature) for position, feature in enumerate(self.columns) if not _is_passthrough(feature)]


def _is_passthrough(feature: Feature) -> bool:
    return isinstance(feature, NumericFeature) and feature.is_passthrough
