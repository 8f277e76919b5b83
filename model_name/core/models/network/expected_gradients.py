"""Contributions of the features to the scores of a tabular network, by expected gradients (Erion et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model_name.core.models.network.mlp import BatchEnsembleLinear, EnsembleHead, TabularMLP

MAX_POINTS = 3200  # on lines between rows and backgrounds, per batch; more do not fit the caches of a processor


def expected_gradients(
    network: TabularMLP, rows: Tensor, background: Tensor, *, outputs: Sequence[int], seed: int
) -> Tensor:
    """Compute the contribution of each feature to the difference between a row's score and the background's mean score.

    Expected gradients (Erion et al. 2021): the mean, over the background and along the line from it to the row, of
    gradient times difference. Lines are drawn between encoded rows, in which categories and gaps are numbers too, and
    the contributions of a feature's inputs are summed. Each line is sampled at one point; the points of a row are
    spread evenly over the lengths of its lines, in an order that depends on the seed.

    The first layer, by far the widest, is linear, so its part of the gradient is constant. Points are therefore taken
    after it, and the mean of their gradients is propagated through it once per row, not once per point.

    Args:
        network: Fitted network.
        rows: Features of the rows to explain, n x d.
        background: Features of the background rows, b x d.
        outputs: Columns of the scores to explain, k of them.
        seed: Seed of the order.

    Returns:
        Contributions, n x d x k. Sampling leaves them short of the scores; `rescale_to_total` closes the gap.
    """
    paths = GradientPaths(network, background, rows.shape[1])
    generator = torch.Generator().manual_seed(seed)
    size = max(1, MAX_POINTS // (len(background) * network.members))
    return torch.cat([paths.attribute(batch, outputs, generator) for batch in torch.split(rows, size)])


def rescale_to_total(values: Tensor, total: Tensor) -> Tensor:
    """Distribute the difference between a total and the sum of contributions in proportion to their absolute values.

    Args:
        values: Contributions, n x d x k.
        total: Sum that they must have, n x k.
    """
    shares = values.abs() + torch.finfo(values.dtype).tiny
    return values + (total - values.sum(dim=1)).unsqueeze(1) * shares / shares.sum(dim=1, keepdim=True)


class GradientPaths:
    """Lines from each background row to the rows that are explained."""

    def __init__(self, network: TabularMLP, background: Tensor, features: int) -> None:
        """Compute the first layer for b background rows: in total, and by feature."""
        self.network = network
        self.features = features
        self.source_features = network.encoder.source_features
        self.weight = effective_weight(network.body[0])
        encoded = network.encoder(background)
        self.origins = encoded @ self.weight.T
        parts = [encoded[:, own] @ self.weight[:, own].T for own in self._columns()]
        self.parts = torch.stack(parts, dim=2).flatten(0, 1)  # (b, units) x features

    def attribute(self, rows: Tensor, outputs: Sequence[int], generator: torch.Generator) -> Tensor:
        """Compute the contributions of n rows, n x features x k."""
        encoded = self.network.encoder(rows)
        lines = (encoded @ self.weight.T).unsqueeze(1) - self.origins
        order = torch.rand(lines.shape[:2], generator=generator).argsort(dim=1)
        positions = ((order + 0.5) / len(self.origins)).unsqueeze(2)
        points = (self.origins + positions * lines).requires_grad_()
        scores = self._scores(points)
        contributions = []
        for output in outputs:
            (gradients,) = torch.autograd.grad(scores[:, output].sum(), points, retain_graph=True)
            weighted = encoded * (gradients.sum(dim=1) @ self.weight)
            by_feature = weighted.new_zeros(len(rows), self.features).index_add_(1, self.source_features, weighted)
            contributions.append((by_feature - gradients.flatten(1) @ self.parts) / len(self.origins))
        return torch.stack(contributions, dim=2)

    def _columns(self) -> list[Tensor]:
        """Return the encoded inputs of each feature."""
        return [(self.source_features == feature).nonzero()[:, 0] for feature in range(self.features)]

    def _scores(self, points: Tensor) -> Tensor:
        """Compute the scores for points after the weights of the first layer, (n, b) x k."""
        members, layers = self.network.members, self.network.body
        bias: Any = layers[0].bias
        outputs = points.flatten(0, 1).view(-1, members, points.shape[2] // members) + bias
        return self.network.to_scores(layers[1:](outputs))


def effective_weight(layer: Any) -> Tensor:
    """Return the weight of a linear layer times the scales of its members, (members x units) x inputs."""
    if isinstance(layer, BatchEnsembleLinear):
        return (layer.scale_out.unsqueeze(2) * layer.weight * layer.scale_in.unsqueeze(1)).flatten(0, 1)
    if isinstance(layer, EnsembleHead):
        return layer.weight.transpose(1, 2).flatten(0, 1)
    weight: Tensor = layer.weight
    return weight
