"""Structured pruning of a tabular network: the least important units are removed, so the served graph is smaller."""

from copy import deepcopy
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from model_name.core.models.network.mlp import BatchEnsembleLinear, EnsembleHead, TabularMLP


def prune_units(network: TabularMLP, kept: int) -> TabularMLP:
    """Copy a network with fewer units in each hidden layer.

    The units with the largest product of the L1 norms of their incoming and outgoing weights are kept. Biases count as
    incoming weights, because they activate a unit too.

    Args:
        network: Fitted network; not changed.
        kept: Number of units of each layer to keep.
    """
    smaller = deepcopy(network)
    layers: list[Any] = [
        layer for layer in smaller.body if isinstance(layer, nn.Linear | BatchEnsembleLinear | EnsembleHead)
    ]
    for layer, following in pairwise(layers):
        positions = torch.sort(torch.topk(input_norms(layer) * output_norms(following), kept).indices).values
        _select_outputs(layer, positions)
        select_inputs(following, positions)
    return smaller


def input_norms(layer: Any) -> Tensor:
    """Compute the L1 norm of the weights into each unit, biases included, over all members."""
    if isinstance(layer, BatchEnsembleLinear):
        weights = layer.scale_out.abs() * (layer.scale_in.abs() @ layer.weight.abs().T)
        return (weights + layer.bias.abs()).sum(dim=0)
    norm: Tensor = layer.weight.abs().sum(dim=1) + layer.bias.abs()
    return norm


def output_norms(following: Any) -> Tensor:
    """Compute the L1 norm of the weights out of each unit, over all members."""
    if isinstance(following, BatchEnsembleLinear):
        return (following.scale_in.abs() * (following.scale_out.abs() @ following.weight.abs())).sum(dim=0)
    if isinstance(following, EnsembleHead):
        return following.weight.abs().sum(dim=(0, 2))
    norm: Tensor = following.weight.abs().sum(dim=0)
    return norm


def _select_outputs(layer: Any, positions: Tensor) -> None:
    _select(layer, "weight", 0, positions)
    for name in ("bias", "scale_out"):
        _select(layer, name, -1, positions)


def select_inputs(layer: Any, positions: Tensor) -> None:
    """Keep only the inputs of a layer at the given positions."""
    _select(layer, "weight", 1, positions)
    _select(layer, "scale_in", 1, positions)


def _select(layer: Any, name: str, dimension: int, positions: Tensor) -> None:
    old = getattr(layer, name, None)
    if old is not None:
        setattr(layer, name, nn.Parameter(old.index_select(dimension, positions), requires_grad=False))
