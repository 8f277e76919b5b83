"""The tabular network: embeddings of categories and of numbers, then an MLP or many, trained by Lightning.

Torch takes seconds to import, so that what needs it lives in modules of its own, imported when they are called for:
`encoder` and `modules` (what is learnt), `steps` and `training` (how), `explaining`, `pruning` and `exporting`.
"""

from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import onnx
from numpy.typing import NDArray
from pydantic import PrivateAttr

from model_name.core.features.transforms import Matrix
from model_name.core.models.model import Explanation, FitContext
from model_name.core.models.network.hyperparameters import NetworkSettings
from model_name.errors import ConfigError

if TYPE_CHECKING:
    from model_name.core.models.network.network import Network

CHECKPOINT_FORMAT = 2  # to be raised when a change here or in the modules makes older checkpoints mean something else


class TabularNetwork(NetworkSettings):
    """An MLP over embedded features, stopped early on a validation part that is taken from the training rows.

    The validation part are the last rows where rows come in the order of time, random ones otherwise. Features that
    have not completed their season in the training part are hidden from it, since it could only extrapolate them.

    A fit can begin from an earlier version. It then keeps that version's encoder (means, quantiles, what was hidden)
    and scale of the target, since weights mean something only with them.
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

    def fit_matrix(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> None:
        """As of `Model`.

        Raises:
            PreemptedError: A SIGTERM came; the next fit with the same checkpoints goes on.
            ConfigError: The hyperparameters make it diverge, or do not fit the task.
        """
        from model_name.core.models.network import lightning_trainer

        self._require_classes()
        learning, validating = self._split(len(matrix), has_time_order=context.has_time_order)
        with lightning_trainer.repeatable(self.random_state, self.threads):
            network = self._build(matrix[learning], targets[learning])
            if context.warm_start is not None:
                # The earlier encoder and the earlier scale of the target with them: weights mean nothing without.
                network.load_state_dict(context.warm_start.get_internal_model().state_dict())
            self._network = lightning_trainer.train(
                network,
                lightning_trainer.tensors(network, matrix[learning], targets[learning]),
                lightning_trainer.tensors(network, matrix[validating], targets[validating]),
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
        from model_name.core.models.network.onnx_export import to_onnx

        return to_onnx(self.get_internal_model(), len(self.features.columns))

    def explain_matrix(self, matrix: Matrix) -> Explanation:
        """Contributions to the prediction or the probability by expected gradients (Erion et al. 2021).

        Lines between encoded rows are sampled. What the points miss of a score, some percent of the scores' spread, is
        spread over the features by the size of their contributions, so that these add up exactly.
        """
        import torch

        from model_name.core.models.network.expected_gradients import completed, contributions

        network = self.get_internal_model()
        rows, background = (
            torch.from_numpy(np.ascontiguousarray(part)) for part in (matrix, self._fitted(self._background))
        )
        outputs = [1] if len(self.classes) == 2 else list(range(network.classes or 1))
        scores, base = network(rows)[:, outputs], network(background)[:, outputs].mean(dim=0)
        found = contributions(network, rows, background, outputs=outputs, seed=self.random_state)
        values, place = completed(found, scores - base), 0 if len(outputs) == 1 else slice(None)
        return self.explanation(values[..., place], base[place], scores[..., place], "probability")

    def pruned(self, share: float) -> Self:
        """As of `Model`: of each layer, the units of the smallest L1 norm are taken out; `hidden` says how many stay.

        Args:
            share: Of the units of a layer; at least one stays.

        Raises:
            ConfigError: The share is not between 0 and 1, or there is no layer.
        """
        from model_name.core.models.network.pruning import pruned

        if not 0 < share < 1 or not self.layers:
            raise ConfigError(
                f"{self.KIND}: {share:g} of the units of {self.layers} layers cannot be taken out",
                hint="a share is more than 0 and less than 1, and layers at least 1",
            )
        copy = self.model_copy(deep=True)
        copy.hidden = max(1, self.hidden - round(share * self.hidden))
        copy._network = pruned(self.get_internal_model(), copy.hidden)  # noqa: SLF001  of its own kind
        return copy

    def get_internal_model(self) -> "Network":
        """The fitted module of torch, on the CPU and in evaluation mode."""
        network: Network = self._fitted(self._network)
        return network

    def _require_classes(self) -> None:
        if self.class_weight != "none" and not self.classes:
            raise ConfigError(
                f"{self.KIND}: class_weight is {self.class_weight}, but {self.schema_.target.name} has no classes",
                hint="leave class_weight out: a regression counts every row alike",
            )

    def _split(self, rows: int, *, has_time_order: bool) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The rows to learn from and those to stop by; at least one of each."""
        order = np.arange(rows) if has_time_order else np.random.default_rng(self.random_state).permutation(rows)
        held = min(max(round(rows * self.validation_size), 1), rows - 1)
        return np.sort(order[:-held]), np.sort(order[-held:])

    def _build(self, matrix: Matrix, targets: NDArray[Any]) -> "Network":
        from model_name.core.models.network.encoder import Encoder
        from model_name.core.models.network.network import Network

        encoder = Encoder(self.features.columns, matrix, self)
        return Network(encoder, self, classes=len(self.classes), targets=targets)

    def _fingerprint(self, matrix: Matrix, targets: NDArray[Any], context: FitContext) -> str:
        """Hash of all that decides the weights: a checkpoint of anything else must not be gone on from."""
        settings = (CHECKPOINT_FORMAT, self.model_dump(), self.classes, context.has_time_order, matrix.shape)
        digest = sha256(repr(settings).encode())
        digest.update(self.features.model_dump_json().encode())
        earlier = [] if context.warm_start is None else context.warm_start.get_internal_model().state_dict().values()
        for array in (matrix, targets, *(weight.numpy() for weight in earlier)):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]
