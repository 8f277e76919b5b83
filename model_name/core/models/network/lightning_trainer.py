"""Training of a tabular network by Lightning, resumed from its last checkpoint if there is one.

Shuffling and dropout are functions of (seed, epoch) and not of a running state, so that a killed and resumed run ends
with exactly the weights of an uninterrupted one.
"""

import atexit
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from numpy.typing import NDArray
from torch import distributed
from torch.utils.data import DataLoader, TensorDataset

from model_name.core import ranks
from model_name.core.features import Matrix
from model_name.core.models.model import FitContext
from model_name.core.models.network.checkpoint_callback import CheckpointCallback
from model_name.core.models.network.hyperparameters import NetworkHyperparameters
from model_name.core.models.network.lightning_module import EpochBatchSampler, TabularLightningModule, class_weights
from model_name.core.models.network.mlp import SCORING_BATCH_SIZE, TabularMLP
from model_name.errors import ConfigError, PreemptedError


def train_network(
    network: TabularMLP,
    train_set: TensorDataset,
    validation_set: TensorDataset,
    *,
    hyperparameters: NetworkHyperparameters,
    context: FitContext,
    fingerprint: str,
) -> TabularMLP:
    """Train a network and load the weights of its best epoch.

    Args:
        network: Network with its initial weights.
        train_set: Rows to train on.
        validation_set: Rows for early stopping.
        hyperparameters: Hyperparameters of network and training.
        context: Checkpoints and progress.
        fingerprint: Prefix of the names of checkpoints that this training may resume from.

    Raises:
        PreemptedError: SIGTERM was received during the training.
        ConfigError: The validation loss was not finite in any epoch.
    """
    checkpointing = CheckpointCallback(hyperparameters, context, fingerprint)
    join_process_group()
    checkpoint = checkpointing.resume()
    if not checkpointing.is_done:
        run_trainer(network, train_set, validation_set, checkpointing, checkpoint=checkpoint)
    if not checkpointing.best_weights:
        raise ConfigError(
            f"{hyperparameters.KIND}: the validation loss was not finite in any epoch",
            hint=f"lower learning_rate ({hyperparameters.learning_rate})",
        )
    network.load_state_dict(checkpointing.best_weights)
    return network.cpu().eval().requires_grad_(requires_grad=False)


def to_dataset(network: TabularMLP, matrix: Matrix, targets: NDArray[Any]) -> TensorDataset:
    """Build a dataset for the loss; the targets of a regression are standardised."""
    labels = torch.from_numpy(np.ascontiguousarray(targets))
    if not network.classes:
        labels = ((labels.double() - network.target_mean) / network.target_deviation).float()
    return TensorDataset(torch.from_numpy(np.ascontiguousarray(matrix)), labels)


@contextmanager
def deterministic_training(seed: int, threads: int) -> Iterator[None]:
    """Fix seed, algorithms and number of threads, so that equal data give equal weights; restore torch's state."""
    previous_threads = torch.get_num_threads()
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    was_warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(previous_threads)
            torch.use_deterministic_algorithms(was_deterministic, warn_only=was_warn_only)


def join_process_group() -> None:
    """Join the process group under torchrun; left at exit only, because a process group cannot be joined twice."""
    if ranks.world_size() > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Silence Lightning's banners and advice, which do not apply to models this small."""
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


def run_trainer(
    network: TabularMLP,
    train_set: TensorDataset,
    validation_set: TensorDataset,
    checkpointing: CheckpointCallback,
    *,
    checkpoint: Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> None:
    """Run Lightning's trainer until `checkpointing` stops it.

    Raises:
        PreemptedError: SIGTERM was received during the training.
    """
    hyperparameters = checkpointing.hyperparameters
    rank, world_size = ranks.rank(), ranks.world_size()
    batches = EpochBatchSampler(
        len(train_set), hyperparameters.batch_size, hyperparameters.random_state, rank=rank, world_size=world_size
    )
    module = TabularLightningModule(
        network, hyperparameters, batches, class_weights(hyperparameters, network, train_set.tensors[1])
    )
    loaders = (
        _loader(train_set, batches),
        _loader(validation_set, EpochBatchSampler(len(validation_set), SCORING_BATCH_SIZE)),
    )
    with silence_lightning():
        trainer = _trainer(checkpointing, callbacks)
        try:
            trainer.fit(module, *loaders, ckpt_path=checkpoint)
        except SIGTERMException as err:
            raise _preempted(checkpointing) from err
        except SystemExit as err:
            # Lightning turns Ctrl-C into an exit with code 1; the caller decides how to handle it.
            if isinstance(err.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt from err
            raise
    if trainer.received_sigterm:  # at the very end, when Lightning no longer checks
        raise _preempted(checkpointing)


def _trainer(checkpointing: CheckpointCallback, callbacks: Sequence[Callback]) -> Trainer:
    is_alone = ranks.world_size() == 1
    return Trainer(
        accelerator="auto",
        devices=ranks.local_world_size(),
        num_nodes=ranks.world_size() // ranks.local_world_size(),
        strategy="auto" if is_alone else DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True),
        # One process without torchrun, even if the environment variables of a cluster claim several.
        plugins=[LightningEnvironment() if is_alone else TorchElasticEnvironment()],
        use_distributed_sampler=False,
        max_epochs=checkpointing.hyperparameters.max_epochs,
        precision="bf16-mixed" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "32-true",
        deterministic="warn",
        callbacks=[*callbacks, checkpointing],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _loader(dataset: TensorDataset, batches: EpochBatchSampler) -> DataLoader[Any]:
    # With its own generator, because a loader without one draws from the global state.
    return DataLoader(dataset, sampler=batches, batch_size=None, generator=torch.Generator())


def _preempted(checkpointing: CheckpointCallback) -> PreemptedError:
    if checkpointing.context.checkpoints is None:
        hint = "run it again; with a folder for checkpoints it could have gone on from here"
    else:
        hint = f"run it again with the same config: it goes on after epoch {checkpointing.epochs_done}"
    return PreemptedError(
        f"{checkpointing.hyperparameters.KIND}: told to stop after epoch {checkpointing.epochs_done}", hint=hint
    )
