"""Training of the tabular network: what Lightning and the batch sampler cost, beside a bare loop of PyTorch.

All train the same module on the same rows, by turns in one process; a round of each is timed after a round that is not.

    python -m benchmarks.training [--rows 200000] [--rounds 5]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from operator import truediv
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import console, show, write

if TYPE_CHECKING:
    from torch.utils.data import TensorDataset

    from model_name.core.models.network.mlp import TabularMLP
    from model_name.core.models.network.tabular import TabularNetwork

COLUMNS = 25
BATCHES = (1024, 8192)
MIN_RATIO = 0.85  # of our training to the bare loop


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if the limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    return judge({size: measure(size, options.rows, options.rounds) for size in BATCHES})


def judge(found: dict[int, dict[str, list[float]]]) -> int:
    """Print, write and hold against the limit; `found` are rows/s by batch size and way, a number a round."""
    ratios = {
        size: {way: statistics.median(map(truediv, rates, ways["bare"])) for way, rates in ways.items()}
        for size, ways in found.items()
    }
    lines = [
        {"": WAYS[way][0], "batch": size, "rows/s": statistics.median(rates), "ratio": ratios[size][way]}
        for size, ways in found.items()
        for way, rates in ways.items()
    ]
    show(f"Training, {COLUMNS} columns, one thread", lines)
    limits = {
        f"batch {size}: ratio {ways['ours']:.2f} is at least {MIN_RATIO}": ways["ours"] >= MIN_RATIO
        for size, ways in ratios.items()
    }
    for sentence, holds in limits.items():
        console.print(f"[{'green' if holds else 'red'}]{'holds' if holds else 'FAILS'}[/] {sentence}")
    write("training", {"rates": found, "ratios": ratios, "limits": limits})
    return 0 if all(limits.values()) else 1


def measure(size: int, rows: int, rounds: int) -> dict[str, list[float]]:
    """Rows a second of each way, a number a round."""
    from model_name.core.models.network.lightning_trainer import deterministic_training

    settings, network, learning = subject(size, rows)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with deterministic_training(settings.random_state, settings.threads):
        for number in range(rounds + 1):
            for way, (_, train) in WAYS.items():
                seconds = train(settings, network, learning)
                if number:
                    found[way].append(rows / seconds)
    return found


def subject(size: int, rows: int) -> "tuple[TabularNetwork, TabularMLP, TensorDataset]":
    """A default network of one epoch, and normal rows with a target to learn."""
    import numpy as np

    from model_name.core.features import NumericFeature
    from model_name.core.models import TabularNetwork
    from model_name.core.models.network.encoder import TabularEncoder
    from model_name.core.models.network.lightning_trainer import to_dataset
    from model_name.core.models.network.mlp import TabularMLP

    random = np.random.default_rng(0)
    matrix = random.normal(size=(rows, COLUMNS)).astype(np.float32)
    targets = matrix[:, 0] * matrix[:, 1] + random.normal(size=rows)
    settings = TabularNetwork(batch_size=size, max_epochs=1)
    features = [NumericFeature(name=f"n{place}", source=f"n{place}") for place in range(COLUMNS)]
    network = TabularMLP(TabularEncoder(features, matrix, settings), settings, classes=0, targets=targets)
    return settings, network, to_dataset(network, matrix, targets)


def bare(settings: "TabularNetwork", network: "TabularMLP", learning: "TensorDataset") -> float:
    """The loop that one writes by hand: shuffled indices, slices, a step."""
    import torch

    rows, targets = learning.tensors

    def batches() -> Any:
        for index in torch.split(torch.randperm(len(rows)), settings.batch_size):
            yield rows[index], targets[index]

    return loop(settings, network, batches())


def loaded(settings: "TabularNetwork", network: "TabularMLP", learning: "TensorDataset") -> float:
    """The same loop on what a plain loader hands out, row by row."""
    from torch.utils.data import DataLoader

    return loop(settings, network, DataLoader(learning, batch_size=settings.batch_size, shuffle=True))


def loop(settings: "TabularNetwork", network: "TabularMLP", batches: Any) -> float:
    """An epoch by hand, in seconds."""
    import torch
    from torch.nn import functional

    network.train().requires_grad_(requires_grad=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, weight_decay=settings.weight_decay, fused=True)
    start = time.perf_counter()
    for rows, targets in batches:
        optimizer.zero_grad(set_to_none=True)
        functional.mse_loss(network.logits(network.encoder(rows))[:, 0, 0], targets).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    return time.perf_counter() - start


def ours(settings: "TabularNetwork", network: "TabularMLP", learning: "TensorDataset") -> float:
    """An epoch of the project's training: Lightning, checkpoints off; its start and its validation are not timed."""
    from lightning import Callback
    from torch.utils.data import TensorDataset

    from model_name.core.models import FitContext
    from model_name.core.models.network import lightning_trainer

    class Clock(Callback):
        start = seconds = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    clock = Clock()
    network.train().requires_grad_(requires_grad=True)
    keeper = lightning_trainer.CheckpointCallback(settings, FitContext(), "benchmark")
    few = TensorDataset(*(tensor[:1] for tensor in learning.tensors))
    lightning_trainer.run_trainer(network, learning, few, keeper, callbacks=[clock])
    return clock.seconds


WAYS: dict[str, tuple[str, Callable[..., float]]] = {
    "bare": ("bare loop, sliced tensors", bare),
    "ours": ("TabularNetwork (Lightning)", ours),
    "loaded": ("bare loop, plain DataLoader", loaded),
}


if __name__ == "__main__":
    sys.exit(main())
