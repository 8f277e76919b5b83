"""Contributions of the features to the answers of a tabular network, by expected gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model_name.core.models.network.network import Heads, Network, SharedLinear

POINTS = 3200  # between rows and backgrounds at once: more do not fit the caches of a processor


def contributions(network: Network, rows: Tensor, background: Tensor, *, outputs: Sequence[int], seed: int) -> Tensor:
    """How much each feature moves the answer from the mean answer to the background to that to each row.

    Expected gradients (Erion et al. 2021): the mean, over the background and along the line from it to the row, of
    gradient times difference. Lines are drawn between encoded rows, where a category and a gap are numbers like any
    other, and the parts of a feature are added up. Each line is looked at in one point; the points of a row are spread
    evenly over the lengths of its lines, in an order drawn by the seed.

    The first layer, by far the widest, is linear: its part of a gradient is the same everywhere. So points are taken
    behind it, and the mean of their gradients goes through it once a row instead of once a point.

    Args:
        network: Fitted.
        rows: n x d features.
        background: b x d features.
        outputs: Which k of the answer's columns to explain.
        seed: Of the order.

    Returns:
        n x d x k. They miss the answers by what the points do not see; `completed` adds that.
    """
    lines = Lines(network, background, rows.shape[1])
    generator = torch.Generator().manual_seed(seed)
    size = max(1, POINTS // (len(background) * network.members))
    return torch.cat([lines.contributions(some, outputs, generator) for some in torch.split(rows, size)])


def completed(values: Tensor, total: Tensor) -> Tensor:
    """The contributions with what they miss of a total, each as much of it as it contributes itself.

    Args:
        values: n x d x k.
        total: n x k.
    """
    shares = values.abs() + torch.finfo(values.dtype).tiny
    return values + (total - values.sum(dim=1)).unsqueeze(1) * shares / shares.sum(dim=1, keepdim=True)


class Lines:
    """From each row of a background to any row."""

    def __init__(self, network: Network, background: Tensor, features: int) -> None:
        """Send b rows of the background through the first layer: as a whole, and feature by feature."""
        self.network = network
        self.features = features
        self.owners = network.encoder.owners
        self.weight = weight_of(network.body[0])
        encoded = network.encoder(background)
        self.origins = encoded @ self.weight.T
        parts = [encoded[:, own] @ self.weight[:, own].T for own in self._columns()]
        self.parts = torch.stack(parts, dim=2).flatten(0, 1)  # (b, units) x features

    def contributions(self, rows: Tensor, outputs: Sequence[int], generator: torch.Generator) -> Tensor:
        """Of n rows, n x features x k."""
        encoded = self.network.encoder(rows)
        lines = (encoded @ self.weight.T).unsqueeze(1) - self.origins
        order = torch.rand(lines.shape[:2], generator=generator).argsort(dim=1)
        places = ((order + 0.5) / len(self.origins)).unsqueeze(2)
        points = (self.origins + places * lines).requires_grad_()
        answers = self._answers(points)
        found = []
        for output in outputs:
            (gradients,) = torch.autograd.grad(answers[:, output].sum(), points, retain_graph=True)
            of_rows = encoded * (gradients.sum(dim=1) @ self.weight)
            by_feature = of_rows.new_zeros(len(rows), self.features).index_add_(1, self.owners, of_rows)
            found.append((by_feature - gradients.flatten(1) @ self.parts) / len(self.origins))
        return torch.stack(found, dim=2)

    def _columns(self) -> list[Tensor]:
        """The inputs of each feature."""
        return [(self.owners == place).nonzero()[:, 0] for place in range(self.features)]

    def _answers(self, points: Tensor) -> Tensor:
        """What is served for points behind the weights of the first layer, (n, b) x k."""
        members, layers = self.network.members, self.network.body
        bias: Any = layers[0].bias
        behind = points.flatten(0, 1).view(-1, members, points.shape[2] // members) + bias
        return self.network.served(layers[1:](behind))


def weight_of(layer: Any) -> Tensor:
    """The weight of a linear layer with the scales of its members, units x inputs; the members' units in a row."""
    if isinstance(layer, SharedLinear):
        return (layer.scale_out.unsqueeze(2) * layer.weight * layer.scale_in.unsqueeze(1)).flatten(0, 1)
    if isinstance(layer, Heads):
        return layer.weight.transpose(1, 2).flatten(0, 1)
    weight: Tensor = layer.weight
    return weight
