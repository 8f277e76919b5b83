"""From the features to the inputs of a tabular network: numbers scaled and embedded, categories embedded."""

from collections.abc import Sequence
from math import pi, sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_name.core.features.transforms import Feature, Matrix
from model_name.core.models.network.hyperparameters import NetworkSettings
from model_name.core.models.piecewise_linear import SMALLEST, pieces

CLIP_DEVIATIONS = 5.0  # standard deviations from the mean that a number is clipped at


class Encoder(nn.Module):
    """Features to the inputs of a network; knows the training rows by their means, quantiles and gaps.

    What it answers has no NaN. Each of its columns belongs to one feature, which `owners` names by its place.
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
    owners: Tensor
    embeddings: nn.Embedding

    def __init__(self, features: Sequence[Feature], matrix: Matrix, settings: NetworkSettings) -> None:
        """Fit the scaling of the numbers and start the embeddings.

        What the training rows do not show is worth exactly zero rather than a random direction: hidden and constant
        numbers, gaps in a column that had none, categories that never came.
        """
        super().__init__()
        numbers = [place for place, feature in enumerate(features) if feature.kind == "number"]
        codes = [place for place, feature in enumerate(features) if feature.kind == "category"]
        self.has_numbers, self.has_codes = bool(numbers), bool(codes)
        self.noise = settings.noise
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.long))
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.long))
        # What is hidden from it has no rows.
        known = [matrix[:, place] if features[place].is_seasonal else matrix[:0, place] for place in numbers]
        self._fit_scale(known)
        is_periodic = settings.numbers == "periodic"
        self.expand = Periodic(len(numbers), settings) if is_periodic else Pieces(known, settings.bins)
        self._fit_codes(matrix[:, codes], [len(features[place].values) for place in codes], settings.embedding)
        widths = [1, 1, self.expand.width]
        owners = [place for width in widths for place in numbers for _ in range(width)]
        owners += [place for place in codes for _ in range(settings.embedding)]
        self.register_buffer("owners", torch.tensor(owners, dtype=torch.long), persistent=False)

    @property
    def width(self) -> int:
        """How many inputs the network has."""
        return len(self.owners)

    def forward(self, matrix: Tensor) -> Tensor:
        """The inputs of n rows, n x width."""
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
        described = [_describe(column) for column in columns]
        for name in ("mean", "low", "high", "deviation", "inverse_deviation", "has_gaps"):
            stacked = np.array([column[name] for column in described], dtype=np.float32)
            self.register_buffer(name, torch.from_numpy(stacked))

    def _fit_codes(self, matrix: Matrix, sizes: list[int], embedding: int) -> None:
        starts = np.concatenate([[0], np.cumsum([size + 1 for size in sizes])]).astype(np.int64)  # + 1: the missing one
        self.register_buffer("missing", torch.tensor(sizes, dtype=torch.float32))
        self.register_buffer("offsets", torch.from_numpy(starts[:-1]))
        if sizes:
            self.embeddings = nn.Embedding(int(starts[-1]), embedding)
            codes = np.where(np.isnan(matrix), sizes, matrix).astype(np.int64) + starts[:-1]
            counts = np.bincount(codes.ravel(), minlength=starts[-1])
            with torch.no_grad():
                self.embeddings.weight[torch.from_numpy(counts == 0)] = 0.0


class Pieces(nn.Module):
    """How far a number has come through each piece between two quantiles, 0 to 1 (Gorishniy et al. 2022, PLE)."""

    edges: Tensor
    steepness: Tensor

    def __init__(self, columns: list[NDArray[np.float32]], bins: int) -> None:
        """Lay the pieces between the quantiles of each column."""
        super().__init__()
        self.width = bins
        found = [pieces(_known(column), bins) for column in columns]
        for place, name in enumerate(("edges", "steepness")):
            stacked = np.array([column[place] for column in found], dtype=np.float32).reshape(len(columns), bins)
            self.register_buffer(name, torch.from_numpy(stacked))

    def forward(self, numbers: Tensor, standardised: Tensor) -> Tensor:
        """The pieces of n x d numbers, n x d x bins."""
        return ((numbers.unsqueeze(2) - self.edges) * self.steepness).clamp(0.0, 1.0)


class Periodic(nn.Module):
    """Sines and cosines of learnt frequencies, then a layer of each number's own (Gorishniy et al. 2022, PLR)."""

    def __init__(self, numbers: int, settings: NetworkSettings) -> None:
        """Start from random frequencies, in turns a deviation, and random weights."""
        super().__init__()
        self.width = settings.embedding
        waves = 2 * settings.frequencies
        self.frequencies = nn.Parameter(torch.randn(numbers, settings.frequencies) * settings.frequency_scale)
        self.weight = nn.Parameter((2 * torch.rand(numbers, waves, self.width) - 1) / sqrt(waves))
        self.bias = nn.Parameter((2 * torch.rand(numbers, 1, self.width) - 1) / sqrt(waves))

    def forward(self, numbers: Tensor, standardised: Tensor) -> Tensor:
        """The embeddings of n x d standardised numbers, n x d x width."""
        angles = (2 * pi) * self.frequencies * standardised.unsqueeze(2)
        waves = torch.cat([angles.sin(), angles.cos()], dim=2)
        mixed = torch.matmul(waves.transpose(0, 1), self.weight) + self.bias
        return mixed.relu().transpose(0, 1)


def _known(column: NDArray[np.float32]) -> NDArray[np.float64]:
    """The finite values of a column; none where they do not vary."""
    known: NDArray[np.float64] = column[np.isfinite(column)].astype(np.float64)
    return known if len(known) and np.ptp(known) > SMALLEST else known[:0]


def _describe(column: NDArray[np.float32]) -> dict[str, Any]:
    """What the encoder remembers of a number; no deviation where it never varies."""
    finite = column[np.isfinite(column)].astype(np.float64)
    mean = finite.mean() if len(finite) else 0.0
    known = _known(column)
    deviation = known.std() if len(known) else 0.0
    return {
        "mean": mean,
        "low": mean - CLIP_DEVIATIONS * deviation,
        "high": mean + CLIP_DEVIATIONS * deviation,
        "deviation": deviation,
        "inverse_deviation": 1 / deviation if len(known) else 0.0,
        "has_gaps": 0 < len(finite) < len(column),
    }
