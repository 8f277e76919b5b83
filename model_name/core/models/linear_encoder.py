"""Linear encoder: standardised numbers, missing indicators, piecewise-linear basis, indicators of categories."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.features import Feature, Matrix
from model_name.core.models.piecewise_linear import FLOAT32_TINY, quantile_bins

CLIP_DEVIATIONS = 8.0  # standard deviations; a number beyond is treated as an error and not extrapolated


@dataclass(frozen=True)
class LinearEncoder:
    """Fitted encoder from the feature matrix to the inputs of a linear model.

    Attributes:
        numbers: Positions of the numeric features, k of them.
        codes: Positions of the categorical features.
        fills: Value that replaces a missing number.
        means: Means of the numbers.
        inverse: One over the standard deviations of the numbers; zero for a constant number.
        has_gaps: Whether a number is missing in some of the training rows.
        edges: Left edges of the bins of each number; k x bins.
        steepness: One over the widths of the bins; k x bins.
        offsets: Index of the first indicator of each categorical feature; its last indicator is for missing values.
        sizes: Number of categories of each categorical feature, missing values not counted.
    """

    numbers: NDArray[np.int64]
    codes: NDArray[np.int64]
    fills: NDArray[np.float32]
    means: NDArray[np.float32]
    inverse: NDArray[np.float32]
    has_gaps: NDArray[np.float32]
    edges: NDArray[np.float32]
    steepness: NDArray[np.float32]
    offsets: NDArray[np.float32]
    sizes: NDArray[np.float32]

    @classmethod
    def fit(cls, features: Sequence[Feature], matrix: Matrix, bins: int) -> "LinearEncoder":
        """Fit scales and quantiles; a feature whose season is incomplete in these rows is hidden (all zero)."""
        numbers = np.array([index for index, feature in enumerate(features) if feature.kind == "number"], dtype=int)
        codes = np.array([index for index, feature in enumerate(features) if feature.kind == "category"], dtype=int)
        sizes = np.array([len(features[index].values) for index in codes], dtype=np.float32)
        statistics = [
            _column_statistics(matrix[:, index], bins, is_seen=features[index].is_seasonal) for index in numbers
        ]
        columns = {
            name: np.array([column[name] for column in statistics], dtype=np.float32)
            for name in ("fills", "means", "inverse", "has_gaps", "edges", "steepness")
        }
        shape = (len(numbers), bins)
        columns |= {name: columns[name].reshape(shape) for name in ("edges", "steepness")}
        offsets = np.concatenate([[0], np.cumsum(sizes + 1)])[:-1].astype(np.float32)
        return cls(numbers=numbers, codes=codes, offsets=offsets, sizes=sizes, **columns)

    @property
    def indicator_count(self) -> int:
        """Number of indicators of all categorical features."""
        return int((self.sizes + 1).sum())

    @property
    def source_features(self) -> NDArray[np.int64]:
        """Position of the feature that each column of `encode_numbers` comes from."""
        basis = np.repeat(self.numbers, self.edges.shape[1])
        return np.concatenate([self.numbers, self.numbers, basis])

    def encode_numbers(self, matrix: Matrix) -> NDArray[np.float32]:
        """Encode the numbers as standardised values, missing indicators and basis; n x k (2 + bins)."""
        values = matrix[:, self.numbers]
        gaps = np.isnan(values)
        values = np.where(gaps, self.fills, values)
        scaled = np.clip((values - self.means) * self.inverse, -CLIP_DEVIATIONS, CLIP_DEVIATIONS)
        basis = np.clip((values[:, :, None] - self.edges) * self.steepness, 0, 1)
        flat = basis.reshape(len(matrix), -1)
        encoded: NDArray[np.float32] = np.concatenate([scaled, gaps * self.has_gaps, flat], axis=1, dtype=np.float32)
        return encoded

    def encode_codes(self, matrix: Matrix) -> NDArray[np.int64]:
        """Encode each category as the index of its indicator; n x categorical features."""
        codes = matrix[:, self.codes]
        indicators: NDArray[np.int64] = (np.where(np.isnan(codes), self.sizes, codes) + self.offsets).astype(np.int64)
        return indicators


def _column_statistics(column: NDArray[np.float32], bins: int, *, is_seen: bool) -> dict[str, Any]:
    """Compute what the encoder stores of a number; all zero if the number is hidden or constant."""
    known = column[np.isfinite(column)].astype(np.float64)
    varies = is_seen and len(known) > 0 and np.ptp(known) > FLOAT32_TINY
    edges, steepness = quantile_bins(known if varies else known[:0], bins)
    return {
        "fills": np.median(known) if len(known) else 0.0,
        "means": known.mean() if len(known) else 0.0,
        "inverse": 1 / known.std() if varies else 0.0,
        "has_gaps": is_seen and 0 < len(known) < len(column),
        "edges": edges,
        "steepness": steepness,
    }
