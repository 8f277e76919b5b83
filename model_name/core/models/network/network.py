"""What a tabular network is made of. Needs torch, but not Lightning, so that a fitted one loads without it."""

from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from model_name.core.features.transforms import Matrix
from model_name.core.models.network.encoder import Encoder
from model_name.core.models.network.hyperparameters import NetworkSettings

SCORING_ROWS = 8192  # at once: more do not fit the caches of a processor
BYTE = 256


class Network(nn.Module):
    """From the feature matrix to scores, all scaling included.

    Every kind of layer in `body` is one that DeepLIFT knows, so that its explanations can be held against SHAP's.
    """

    target_mean: Tensor
    target_deviation: Tensor

    def __init__(self, encoder: Encoder, settings: NetworkSettings, *, classes: int, targets: NDArray[Any]) -> None:
        """Start from random weights; the scale of a regression is that of the targets given."""
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.members = settings.members
        self.body = body(encoder.width, classes or 1, settings)
        mean, deviation = (0.0, 1.0) if classes else (float(targets.mean()), float(targets.std()) or 1.0)
        self.register_buffer("target_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("target_deviation", torch.tensor(deviation, dtype=torch.float32))

    def raw(self, encoded: Tensor) -> Tensor:
        """What the loss looks at, for n encoded rows: log-odds of k classes, or the standardised prediction.

        Returns:
            n x members x k.
        """
        answer: Tensor = self.body(encoded.unsqueeze(1)) if self.members > 1 else self.body(encoded).unsqueeze(1)
        return answer

    def served(self, raw: Tensor) -> Tensor:
        """What is served, of n raw answers: probabilities, n x k, or predictions in the target's units, n x 1."""
        if self.classes:
            return torch.softmax(raw, dim=2).mean(dim=1)
        mean = raw.mean(dim=1) if self.members > 1 else raw.squeeze(1)  # one's mean would be a pass of its own
        return mean * self.target_deviation + self.target_mean

    def forward(self, matrix: Tensor) -> Tensor:
        """What is served, for n rows of features."""
        return self.served(self.raw(self.encoder(matrix)))

    @torch.inference_mode()
    def score(self, matrix: Matrix) -> NDArray[np.float32]:
        """The same for arrays of any length."""
        rows = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
        scores: NDArray[np.float32] = torch.cat([self(some) for some in torch.split(rows, SCORING_ROWS)]).numpy()
        return scores


def body(width: int, outputs: int, settings: NetworkSettings) -> nn.Sequential:
    """The layers behind the encoder: n x width to n x outputs, or n x 1 x width to n x members x outputs."""
    layers: list[nn.Module] = []
    for depth in range(settings.layers):
        layers += [_linear(width, settings, is_first=not depth), nn.ReLU(), Dropout(settings.dropout)]
        width = settings.hidden
    head = Heads(width, outputs, settings.members) if settings.members > 1 else nn.Linear(width, outputs)
    return nn.Sequential(*layers, head)


class SharedLinear(nn.Module):
    """One layer of many members: shared weights between scales of each member's own (Wen et al. 2020, BatchEnsemble).

    As in TabM (Gorishniy et al. 2024) the members differ at the start by the signs that the first layer's inputs have.
    """

    def __init__(self, inputs: int, outputs: int, members: int, *, is_first: bool) -> None:
        """Start from random weights, those of `nn.Linear`."""
        super().__init__()
        signs = torch.randint(0, 2, (members, inputs)) * 2.0 - 1.0
        self.weight = nn.Parameter((2 * torch.rand(outputs, inputs) - 1) / sqrt(inputs))
        self.scale_in = nn.Parameter(signs if is_first else torch.ones(members, inputs))
        self.scale_out = nn.Parameter(torch.ones(members, outputs))
        self.bias = nn.Parameter((2 * torch.rand(members, outputs) - 1) / sqrt(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """From n x members x inputs, or n x 1 x inputs, to n x members x outputs."""
        return functional.linear(inputs * self.scale_in, self.weight) * self.scale_out + self.bias


class Heads(nn.Module):
    """The last layer of many members, which share nothing of it."""

    def __init__(self, inputs: int, outputs: int, members: int) -> None:
        """Start from random weights, those of `nn.Linear`."""
        super().__init__()
        self.weight = nn.Parameter((2 * torch.rand(members, inputs, outputs) - 1) / sqrt(inputs))
        self.bias = nn.Parameter((2 * torch.rand(members, outputs) - 1) / sqrt(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """From n x members x inputs to n x members x outputs."""
        return torch.matmul(inputs.transpose(0, 1), self.weight).transpose(0, 1) + self.bias


class Dropout(nn.Module):
    """As of torch, but with a share in steps of 1/256: drawing bytes takes a third of the time of drawing floats.

    On a processor, where torch draws one number after the other, that is a fifth of a training step.
    """

    def __init__(self, share: float) -> None:
        """Drop this share of the values, and scale the others so that their sum stays."""
        super().__init__()
        self.dropped = min(round(share * BYTE), BYTE - 1)

    def forward(self, values: Tensor) -> Tensor:
        """The values, in training some of them as zeros."""
        if not (self.training and self.dropped):
            return values
        words = torch.empty(-(-values.numel() // 8), dtype=torch.int64, device=values.device).random_(-(2**63), None)
        is_kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= self.dropped
        return values * is_kept * (BYTE / (BYTE - self.dropped))


def _linear(inputs: int, settings: NetworkSettings, *, is_first: bool) -> nn.Module:
    if settings.members > 1:
        return SharedLinear(inputs, settings.hidden, settings.members, is_first=is_first)
    return nn.Linear(inputs, settings.hidden)
