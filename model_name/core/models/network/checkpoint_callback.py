"""Callback of the training: keeps the best weights, stops early, saves checkpoints and resumes from them."""

import pickle  # only for its exception  # nosec B403
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from loguru import logger
from torch import Tensor, distributed
from typing_extensions import override

from model_name.core import ranks
from model_name.core.models.model import FitContext
from model_name.core.models.network.hyperparameters import NetworkHyperparameters
from model_name.core.models.network.lightning_module import VALIDATION_LOSS

MAX_CHECKPOINTS = 2  # the last one, and one more in case a crash of the machine leaves the last one unreadable
# Raised by torch.load for an unreadable file.
CHECKPOINT_LOAD_ERRORS = (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError)


class CheckpointCallback(Callback):
    """Keeps the best weights, stops early, saves checkpoints and reports progress, all at the end of each epoch."""

    def __init__(self, hyperparameters: NetworkHyperparameters, context: FitContext, fingerprint: str) -> None:
        """Initialise the state before the first epoch."""
        self.hyperparameters = hyperparameters
        self.context = context
        self.fingerprint = fingerprint
        self.epochs_done = 0
        self.best_epoch = 0
        self.best_loss = inf
        self.best_weights: dict[str, Tensor] = {}

    @property
    def is_done(self) -> bool:
        """Whether no epoch is left to train."""
        is_stale = self.epochs_done - self.best_epoch >= self.hyperparameters.patience
        return is_stale or self.epochs_done >= self.hyperparameters.max_epochs

    @property
    @override
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint; it must stay the same, so that older checkpoints load."""
        return "Keeper"

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the epoch. Lightning calls this after the epoch's validation."""
        loss = float(trainer.callback_metrics[VALIDATION_LOSS])
        self.epochs_done = trainer.current_epoch + 1
        if isfinite(loss) and loss < self.best_loss:
            self.best_epoch, self.best_loss = self.epochs_done, loss
            weights = pl_module.network.state_dict()
            self.best_weights = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}
        trainer.should_stop = self.is_done
        if self.context.checkpoints is not None:
            self._save(trainer, self.context.checkpoints)
        self.context.progress(self.epochs_done, self.hyperparameters.max_epochs, f"validation loss {loss:.4g}")

    @override
    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("epochs_done", "best_epoch", "best_loss", "best_weights")}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in state_dict.items():
            setattr(self, name, value)

    def resume(self) -> Path | None:
        """Load the state of the newest readable checkpoint of this fit.

        Of several processes the main process chooses the checkpoint.

        Returns:
            Path of the checkpoint; None to start from scratch.
        """
        path = self._load_newest() if ranks.is_main_process() else None
        if ranks.world_size() > 1:
            chosen = [path]
            distributed.broadcast_object_list(chosen, src=0, device=torch.device("cpu"))
            path = chosen[0]
            if path is not None and not ranks.is_main_process():
                self._load_state(path)
        return path

    def _load_newest(self) -> Path | None:
        for path in reversed(self._checkpoints()):
            try:
                self._load_state(path)
            except CHECKPOINT_LOAD_ERRORS as err:
                logger.warning("{} cannot be read ({}), looking for an earlier one", path.name, type(err).__name__)
                continue
            logger.info("resumed from {} after {:,} epochs", path.name, self.epochs_done)
            return path
        return None

    def _load_state(self, path: Path) -> None:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict(checkpoint["callbacks"][self.state_key])

    def _checkpoints(self) -> list[Path]:
        """List the checkpoints of this fit, the newest last."""
        if self.context.checkpoints is None:
            return []
        return sorted(self.context.checkpoints.glob(f"{self.fingerprint}-*.ckpt"))

    def _save(self, trainer: Trainer, folder: Path) -> None:
        path = folder / f"{self.fingerprint}-{self.epochs_done:06d}.ckpt"
        partial = path.with_suffix(".partial")
        # Lightning writes to /tmp and moves the file, which is a copy and not atomic if the folder is another volume.
        trainer.save_checkpoint(partial)  # called by all processes, written by the main process
        if not ranks.is_main_process():
            return
        partial.replace(path)
        for old in self._checkpoints()[:-MAX_CHECKPOINTS]:
            old.unlink(missing_ok=True)
