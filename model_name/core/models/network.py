"""The tabular network: embeddings of categories and of numbers, then a residual MLP, trained by Lightning.

Torch takes seconds to import, so that what needs it lives in `_network_modules` (what is learnt) and
`_network_training` (how), and both are imported when they are called for.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import Field, PrivateAttr

from model_name.core.features import Matrix
from model_name.core.models.base import FitContext, Model

if TYPE_CHECKING:
    from model_name.core.models._network_modules import Network

CHECKPOINT_FORMAT = 1  # to be raised when a change here or in the modules makes older checkpoints mean something else


class TabularNetwork(Model):
    """A residual MLP over embedded features, stopped early on a validation part that is taken from the training rows.

    The validation part are the last rows where rows come in the order of time, random ones otherwise. Features that
    have not completed their season in the training part are hidden from it, since it could only extrapolate them.

    Attributes:
        hidden: Width of the layers.
        blocks: How many residual blocks.
        dropout: Share of a block's answer that is dropped in training.
        bins: Linear pieces, at the quantiles, that a number is encoded in beside its standardised value.
        embedding: Width of the embedding of a category.
        learning_rate: Its peak; it decays to zero over `max_epochs` along a cosine.
        weight_decay: Shrinkage of the weights (AdamW).
        batch_size: Rows of a step.
        max_epochs: Passes over the training rows at the most.
        patience: Epochs without a better validation loss after which it stops.
        validation_size: Share of the training rows that it does not learn from but stops by.
        threads: Processors of the training. A number rather than all there are, since sums in another order make other
            weights; layers this narrow gain little from more, and lose much where processors are shared.
    """

    KIND: Literal["TabularNetwork"] = "TabularNetwork"
    hidden: int = Field(128, ge=1, le=4096)
    blocks: int = Field(1, ge=0, le=32)
    dropout: float = Field(0.1, ge=0, lt=1)
    bins: int = Field(32, ge=1, le=256)
    embedding: int = Field(8, ge=1, le=256)
    learning_rate: float = Field(2e-3, gt=0, le=1)
    weight_decay: float = Field(1e-2, ge=0)
    batch_size: int = Field(256, ge=1)
    max_epochs: int = Field(20, ge=1)
    patience: int = Field(8, ge=1)
    validation_size: float = Field(0.1, gt=0, lt=1)
    threads: int = Field(1, ge=1, le=256)

    _network: Any = PrivateAttr(None)

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`.

        Raises:
            PreemptedError: A SIGTERM came; the next fit with the same checkpoints goes on.
            ConfigError: The hyperparameters make it diverge.
        """
        from model_name.core.models import _network_training as training

        learning, validating = self._split(len(matrix), has_time_order=context.has_time_order)
        with training.repeatable(self.random_state, self.threads):
            network = self._build(matrix[learning], targets[learning])
            self._network = training.train(
                network,
                training.tensors(network, matrix[learning], targets[learning]),
                training.tensors(network, matrix[validating], targets[validating]),
                settings=self,
                context=context,
                fingerprint=self._fingerprint(matrix, targets, context),
            )

    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        """As of `Model`."""
        scores: NDArray[np.float32] = self.get_internal_model().score(matrix)
        return scores if self.classes else scores[:, 0]

    def to_onnx(self) -> onnx.ModelProto:
        """As of `Model`; scaling, clipping, embeddings and the un-scaling of the target are in the graph."""
        from model_name.core.models._network_modules import to_onnx

        return to_onnx(self.get_internal_model(), len(self.features.columns))

    def get_internal_model(self) -> "Network":
        """The fitted module of torch, on the CPU and in evaluation mode."""
        network: Network = self._fitted(self._network)
        return network

    def _split(self, rows: int, *, has_time_order: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows to learn from and those to stop by; at least one of each."""
        order = np.arange(rows) if has_time_order else np.random.default_rng(self.random_state).permutation(rows)
        held = min(max(round(rows * self.validation_size), 1), rows - 1)
        return np.sort(order[:-held]), np.sort(order[-held:])

    def _build(self, matrix: Matrix, targets: NDArray[Any]) -> "Network":
        from model_name.core.models._network_modules import Encoder, Network

        encoder = Encoder(self.features.columns, matrix, bins=self.bins, embedding=self.embedding)
        return Network(
            encoder,
            hidden=self.hidden,
            blocks=self.blocks,
            dropout=self.dropout,
            classes=len(self.classes),
            targets=targets,
        )

    def _fingerprint(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> str:
        """Hash of all that decides the weights: a checkpoint of anything else must not be gone on from."""
        settings = (CHECKPOINT_FORMAT, self.model_dump(), self.classes, context.has_time_order, matrix.shape)
        digest = sha256(repr(settings).encode())
        digest.update(self.features.model_dump_json().encode())
        for array in (matrix, targets):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]
