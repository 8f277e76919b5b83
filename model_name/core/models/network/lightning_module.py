"""One step of a tabular network's training: which rows, what is lost on them, where the weights go."""

from collections.abc import Iterator
from math import ceil, cos, log, pi

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import Sampler

from model_name.core import ranks
from model_name.core.models.network.hyperparameters import NetworkSettings
from model_name.core.models.network.network import Network

LOSS = "validation_loss"
GRADIENT_NORM = 1.0  # that steps are clipped to


class Batches(Sampler[Tensor]):
    """Indices of whole batches, so that a batch is one slice of each tensor; shuffled by (seed, epoch) if seeded.

    Of several processes each takes its share of every batch, so that all together see each row once an epoch, in the
    batches that one alone would see. In a last batch of few rows a share may be empty.
    """

    def __init__(self, rows: int, size: int, seed: int | None = None, *, rank: int = 0, world: int = 1) -> None:
        """Start at epoch 0."""
        self.rows = rows
        self.size = size
        self.seed = seed
        self.share = slice(rank, None, world)
        self.epoch = 0

    def __len__(self) -> int:
        return ceil(self.rows / self.size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.arange(self.rows)
        else:
            generator = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
            order = torch.randperm(self.rows, generator=generator)
        for batch in torch.split(order, self.size):
            yield batch[self.share]

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it before each epoch."""
        self.epoch = epoch

    def rows_of(self, place: int) -> int:
        """How many rows a batch of the epoch has, over all processes."""
        return min(self.size, self.rows - place * self.size)


class Training(LightningModule):
    """Loss, optimiser and schedule of a network.

    Steps are taken by hand: what Lightning does around a step of its own costs as much as a small batch.
    """

    class_weights: Tensor

    def __init__(
        self, network: Network, settings: NetworkSettings, batches: Batches, class_weights: Tensor | None
    ) -> None:
        """Name the network, its hyperparameters, what it will see and how much a row of each class counts."""
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.settings = settings
        self.batches = batches
        self.register_buffer("class_weights", class_weights)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """As of Lightning."""
        return torch.optim.AdamW(
            self.parameters(), lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )

    def on_train_epoch_start(self) -> None:
        """As of Lightning: what is random in training depends on the seed and the epoch alone."""
        torch.manual_seed(epoch_seed(self.settings.random_state, self.current_epoch, ranks.rank()))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """As of Lightning."""
        optimizer = self.trainer.optimizers[0]
        step, steps = self.current_epoch * len(self.batches) + batch_idx, self.settings.max_epochs * len(self.batches)
        for group in optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * pace(step, steps, self.settings.warmup)
        optimizer.zero_grad(set_to_none=True)
        # Their mean over the rows of all processes, whose gradients are averaged whatever their shares.
        self.manual_backward(self._mixed_losses(*batch).sum() * (ranks.world() / self.batches.rows_of(batch_idx)))
        clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
        optimizer.step()

    def validation_step(self, batch: list[Tensor]) -> None:
        """As of Lightning: the loss of what is served, which of many members is their mean."""
        rows, targets = batch
        raw = self._raw(self.network.encoder(rows))
        losses = served_losses(raw, targets, self.network.classes, self.class_weights)
        # Every process validates all rows. That they agree to the last digit decides whether they stop together.
        self.log(LOSS, losses.mean(), batch_size=len(rows), sync_dist=ranks.world() > 1)

    def _mixed_losses(self, rows: Tensor, targets: Tensor) -> Tensor:
        """The loss of each row, or of each mixture of two (Zhang et al. 2018, mixup).

        What is mixed is what the encoder answers, since there neither gaps nor categories are in the way.
        """
        encoded = self.network.encoder(rows)
        if not self.settings.mixup:
            return self._losses(encoded, targets)
        share = torch.distributions.Beta(self.settings.mixup, self.settings.mixup).sample().to(encoded.device)
        partners = torch.randperm(len(rows), device=encoded.device)
        raw = self._raw(encoded.lerp(encoded[partners], share))
        own, other = (self._losses_of(raw, wanted) for wanted in (targets, targets[partners]))
        return own.lerp(other, share)

    def _losses(self, encoded: Tensor, targets: Tensor) -> Tensor:
        return self._losses_of(self._raw(encoded), targets)

    def _losses_of(self, raw: Tensor, targets: Tensor) -> Tensor:
        return member_losses(raw, targets, self.network.classes, self.class_weights)

    def _raw(self, encoded: Tensor) -> Tensor:
        return self.network.raw(encoded).float()  # a loss in half precision would lose its last digits


def member_losses(raw: Tensor, targets: Tensor, classes: int, weights: Tensor | None) -> Tensor:
    """The mean loss of the members on each of n rows, which teaches each of them by itself.

    Args:
        raw: n x members x k.
        targets: n classes or n standardised numbers.
        classes: How many there are; 0 for a regression.
        weights: How much a row of each class counts.
    """
    rows, members, _ = raw.shape
    if not classes:
        return (raw[:, :, 0] - targets.unsqueeze(1)).square().mean(dim=1)
    repeated = targets.repeat_interleave(members) if members > 1 else targets
    losses = functional.cross_entropy(raw.flatten(0, 1), repeated, weight=weights, reduction="none")
    return losses.view(rows, members).mean(dim=1)


def served_losses(raw: Tensor, targets: Tensor, classes: int, weights: Tensor | None) -> Tensor:
    """The loss of the members' mean answer on each of n rows; arguments as of `member_losses`."""
    if not classes:
        return (raw[:, :, 0].mean(dim=1) - targets).square()
    averaged = torch.logsumexp(torch.log_softmax(raw, dim=2), dim=1) - log(raw.shape[1])
    return functional.nll_loss(averaged, targets, weight=weights, reduction="none")


def class_weights(settings: NetworkSettings, network: Network, targets: Tensor) -> Tensor | None:
    """How much a row of each class counts: rows / (classes x rows of the class), as in scikit-learn."""
    if settings.class_weight == "none":
        return None
    counts = torch.bincount(targets, minlength=network.classes).clamp(min=1)
    return len(targets) / (network.classes * counts.float())


def pace(step: int, steps: int, warmup: float) -> float:
    """The share of the learning rate at a step: up along a line in the first `warmup` of them, down along a cosine."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + cos(pi * (step - rising) / (steps - rising))) / 2


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """The seed of an epoch in a process; that of the first is the one of a process alone."""
    return int(np.random.SeedSequence([seed, epoch, rank] if rank else [seed, epoch]).generate_state(1)[0])
