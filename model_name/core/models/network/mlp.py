"""Layers of the tabular network. Needs torch but not Lightning, so that a fitted network loads without it."""

from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model_name.core.features import Matrix
from model_name.core.models.network.encoder import TabularEncoder
from model_name.core.models.network.hyperparameters import NetworkHyperparameters

SCORING_BATCH_SIZE = 8192  # rows; more do not fit the caches of a processor
BYTE_VALUES = 256


class TabularMLP(nn.Module):
    """Multilayer perceptron from the feature matrix to scores, all scaling included.

    `body` has only layers that SHAP's DeepLIFT supports, so that explanations can be compared with it.
    """

    target_mean: Tensor
    target_deviation: Tensor

    def __init__(
        self, encoder: TabularEncoder, hyperparameters: NetworkHyperparameters, *, classes: int, targets: NDArray[Any]
    ) -> None:
        """Initialise random weights; a regression is scaled by the mean and deviation of `targets`."""
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.members = hyperparameters.members
        self.body = build_mlp(encoder.width, classes or 1, hyperparameters)
        mean, deviation = (0.0, 1.0) if classes else (float(targets.mean()), float(targets.std()) or 1.0)
        self.register_buffer("target_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("target_deviation", torch.tensor(deviation, dtype=torch.float32))

    def logits(self, encoded: Tensor) -> Tensor:
        """Compute log-odds of k classes, or the standardised prediction, of n encoded rows.

        Returns:
            Logits, n x members x k.
        """
        logits: Tensor = self.body(encoded.unsqueeze(1)) if self.members > 1 else self.body(encoded).unsqueeze(1)
        return logits

    def to_scores(self, logits: Tensor) -> Tensor:
        """Convert logits to the members' mean probabilities, n x k, or mean prediction in the target's units, n x 1."""
        if self.classes:
            return torch.softmax(logits, dim=2).mean(dim=1)
        # A mean over one member would cost a kernel.
        mean = logits.mean(dim=1) if self.members > 1 else logits.squeeze(1)
        return mean * self.target_deviation + self.target_mean

    def forward(self, matrix: Tensor) -> Tensor:
        """Compute the scores of n rows of features."""
        return self.to_scores(self.logits(self.encoder(matrix)))

    @torch.inference_mode()
    def score(self, matrix: Matrix) -> NDArray[np.float32]:
        """Compute the scores of an array of any length, in batches."""
        rows = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
        scores: NDArray[np.float32] = torch.cat(
            [self(batch) for batch in torch.split(rows, SCORING_BATCH_SIZE)]
        ).numpy()
        return scores


def build_mlp(width: int, outputs: int, hyperparameters: NetworkHyperparameters) -> nn.Sequential:
    """Build the layers after the encoder: n x width to n x outputs, or n x 1 x width to n x members x outputs."""
    layers: list[nn.Module] = []
    for depth in range(hyperparameters.layers):
        layers += [_linear(width, hyperparameters, is_first=not depth), nn.ReLU(), Dropout(hyperparameters.dropout)]
        width = hyperparameters.hidden
    head = (
        EnsembleHead(width, outputs, hyperparameters.members)
        if hyperparameters.members > 1
        else nn.Linear(width, outputs)
    )
    return nn.Sequential(*layers, head)


class BatchEnsembleLinear(nn.Module):
    """Linear layer of an ensemble: shared weights, scales of inputs and outputs per member (Wen et al. 2020).

    As in TabM (Gorishniy et al. 2024) the members differ at initialisation by random signs of the first layer's inputs.
    """

    def __init__(self, inputs: int, outputs: int, members: int, *, is_first: bool) -> None:
        """Initialise random weights, distributed as in `nn.Linear`."""
        super().__init__()
        signs = torch.randint(0, 2, (members, inputs)) * 2.0 - 1.0
        self.weight = nn.Parameter((2 * torch.rand(outputs, inputs) - 1) / sqrt(inputs))
        self.scale_in = nn.Parameter(signs if is_first else torch.ones(members, inputs))
        self.scale_out = nn.Parameter(torch.ones(members, outputs))
        self.bias = nn.Parameter((2 * torch.rand(members, outputs) - 1) / sqrt(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map n x members x inputs, or n x 1 x inputs, to n x members x outputs."""
        return functional.linear(inputs * self.scale_in, self.weight) * self.scale_out + self.bias


class EnsembleHead(nn.Module):
    """Last layer of an ensemble, with separate weights for each member."""

    def __init__(self, inputs: int, outputs: int, members: int) -> None:
        """Initialise random weights, distributed as in `nn.Linear`."""
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(members, inputs, outputs) - 1) / sqrt(inputs))
        self.bias = nn.Parameter((2 * torch.rand(members, outputs) - 1) / sqrt(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map n x members x inputs to n x members x outputs."""
        return torch.matmul(inputs.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


class Dropout(nn.Module):
    """Dropout with a rate in steps of 1/256: drawing random bytes takes a third of the time of drawing floats.

    On a CPU, where torch draws random numbers sequentially, that saves a fifth of a training step. SHAP recognises the
    layer by the name of its class.
    """

    def __init__(self, rate: float) -> None:
        """Set the share of the values to drop; the others are scaled so that the expected sum stays the same."""
        super().__init__()
        self.dropped = min(round(rate * BYTE_VALUES), BYTE_VALUES - 1)

    def forward(self, values: Tensor) -> Tensor:
        """Drop values in training; return them unchanged in evaluation mode."""
        if not (self.training and self.dropped):
            return values
        int64s = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        is_kept = int64s.view(torch.uint8)[: values.numel()].view(values.shape) >= self.dropped
        return values * is_kept * (BYTE_VALUES / (BYTE_VALUES - self.dropped))


def _linear(inputs: int, hyperparameters: NetworkHyperparameters, *, is_first: bool) -> nn.Module:
    if hyperparameters.members > 1:
        return BatchEnsembleLinear(inputs, hyperparameters.hidden, hyperparameters.members, is_first=is_first)
    return nn.Linear(inputs, hyperparameters.hidden)
