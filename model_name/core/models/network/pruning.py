"""A smaller tabular network: units that matter least are taken out, so that the graph that is served shrinks too."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from model_name.core.models.network.network import Heads, Network, SharedLinear


def pruned(network: Network, kept: int) -> Network:
    """A copy with fewer units in each hidden layer: those of the largest L1 norm of what comes in times what goes out.

    Biases count to what comes in, since they keep a unit busy too.

    Args:
        network: Fitted; stays as it is.
        kept: Units of a layer that stay.
    """
    smaller = deepcopy(network)
    layers: list[Any] = [layer for layer in smaller.body if isinstance(layer, nn.Linear | SharedLinear | Heads)]
    for layer, following in pairwise(layers):
        places = torch.sort(torch.topk(norm_in(layer) * norm_out(following), kept).indices).values
        _keep_outputs(layer, places)
        keep_inputs(following, places)
    return smaller


def norm_in(layer: Any) -> Tensor:
    """The L1 norm of the weights into each unit, biases included, over all members."""
    if isinstance(layer, SharedLinear):
        weights = layer.scale_out.abs() * (layer.scale_in.abs() @ layer.weight.abs().T)
        return (weights + layer.bias.abs()).sum(dim=0)
    norm: Tensor = layer.weight.abs().sum(dim=1) + layer.bias.abs()
    return norm


def norm_out(following: Any) -> Tensor:
    """The L1 norm of the weights that read each unit, over all members."""
    if isinstance(following, SharedLinear):
        return (following.scale_in.abs() * (following.scale_out.abs() @ following.weight.abs())).sum(dim=0)
    if isinstance(following, Heads):
        return following.weight.abs().sum(dim=(0, 2))
    norm: Tensor = following.weight.abs().sum(dim=0)
    return norm


def _keep_outputs(layer: Any, places: Tensor) -> None:
    _select(layer, "weight", 0, places)
    for name in ("bias", "scale_out"):
        _select(layer, name, -1, places)


def keep_inputs(layer: Any, places: Tensor) -> None:
    """Take all inputs out of a layer but those at some places."""
    _select(layer, "weight", 1, places)
    _select(layer, "scale_in", 1, places)


def _select(layer: Any, name: str, dimension: int, places: Tensor) -> None:
    old = getattr(layer, name, None)
    if old is not None:
        setattr(layer, name, nn.Parameter(old.index_select(dimension, places), requires_grad=False))
