"""ONNX export of a tabular network, in a form that ONNX Runtime computes fast."""

import io
import warnings
from copy import deepcopy
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET
from model_name.core.models.network.encoder import PiecewiseLinearEmbedding, TabularEncoder
from model_name.core.models.network.mlp import TabularMLP
from model_name.core.models.network.pruning import select_inputs


def to_onnx(network: TabularMLP, features: int) -> onnx.ModelProto:
    """Export the served graph, weights included.

    Uses the TorchScript exporter, which takes 0.3 s; the one of `torch.export` takes 10 s at its first call.
    """
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch is pinned, so its older exporter stays available
        torch.onnx.export(
            drop_constant_inputs(network),
            (torch.zeros(2, features),),
            graph,  # type: ignore[arg-type]  # this exporter also takes a file object
            dynamo=False,
            opset_version=OPSET,
            input_names=[GRAPH_INPUT],
            output_names=[GRAPH_OUTPUT],
            dynamic_axes={GRAPH_INPUT: {0: "rows"}, GRAPH_OUTPUT: {0: "rows"}},
        )
    return onnx.load_from_string(graph.getvalue())


def drop_constant_inputs(network: TabularMLP) -> TabularMLP:
    """Remove the encoder outputs that are zero for every row from a network; its scores stay the same.

    On a table of holidays, flags and parts of dates that is a third of the widest layer. A network with periodic
    embeddings, which have almost none of them, is returned unchanged.
    """
    embedding = network.encoder.expand
    if not isinstance(embedding, PiecewiseLinearEmbedding):
        return network
    encoder = ReducedEncoder(network.encoder, embedding).eval()
    if not len(encoder.kept):
        return network
    reduced: Any = deepcopy(network)
    reduced.encoder = encoder
    select_inputs(reduced.body[0], encoder.kept)
    reduced_network: TabularMLP = reduced
    return reduced_network


class ReducedEncoder(nn.Module):
    """Encoder without the outputs that are zero for every row, computed transposed: features x rows.

    ONNX Runtime repeats a row of many values three times as fast as each value of many rows, and the next layer reads
    the transposed result at no cost.

    Attributes:
        kept: Positions of its outputs among those of the full encoder.
    """

    def __init__(self, encoder: TabularEncoder, embedding: PiecewiseLinearEmbedding) -> None:
        """Copy the fitted state of an encoder."""
        super().__init__()
        self.encoder = encoder
        count, width = len(encoder.numbers), embedding.width
        self.varying = encoder.inverse_deviation.nonzero()[:, 0]
        self.gaps = encoder.has_gaps.nonzero()[:, 0]
        self.has_numbers = bool(len(self.varying) or len(self.gaps))
        self.number, bin_index = embedding.steepness.nonzero(as_tuple=True)
        self.edges, self.steepness = (
            as_column(table[self.number, bin_index]) for table in (embedding.edges, embedding.steepness)
        )
        codes = torch.arange((2 + width) * count, encoder.width)
        self.kept = torch.cat([self.varying, count + self.gaps, 2 * count + self.number * width + bin_index, codes])

    def forward(self, matrix: Tensor) -> Tensor:
        """Encode n rows, n x width."""
        encoder, columns, parts = self.encoder, matrix.T, []
        if self.has_numbers:
            parts += self._encode_numbers(columns.index_select(0, encoder.numbers))
        if encoder.has_codes:
            codes = columns.index_select(0, encoder.codes)
            codes = torch.where(torch.isnan(codes), as_column(encoder.missing), codes).long() + as_column(
                encoder.offsets
            )
            parts.append(encoder.embeddings(codes).transpose(1, 2).flatten(0, 1))
        return torch.cat(parts).T

    def _encode_numbers(self, numbers: Tensor) -> list[Tensor]:
        encoder = self.encoder
        mean, slope = as_column(encoder.mean), as_column(encoder.inverse_deviation)
        low, high = as_column(encoder.low), as_column(encoder.high)
        is_missing = torch.isnan(numbers)
        numbers = torch.minimum(torch.maximum(torch.where(is_missing, mean, numbers), low), high)
        standardised = (numbers - mean) * slope
        encoded_bins = ((numbers.index_select(0, self.number) - self.edges) * self.steepness).clamp(0.0, 1.0)
        return [standardised.index_select(0, self.varying), is_missing.index_select(0, self.gaps).float(), encoded_bins]


def as_column(values: Tensor) -> Tensor:
    """Reshape n values to n x 1."""
    return values.unsqueeze(1)
