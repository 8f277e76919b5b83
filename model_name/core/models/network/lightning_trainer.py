"""How a tabular network is trained: by Lightning, from the last checkpoint where there is one.

Shuffling and dropout are functions of (seed, epoch) instead of a running state, so that a run that was killed ends
with the very weights of one that was not.
"""

import atexit
import logging
import pickle  # its error alone is named  # nosec B403
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.utils.data import DataLoader, TensorDataset

from model_name.core import ranks
from model_name.core.features.transforms import Matrix
from model_name.core.models.model import FitContext
from model_name.core.models.network.hyperparameters import NetworkSettings
from model_name.core.models.network.lightning_module import LOSS, Batches, Training, class_weights
from model_name.core.models.network.network import SCORING_ROWS, Network
from model_name.errors import ConfigError, PreemptedError

KEPT_CHECKPOINTS = 2  # the last, and the one before it in case that a crash of the machine left the last unreadable
UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError)  # of torch.load


def train(
    network: Network,
    learning: TensorDataset,
    validating: TensorDataset,
    *,
    settings: NetworkSettings,
    context: FitContext,
    fingerprint: str,
) -> Network:
    """Fit a network and give it the weights of its best epoch.

    Args:
        network: With the weights to start from.
        learning: What it learns from.
        validating: What it is stopped by.
        settings: The hyperparameters.
        context: Checkpoints and progress.
        fingerprint: Names the checkpoints that may be gone on from.

    Raises:
        PreemptedError: A SIGTERM came.
        ConfigError: No epoch had a finite loss.
    """
    keeper = Keeper(settings, context, fingerprint)
    join()
    checkpoint = keeper.resume()
    if not keeper.is_done:
        fit(network, learning, validating, keeper, checkpoint=checkpoint)
    if not keeper.best_weights:
        raise ConfigError(
            f"{settings.KIND}: the validation loss was not finite in any epoch",
            hint=f"lower learning_rate ({settings.learning_rate})",
        )
    network.load_state_dict(keeper.best_weights)
    return network.cpu().eval().requires_grad_(requires_grad=False)


def tensors(network: Network, matrix: Matrix, targets: NDArray[Any]) -> TensorDataset:
    """Rows as the loss wants them; the targets of a regression are standardised."""
    wanted = torch.from_numpy(np.ascontiguousarray(targets))
    if not network.classes:
        wanted = ((wanted.double() - network.target_mean) / network.target_deviation).float()
    return TensorDataset(torch.from_numpy(np.ascontiguousarray(matrix)), wanted)


@contextmanager
def repeatable(seed: int, threads: int) -> Iterator[None]:
    """Fix what weights depend on beside the data (seed, algorithms, threads), and leave torch as it was."""
    had_threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    warned_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(had_threads)
            torch.use_deterministic_algorithms(was_deterministic, warn_only=warned_only)


def join() -> None:
    """Join the other processes that train, if there are any; until the end, because nobody can join them twice."""
    if ranks.world() > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence Lightning: its banners say nothing to the readers of a job's log, its advice is for larger models."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Keeper(Callback):
    """At the end of each epoch: keeps the best weights, stops when they get old, saves a checkpoint, tells progress."""

    def __init__(self, settings: NetworkSettings, context: FitContext, fingerprint: str) -> None:
        """Start before the first epoch."""
        self.settings = settings
        self.context = context
        self.fingerprint = fingerprint
        self.epochs_done = 0
        self.best_epoch = 0
        self.best_loss = inf
        self.best_weights: dict[str, Tensor] = {}

    @property
    def is_done(self) -> bool:
        """Whether there is no epoch left to train."""
        is_stale = self.epochs_done - self.best_epoch >= self.settings.patience
        return is_stale or self.epochs_done >= self.settings.max_epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """As of Lightning; the validation of the epoch has run by now."""
        loss = float(trainer.callback_metrics[LOSS])
        self.epochs_done = trainer.current_epoch + 1
        if isfinite(loss) and loss < self.best_loss:
            self.best_epoch, self.best_loss = self.epochs_done, loss
            weights = pl_module.network.state_dict()
            self.best_weights = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}
        trainer.should_stop = self.is_done
        if self.context.checkpoints is not None:
            self._save(trainer, self.context.checkpoints)
        self.context.progress(self.epochs_done, self.settings.max_epochs, f"validation loss {loss:.4g}")

    def state_dict(self) -> dict[str, Any]:
        """As of Lightning: what a checkpoint remembers of it."""
        return {name: getattr(self, name) for name in ("epochs_done", "best_epoch", "best_loss", "best_weights")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As of Lightning."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def resume(self) -> Path | None:
        """The newest checkpoint of this very fit that can be read, its state taken over; None to start afresh.

        Of several processes the first one chooses.
        """
        path = self._newest() if ranks.is_first() else None
        if ranks.world() > 1:
            chosen = [path]
            distributed.broadcast_object_list(chosen, src=0, device=torch.device("cpu"))
            path = chosen[0]
            if path is not None and not ranks.is_first():
                self._take_over(path)
        return path

    def _newest(self) -> Path | None:
        for path in reversed(self._checkpoints()):
            try:
                self._take_over(path)
            except UNREADABLE as err:
                self._tell(f"{path.name} cannot be read ({type(err).__name__}), looking for an earlier one")
                continue
            self._tell(f"resumed from {path.name}")
            return path
        return None

    def _take_over(self, path: Path) -> None:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        self.load_state_dict(checkpoint["callbacks"][self.state_key])

    def _checkpoints(self) -> list[Path]:
        """Those of this very fit, the newest last."""
        if self.context.checkpoints is None:
            return []
        return sorted(self.context.checkpoints.glob(f"{self.fingerprint}-*.ckpt"))

    def _save(self, trainer: Trainer, folder: Path) -> None:
        path = folder / f"{self.fingerprint}-{self.epochs_done:06d}.ckpt"
        partial = path.with_suffix(".partial")
        # Lightning writes to /tmp and moves, which is a copy, hence not atomic, where the folder is another volume.
        trainer.save_checkpoint(partial)  # all processes call it, the first one writes
        if not ranks.is_first():
            return
        partial.replace(path)
        for old in self._checkpoints()[:-KEPT_CHECKPOINTS]:
            old.unlink(missing_ok=True)

    def _tell(self, words: str) -> None:
        self.context.progress(self.epochs_done, self.settings.max_epochs, words)


def fit(
    network: Network,
    learning: TensorDataset,
    validating: TensorDataset,
    keeper: Keeper,
    *,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Train until the keeper says that it is done.

    Raises:
        PreemptedError: A SIGTERM came.
    """
    settings = keeper.settings
    rank, world = ranks.rank(), ranks.world()
    batches = Batches(len(learning), settings.batch_size, settings.random_state, rank=rank, world=world)
    module = Training(network, settings, batches, class_weights(settings, network, learning.tensors[1]))
    loaders = _loader(learning, batches), _loader(validating, Batches(len(validating), SCORING_ROWS))
    with quiet():
        trainer = _trainer(keeper, callbacks)
        try:
            trainer.fit(module, *loaders, ckpt_path=checkpoint)
        except SIGTERMException as err:
            raise _preempted(keeper) from err
        except SystemExit as err:
            # Lightning turns Ctrl-C into an exit with code 1; who called decides what it means.
            if isinstance(err.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from err
            raise
    if trainer.received_sigterm:  # in the very last moments, when Lightning no longer looks
        raise _preempted(keeper)


def _trainer(keeper: Keeper, callbacks: Sequence[Callback]) -> Trainer:
    is_alone = ranks.world() == 1
    return Trainer(
        accelerator="auto",
        devices=ranks.on_this_machine(),
        num_nodes=ranks.world() // ranks.on_this_machine(),
        strategy="auto" if is_alone else DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True),
        # One process without torchrun, whatever the environment variables of a cluster suggest.
        plugins=[LightningEnvironment() if is_alone else TorchElasticEnvironment()],
        use_distributed_sampler=False,
        max_epochs=keeper.settings.max_epochs,
        precision="bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true",
        deterministic="warn",
        callbacks=[*callbacks, keeper],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _loader(part: TensorDataset, batches: Batches) -> DataLoader[Any]:
    # A generator of its own, because a loader without one draws from the global state.
    return DataLoader(part, sampler=batches, batch_size=None, generator=torch.Generator())


def _preempted(keeper: Keeper) -> PreemptedError:
    if keeper.context.checkpoints is None:
        hint = "run it again; with a folder for checkpoints it could have gone on from here"
    else:
        hint = f"run it again with the same config: it goes on after epoch {keeper.epochs_done}"
    return PreemptedError(f"{keeper.settings.KIND}: told to stop after epoch {keeper.epochs_done}", hint=hint)
