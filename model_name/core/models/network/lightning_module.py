"""Batches, losses and optimiser of a tabular network's training."""

from collections.abc import Iterator
from math import ceil, cos, log, pi

import numpy as np
import torch
from lightning import LightningModule
from torch import Tensor
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import Sampler
from typing_extensions import override

from model_name.core import ranks
from model_name.core.models.network.hyperparameters import NetworkHyperparameters
from model_name.core.models.network.mlp import TabularMLP

VALIDATION_LOSS = "validation_loss"
MAX_GRADIENT_NORM = 1.0  # of a step; larger gradients are clipped


class EpochBatchSampler(Sampler[Tensor]):
    """Sampler of whole batches of indices, so that a batch is one slice of each tensor; shuffled by (seed, epoch).

    Each of several processes gets its share of every batch. Together they cover each row once per epoch, in the batches
    of a single process. The share of a small last batch may be empty. Without a seed, rows are in order.
    """

    def __init__(self, rows: int, size: int, seed: int | None = None, *, rank: int = 0, world_size: int = 1) -> None:
        """Initialise the sampler at epoch 0."""
        self.rows = rows
        self.size = size
        self.seed = seed
        self.rank_slice = slice(rank, None, world_size)
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
            yield batch[self.rank_slice]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which decides the order. Called by Lightning before each epoch."""
        self.epoch = epoch

    def batch_rows(self, index: int) -> int:
        """Return the number of rows of a batch over all processes."""
        return min(self.size, self.rows - index * self.size)


class TabularLightningModule(LightningModule):
    """Loss, optimiser and learning rate schedule of a network.

    Optimisation is manual, because the overhead of Lightning's automatic optimisation is as large as a small batch.
    """

    class_weights: Tensor

    def __init__(
        self,
        network: TabularMLP,
        hyperparameters: NetworkHyperparameters,
        batches: EpochBatchSampler,
        class_weights: Tensor | None,
    ) -> None:
        """Set the network, its hyperparameters, the sampler and the weight of each class."""
        super().__init__()
        self.automatic_optimization = False
        self.network = network
        self.hyperparameters = hyperparameters
        self.batches = batches
        self.register_buffer("class_weights", class_weights)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            self.parameters(),
            lr=self.hyperparameters.learning_rate,
            weight_decay=self.hyperparameters.weight_decay,
            fused=True,
        )

    @override
    def on_train_epoch_start(self) -> None:
        """Seed torch, so that the randomness of training depends only on the seed, the epoch and the rank."""
        torch.manual_seed(epoch_seed(self.hyperparameters.random_state, self.current_epoch, ranks.rank()))

    @override
    def training_step(self, batch: list[Tensor], batch_idx: int) -> None:
        optimizer = self.trainer.optimizers[0]
        step = self.current_epoch * len(self.batches) + batch_idx
        steps = self.hyperparameters.max_epochs * len(self.batches)
        for group in optimizer.param_groups:
            group["lr"] = self.hyperparameters.learning_rate * lr_factor(step, steps, self.hyperparameters.warmup)
        optimizer.zero_grad(set_to_none=True)
        # The mean over the rows of all processes: DDP averages gradients over processes, whatever their shares.
        self.manual_backward(
            self._mixup_losses(*batch).sum() * (ranks.world_size() / self.batches.batch_rows(batch_idx))
        )
        clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()

    @override
    def validation_step(self, batch: list[Tensor]) -> None:
        """Log the loss of the members' mean prediction, which is what is served."""
        rows, targets = batch
        logits = self._logits(self.network.encoder(rows))
        losses = ensemble_losses(logits, targets, self.network.classes, self.class_weights)
        # Every process validates all rows. The synchronised loss makes all of them stop at the same epoch.
        self.log(VALIDATION_LOSS, losses.mean(), batch_size=len(rows), sync_dist=ranks.world_size() > 1)

    def _mixup_losses(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Compute the loss of each row, or of each mixture of two rows (mixup, Zhang et al. 2018).

        Encoded rows are mixed, because raw rows have gaps and categories.
        """
        encoded = self.network.encoder(rows)
        if not self.hyperparameters.mixup:
            return self._losses(encoded, targets)
        mixup = self.hyperparameters.mixup
        share = torch.distributions.Beta(mixup, mixup).sample().to(encoded.device)
        partners = torch.randperm(len(rows), device=encoded.device)
        logits = self._logits(encoded.lerp(encoded[partners], share))
        own, other = (self._logit_losses(logits, labels) for labels in (targets, targets[partners]))
        return own.lerp(other, share)

    def _losses(self, encoded: Tensor, targets: Tensor) -> Tensor:
        return self._logit_losses(self._logits(encoded), targets)

    def _logit_losses(self, logits: Tensor, targets: Tensor) -> Tensor:
        return member_losses(logits, targets, self.network.classes, self.class_weights)

    def _logits(self, encoded: Tensor) -> Tensor:
        return self.network.logits(encoded).float()  # a loss in half precision is too inexact


def member_losses(logits: Tensor, targets: Tensor, classes: int, weights: Tensor | None) -> Tensor:
    """Compute the mean loss of the members on each of n rows, which trains every member independently.

    Args:
        logits: Logits of the members, n x members x k.
        targets: Positions of the classes, or standardised numbers; n.
        classes: Number of classes; 0 for a regression.
        weights: Weight of each class.
    """
    rows, members, _ = logits.shape
    if not classes:
        return (logits[:, :, 0] - targets.unsqueeze(1)).square().mean(dim=1)
    repeated = targets.repeat_interleave(members) if members > 1 else targets
    losses = functional.cross_entropy(logits.flatten(0, 1), repeated, weight=weights, reduction="none")
    return losses.view(rows, members).mean(dim=1)


def ensemble_losses(logits: Tensor, targets: Tensor, classes: int, weights: Tensor | None) -> Tensor:
    """Compute the loss of the members' mean prediction on each of n rows; arguments as for `member_losses`."""
    if not classes:
        return (logits[:, :, 0].mean(dim=1) - targets).square()
    averaged = torch.logsumexp(torch.log_softmax(logits, dim=2), dim=1) - log(logits.shape[1])
    return functional.nll_loss(averaged, targets, weight=weights, reduction="none")


def class_weights(hyperparameters: NetworkHyperparameters, network: TabularMLP, targets: Tensor) -> Tensor | None:
    """Compute balanced weights of the classes as scikit-learn does: rows / (classes x rows of the class)."""
    if hyperparameters.class_weight == "none":
        return None
    counts = torch.bincount(targets, minlength=network.classes).clamp(min=1)
    return len(targets) / (network.classes * counts.float())


def lr_factor(step: int, steps: int, warmup: float) -> float:
    """Compute the factor of the learning rate at a step: linear warm-up in a share of the steps, then cosine decay."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + cos(pi * (step - rising) / (steps - rising))) / 2


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Derive the seed of an epoch in a process; rank 0 has the same seed as a single process."""
    return int(np.random.SeedSequence([seed, epoch, rank] if rank else [seed, epoch]).generate_state(1)[0])
