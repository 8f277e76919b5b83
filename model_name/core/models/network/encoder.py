"""Encoder of the tabular network: numbers are scaled and embedded, categories are embedded."""

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_name.core.features import Feature, Matrix
from model_name.core.models.network.hyperparameters import NetworkHyperparameters
from model_name.core.models.piecewise_linear import FLOAT32_TINY, quantile_bins

CLIP_DEVIATIONS = 5.0  # standard deviations from the mean at which a number is clipped


class TabularEncoder(nn.Module):
    """Encoder from features to the inputs of a network, fitted to means, quantiles and gaps of the training rows.

    Its output has no NaN. Each output column comes from one feature; `source_features` holds the feature's position.
    """

    numbers: Tensor
    codes: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    deviation: Tensor
    inverse_deviation: Tensor
    has_gaps: Tensor
    missing: Tensor
    offsets: Tensor
    source_features: Tensor
    embeddings: nn.Embedding

    def __init__(self, features: Sequence[Feature], matrix: Matrix, hyperparameters: NetworkHyperparameters) -> None:
        """Fit the scaling of the numbers and initialise the embeddings.

        Inputs that the training rows do not show are exactly zero, not a random direction: hidden and constant numbers,
        gaps in a column that had none, unseen categories.
        """
        super().__init__()
        numbers = [index for index, feature in enumerate(features) if feature.kind == "number"]
        codes = [index for index, feature in enumerate(features) if feature.kind == "category"]
        self.has_numbers, self.has_codes = bool(numbers), bool(codes)
        self.noise = hyperparameters.noise
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.long))
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.long))
        # A hidden number is fitted on no rows.
        known = [matrix[:, index] if features[index].is_seasonal else matrix[:0, index] for index in numbers]
        self._fit_scale(known)
        is_periodic = hyperparameters.numbers == "periodic"
        self.expand = (
            PeriodicEmbedding(len(numbers), hyperparameters)
            if is_periodic
            else PiecewiseLinearEmbedding(known, hyperparameters.bins)
        )
        self._fit_codes(matrix[:, codes], [len(features[index].values) for index in codes], hyperparameters.embedding)
        widths = [1, 1, self.expand.width]
        source_features = [index for width in widths for index in numbers for _ in range(width)]
        source_features += [index for index in codes for _ in range(hyperparameters.embedding)]
        self.register_buffer("source_features", torch.tensor(source_features, dtype=torch.long), persistent=False)

    @property
    def width(self) -> int:
        """Number of inputs of the network."""
        return len(self.source_features)

    def forward(self, matrix: Tensor) -> Tensor:
        """Encode n rows, n x width."""
        parts = []
        if self.has_numbers:
            parts += self._encode_numbers(matrix.index_select(1, self.numbers))
        if self.has_codes:
            codes = matrix.index_select(1, self.codes)
            codes = torch.where(torch.isnan(codes), self.missing, codes).long()
            parts.append(self.embeddings(codes + self.offsets).flatten(1))
        return torch.cat(parts, dim=1)

    def _encode_numbers(self, numbers: Tensor) -> list[Tensor]:
        is_missing = torch.isnan(numbers)
        numbers = torch.where(is_missing, self.mean, numbers)
        if self.training and self.noise:
            numbers = numbers + torch.randn_like(numbers) * (self.noise * self.deviation) * ~is_missing
        numbers = torch.minimum(torch.maximum(numbers, self.low), self.high)
        standardised = (numbers - self.mean) * self.inverse_deviation
        return [standardised, is_missing.float() * self.has_gaps, self.expand(numbers, standardised).flatten(1)]

    def _fit_scale(self, columns: list[NDArray[np.float32]]) -> None:
        statistics = [_column_statistics(column) for column in columns]
        for name in ("mean", "low", "high", "deviation", "inverse_deviation", "has_gaps"):
            stacked = np.array([column[name] for column in statistics], dtype=np.float32)
            self.register_buffer(name, torch.from_numpy(stacked))

    def _fit_codes(self, matrix: Matrix, sizes: list[int], embedding: int) -> None:
        sizes_with_missing = [size + 1 for size in sizes]  # missing values have a code of their own
        starts = np.concatenate([[0], np.cumsum(sizes_with_missing)]).astype(np.int64)
        self.register_buffer("missing", torch.tensor(sizes, dtype=torch.float32))
        self.register_buffer("offsets", torch.from_numpy(starts[:-1]))
        if sizes:
            self.embeddings = nn.Embedding(int(starts[-1]), embedding)
            codes = np.where(np.isnan(matrix), sizes, matrix).astype(np.int64) + starts[:-1]
            counts = np.bincount(codes.ravel(), minlength=starts[-1])
            with torch.no_grad():
                self.embeddings.weight[torch.from_numpy(counts == 0)] = 0.0


class PiecewiseLinearEmbedding(nn.Module):
    """Piecewise-linear encoding of numbers in bins between quantiles, each 0 to 1 (PLE, Gorishniy et al. 2022)."""

    edges: Tensor
    steepness: Tensor

    def __init__(self, columns: list[NDArray[np.float32]], bins: int) -> None:
        """Fit the bins to the quantiles of each column."""
        super().__init__()
        self.width = bins
        fitted = [quantile_bins(_varying_values(column), bins) for column in columns]
        for index, name in enumerate(("edges", "steepness")):
            stacked = np.array([arrays[index] for arrays in fitted], dtype=np.float32).reshape(len(columns), bins)
            self.register_buffer(name, torch.from_numpy(stacked))

    def forward(self, numbers: Tensor, standardised: Tensor) -> Tensor:
        """Encode n x d numbers, n x d x bins."""
        return ((numbers.unsqueeze(2) - self.edges) * self.steepness).clamp(0.0, 1.0)


class PeriodicEmbedding(nn.Module):
    """Sines and cosines of learnt frequencies, then a linear layer per number and ReLU (PLR, Gorishniy et al. 2022)."""

    def __init__(self, numbers: int, hyperparameters: NetworkHyperparameters) -> None:
        """Initialise random frequencies, in cycles per standard deviation, and random weights."""
        super().__init__()
        self.width = hyperparameters.embedding
        waves = 2 * hyperparameters.frequencies
        self.frequencies = nn.Parameter(
            torch.randn(numbers, hyperparameters.frequencies) * hyperparameters.frequency_scale
        )
        self.weight = nn.Parameter((2 * torch.rand(numbers, waves, self.width) - 1) / sqrt(waves))
        self.bias = nn.Parameter((2 * torch.rand(numbers, 1, self.width) - 1) / sqrt(waves))

    def forward(self, numbers: Tensor, standardised: Tensor) -> Tensor:
        """Embed n x d standardised numbers, n x d x width."""
        angles = (2 * pi) * self.frequencies * standardised.unsqueeze(2)
        waves = torch.cat([angles.sin(), angles.cos()], dim=2)
        embedded = torch.matmul(waves.transpose(0, 1), self.weight) + self.bias
        return embedded.relu().transpose(0, 1)


def _varying_values(column: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the finite values of a column; none if they are constant."""
    known: NDArray[np.float64] = column[np.isfinite(column)].astype(np.float64)
    return known if len(known) and np.ptp(known) > FLOAT32_TINY else known[:0]


def _column_statistics(column: NDArray[np.float32]) -> dict[str, Any]:
    """Compute what the encoder stores of a number; the deviation of a constant is zero."""
    finite = column[np.isfinite(column)].astype(np.float64)
    mean = finite.mean() if len(finite) else 0.0
    known = _varying_values(column)
    deviation = known.std() if len(known) else 0.0
    return {
        "mean": mean,
        "low": mean - CLIP_DEVIATIONS * deviation,
        "high": mean + CLIP_DEVIATIONS * deviation,
        "deviation": deviation,
        "inverse_deviation": 1 / deviation if len(known) else 0.0,
        "has_gaps": 0 < len(finite) < len(column),
    }
