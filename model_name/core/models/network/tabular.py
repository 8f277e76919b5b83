"""Tabular network: embeddings of categories and numbers, then an MLP or an ensemble of them, trained by Lightning.

Torch takes seconds to import. Modules that need it are therefore imported when they are used: `encoder` and `mlp`
(layers), `lightning_module` and `lightning_trainer` (training), `expected_gradients`, `pruning` and `onnx_export`.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import PrivateAttr
from typing_extensions import override

from model_name.core.features import Matrix
from model_name.core.models.explanation import Explanation
from model_name.core.models.model import FitContext
from model_name.core.models.network.hyperparameters import NetworkHyperparameters
from model_name.errors import ConfigError

if TYPE_CHECKING:
    from model_name.core.models.network.mlp import TabularMLP

CHECKPOINT_FORMAT = 2  # increased when a change to the network gives the weights of older checkpoints another meaning


class TabularNetwork(NetworkHyperparameters):
    """MLP over embedded features, with early stopping on a validation set taken from the training rows.

    The validation set is the last rows if rows are sorted by time, and random rows otherwise. Features whose season is
    incomplete in the training part are hidden from the network, because it could only extrapolate them.

    A fit can start from an earlier version. It then keeps that version's encoder (means, quantiles, hidden features)
    and scale of the target, because the weights depend on them.
    """

    can_warm_start: ClassVar[bool] = True
    architecture: ClassVar[tuple[str, ...]] = (
        "hidden",
        "layers",
        "members",
        "numbers",
        "bins",
        "frequencies",
        "embedding",
    )

    KIND: Literal["TabularNetwork"] = "TabularNetwork"

    _network: Any = PrivateAttr(None)

    @override
    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """Fit the network.

        Raises:
            PreemptedError: SIGTERM was received; the next fit with the same checkpoints resumes.
            ConfigError: The training diverges with these hyperparameters, or they do not fit the task.
        """
        from model_name.core.models.network import lightning_trainer

        self._check_class_weight()
        train_rows, validation_rows = self._split(len(matrix), has_time_order=context.has_time_order)
        with lightning_trainer.deterministic_training(self.random_state, self.threads):
            network = self._build(matrix[train_rows], targets[train_rows])
            if context.warm_start is not None:
                # The earlier encoder and scale of the target are loaded too: the weights depend on them.
                network.load_state_dict(context.warm_start.get_internal_model().state_dict())
            self._network = lightning_trainer.train_network(
                network,
                lightning_trainer.to_dataset(network, matrix[train_rows], targets[train_rows]),
                lightning_trainer.to_dataset(network, matrix[validation_rows], targets[validation_rows]),
                hyperparameters=self,
                context=context,
                fingerprint=self._fingerprint(matrix, targets, context),
            )

    @override
    def score_matrix(self, matrix: Matrix) -> NDArray[Any]:
        scores: NDArray[np.float32] = self.get_internal_model().score(matrix)
        return scores if self.classes else scores[:, 0]

    @override
    def to_onnx(self) -> onnx.ModelProto:
        """Export the network with scaling, clipping, embeddings and the inverse scaling of the target in the graph."""
        from model_name.core.models.network.onnx_export import to_onnx

        return to_onnx(self.get_internal_model(), len(self.features.columns))

    @override
    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """Explain the prediction or the probability by expected gradients (Erion et al. 2021).

        Lines between encoded rows are sampled. The sampling error, some percent of the scores' spread, is distributed
        over the features in proportion to their contributions, so that these add up exactly.
        """
        import torch

        from model_name.core.models.network.expected_gradients import expected_gradients, rescale_to_total

        network = self.get_internal_model()
        rows, background = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in (matrix, self._fitted(self._background))
        )
        outputs = [1] if len(self.classes) == 2 else list(range(network.classes or 1))
        scores, base = network(rows)[:, outputs], network(background)[:, outputs].mean(dim=0)
        sampled = expected_gradients(network, rows, background, outputs=outputs, seed=self.random_state)
        values, columns = rescale_to_total(sampled, scores - base), 0 if len(outputs) == 1 else slice(None)
        return self.explanation(values[..., columns], base[columns], scores[..., columns], "probability")

    @override
    def prune(self, share: float) -> Self:
        """Remove the units with the smallest L1 norms from each layer; `hidden` becomes the number of units left.

        Args:
            share: Share of the units of a layer to remove; at least one is left.

        Raises:
            ConfigError: The share is not between 0 and 1, or the network has no hidden layer.
        """
        from model_name.core.models.network.pruning import prune_units

        if not 0 < share < 1 or not self.layers:
            raise ConfigError(
                f"{self.KIND}: {share:g} of the units of {self.layers} layers cannot be taken out",
                hint="a share is more than 0 and less than 1, and layers at least 1",
            )
        copy = self.model_copy(deep=True)
        copy.hidden = max(1, self.hidden - round(share * self.hidden))
        copy._network = prune_units(self.get_internal_model(), copy.hidden)  # noqa: SLF001  same class
        return copy

    @override
    def get_internal_model(self) -> "TabularMLP":
        """Return the fitted torch module, on the CPU and in evaluation mode."""
        network: TabularMLP = self._fitted(self._network)
        return network

    def _check_class_weight(self) -> None:
        if self.class_weight != "none" and not self.classes:
            raise ConfigError(
                f"{self.KIND}: class_weight is {self.class_weight}, but {self.schema_.target.name} has no classes",
                hint="leave class_weight out: a regression counts every row alike",
            )

    def _split(self, rows: int, *, has_time_order: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Split row positions into a training and a validation set, with at least one row in each."""
        order = np.arange(rows) if has_time_order else np.random.default_rng(self.random_state).permutation(rows)
        size = min(max(round(rows * self.validation_size), 1), rows - 1)
        return np.sort(order[:-size]), np.sort(order[-size:])

    def _build(self, matrix: Matrix, targets: NDArray[Any]) -> "TabularMLP":
        from model_name.core.models.network.encoder import TabularEncoder
        from model_name.core.models.network.mlp import TabularMLP

        encoder = TabularEncoder(self.features.columns, matrix, self)
        return TabularMLP(encoder, self, classes=len(self.classes), targets=targets)

    def _fingerprint(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> str:
        """Hash everything that decides the weights, so that only checkpoints of an equal fit are resumed."""
        recipe = (CHECKPOINT_FORMAT, self.model_dump(), self.classes, context.has_time_order, matrix.shape)
        digest = sha256(repr(recipe).encode())
        digest.update(self.features.model_dump_json().encode())
        earlier = [] if context.warm_start is None else context.warm_start.get_internal_model().state_dict().values()
        for array in (matrix, targets, *(weight.numpy() for weight in earlier)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]
