"""The graph of a tabular network, in the shape that is served fastest."""

import io
import warnings
from copy import deepcopy
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from model_name.core.models.model import GRAPH_INPUT, GRAPH_OUTPUT, OPSET
from model_name.core.models.network.encoder import Encoder, Pieces
from model_name.core.models.network.network import Network
from model_name.core.models.network.pruning import keep_inputs


def to_onnx(network: Network, features: int) -> onnx.ModelProto:
    """The graph of what is served, weights inside.

    By the exporter of TorchScript, which takes 0.3 s; that of `torch.export` takes 10 s at its first call.
    """
    graph = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch is pinned, hence its older exporter stays
        torch.onnx.export(
            slimmed(network),
            (torch.zeros(2, features),),
            graph,  # type: ignore[arg-type]  # torch's annotation forgets what this exporter also takes
            dynamo=False,
            opset_version=OPSET,
            input_names=[GRAPH_INPUT],
            output_names=[GRAPH_OUTPUT],
            dynamic_axes={GRAPH_INPUT: {0: "rows"}, GRAPH_OUTPUT: {0: "rows"}},
        )
    return onnx.load_from_string(graph.getvalue())


def slimmed(network: Network) -> Network:
    """A network of the same answers that does not look at what the encoder answers with zero for every row.

    On a table of holidays, flags and parts of dates that is a third of the widest layer. A network of another
    encoding of numbers, which has next to none of it, is answered as it is.
    """
    pieces = network.encoder.expand
    if not isinstance(pieces, Pieces):
        return network
    encoder = SlimEncoder(network.encoder, pieces).eval()
    if not len(encoder.kept):
        return network
    slim: Any = deepcopy(network)
    slim.encoder = encoder
    keep_inputs(slim.body[0], encoder.kept)
    served: Network = slim
    return served


class SlimEncoder(nn.Module):
    """An encoder without the inputs that are zero for every row, computed with a feature a row.

    ONNX Runtime repeats a row of many values three times as fast as each value of many rows, and the layer that comes
    next reads the result turned round at no cost.

    Attributes:
        kept: The places of its inputs among those of the encoder.
    """

    def __init__(self, encoder: Encoder, pieces: Pieces) -> None:
        """Take over what the encoder knows."""
        super().__init__()
        self.encoder = encoder
        count, width = len(encoder.numbers), pieces.width
        self.varying = encoder.inverse_deviation.nonzero()[:, 0]
        self.gaps = encoder.has_gaps.nonzero()[:, 0]
        self.has_numbers = bool(len(self.varying) or len(self.gaps))
        self.number, piece = pieces.steepness.nonzero(as_tuple=True)
        self.edges, self.steepness = (turned(known[self.number, piece]) for known in (pieces.edges, pieces.steepness))
        codes = torch.arange((2 + width) * count, encoder.width)
        self.kept = torch.cat([self.varying, count + self.gaps, 2 * count + self.number * width + piece, codes])

    def forward(self, matrix: Tensor) -> Tensor:
        """The inputs of n rows, n x width."""
        encoder, columns, parts = self.encoder, matrix.T, []
        if self.has_numbers:
            parts += self._encode_numbers(columns.index_select(0, encoder.numbers))
        if encoder.has_codes:
            codes = columns.index_select(0, encoder.codes)
            codes = torch.where(torch.isnan(codes), turned(encoder.missing), codes).long() + turned(encoder.offsets)
            parts.append(encoder.embeddings(codes).transpose(1, 2).flatten(0, 1))
        return torch.cat(parts).T

    def _encode_numbers(self, numbers: Tensor) -> list[Tensor]:
        encoder = self.encoder
        mean, slope = turned(encoder.mean), turned(encoder.inverse_deviation)
        low, high = turned(encoder.low), turned(encoder.high)
        is_missing = torch.isnan(numbers)
        numbers = torch.minimum(torch.maximum(torch.where(is_missing, mean, numbers), low), high)
        standardised = (numbers - mean) * slope
        pieces = ((numbers.index_select(0, self.number) - self.edges) * self.steepness).clamp(0.0, 1.0)
        return [standardised.index_select(0, self.varying), is_missing.index_select(0, self.gaps).float(), pieces]


def turned(values: Tensor) -> Tensor:
    """One value a row."""
    return values.unsqueeze(1)
