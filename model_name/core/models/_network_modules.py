"""What a tabular network is made of. Needs torch, but not Lightning, so that a fitted one loads without it."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_name.core.features import Feature, Matrix
from model_name.core.models.base import GRAPH_INPUT, GRAPH_OUTPUT, OPSET

CLIP_DEVIATIONS = 5.0  # standard deviations from the mean that a number is clipped at
SCORING_ROWS = 8192  # at once: more do not fit the caches of a processor
SMALLEST = float(np.finfo(np.float32).tiny)


class Encoder(nn.Module):
    """Features to the inputs of a network; knows the training rows by their means, quantiles and gaps."""

    numbers: Tensor
    codes: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    inverse_deviation: Tensor
    has_gaps: Tensor
    edges: Tensor
    steepness: Tensor
    missing: Tensor
    offsets: Tensor
    embeddings: nn.Embedding

    def __init__(self, features: Sequence[Feature], matrix: Matrix, *, bins: int, embedding: int) -> None:
        """Fit the scaling of the numbers and start the embeddings of the categories.

        What the training rows do not show is worth exactly zero rather than a random direction: hidden and constant
        numbers, gaps in a column that had none, categories that never came.
        """
        super().__init__()
        numbers = [place for place, feature in enumerate(features) if feature.kind == "number"]
        codes = [place for place, feature in enumerate(features) if feature.kind == "category"]
        self.has_numbers, self.has_codes = bool(numbers), bool(codes)
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.long))
        self.register_buffer("codes", torch.tensor(codes, dtype=torch.long))
        self._fit_numbers(matrix[:, numbers], np.array([features[place].is_seasonal for place in numbers]), bins)
        self._fit_codes(matrix[:, codes], [len(features[place].values) for place in codes], embedding)
        self.width = len(numbers) * (bins + 2) + len(codes) * embedding

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
        numbers = torch.minimum(torch.maximum(numbers, self.low), self.high)
        pieces = ((numbers.unsqueeze(2) - self.edges) * self.steepness).clamp(0.0, 1.0)
        return [(numbers - self.mean) * self.inverse_deviation, is_missing.float() * self.has_gaps, pieces.flatten(1)]

    def _fit_numbers(self, matrix: Matrix, is_seen: NDArray[np.bool_], bins: int) -> None:
        columns = [
            _describe(column if seen else column[:0], bins) for column, seen in zip(matrix.T, is_seen, strict=True)
        ]
        for name in ("mean", "low", "high", "inverse_deviation", "has_gaps", "edges", "steepness"):
            stacked = np.array([column[name] for column in columns], dtype=np.float32)
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


class Block(nn.Module):
    """Adds to its input what two layers make of it."""

    def __init__(self, width: int, dropout: float) -> None:
        """Start from random weights."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.Dropout(dropout)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """The inputs, and the answer to them."""
        answer: Tensor = inputs + self.layers(inputs)
        return answer


class Network(nn.Module):
    """From the feature matrix to scores, all scaling included."""

    target_mean: Tensor
    target_deviation: Tensor

    def __init__(
        self, encoder: Encoder, *, hidden: int, blocks: int, dropout: float, classes: int, targets: NDArray[Any]
    ) -> None:
        """Start from random weights; the scale of a regression is that of the targets given."""
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.body = nn.Sequential(
            nn.Linear(encoder.width, hidden),
            *(Block(hidden, dropout) for _ in range(blocks)),
            nn.LayerNorm(hidden),
            nn.SiLU(),
            nn.Linear(hidden, classes or 1),
        )
        mean, deviation = (0.0, 1.0) if classes else (float(targets.mean()), float(targets.std()) or 1.0)
        self.register_buffer("target_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("target_deviation", torch.tensor(deviation, dtype=torch.float32))

    def raw(self, matrix: Tensor) -> Tensor:
        """What the loss looks at: log-odds of the classes, or the standardised prediction; n x k or n x 1."""
        answer: Tensor = self.body(self.encoder(matrix))
        return answer

    def forward(self, matrix: Tensor) -> Tensor:
        """What is served: probabilities, n x k, or predictions in the units of the target, n x 1."""
        raw = self.raw(matrix)
        return torch.softmax(raw, dim=1) if self.classes else raw * self.target_deviation + self.target_mean

    @torch.inference_mode()
    def score(self, matrix: Matrix) -> NDArray[np.float32]:
        """The same for arrays of any length."""
        rows = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
        scores: NDArray[np.float32] = torch.cat([self(some) for some in torch.split(rows, SCORING_ROWS)]).numpy()
        return scores


def to_onnx(network: Network, features: int) -> onnx.ModelProto:
    """The graph of what is served, weights inside.

    By the exporter of TorchScript, which takes 0.3 s; that of `torch.export` takes 10 s at its first call.
    """
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch is pinned, hence its older exporter stays
        torch.onnx.export(
            network,
            (torch.zeros(2, features),),
            graph,  # type: ignore[arg-type]  # torch's annotation forgets what this exporter also takes
            dynamo=False,
            opset_version=OPSET,
            input_names=[GRAPH_INPUT],
            output_names=[GRAPH_OUTPUT],
            dynamic_axes={GRAPH_INPUT: {0: "rows"}, GRAPH_OUTPUT: {0: "rows"}},
        )
    return onnx.load_from_string(graph.getvalue())


def _describe(column: NDArray[np.float32], bins: int) -> dict[str, Any]:
    """What the encoder remembers of a number; all zero where it never varies."""
    known = column[np.isfinite(column)].astype(np.float64)
    mean = known.mean() if len(known) else 0.0
    varies = len(known) > 0 and np.ptp(known) > SMALLEST
    deviation = known.std() if varies else 0.0
    edges, steepness = _pieces(known, bins) if varies else (np.zeros(bins), np.zeros(bins))
    return {
        "mean": mean,
        "low": mean - CLIP_DEVIATIONS * deviation,
        "high": mean + CLIP_DEVIATIONS * deviation,
        "inverse_deviation": 1 / deviation if varies else 0.0,
        "has_gaps": 0 < len(known) < len(column),
        "edges": edges,
        "steepness": steepness,
    }


def _pieces(known: NDArray[np.float64], bins: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Left edges of the pieces between quantiles, and one over their widths; zero for pieces that are not needed."""
    quantiles = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)).astype(np.float32)).astype(np.float64)
    widths = np.diff(quantiles)
    edges, steepness = np.zeros(bins), np.zeros(bins)
    edges[: len(widths)] = quantiles[:-1]
    steepness[: len(widths)] = 1 / np.maximum(widths, SMALLEST)
    return edges, steepness
