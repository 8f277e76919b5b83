"""Training speed of the tabular network: cost of Lightning and the batch sampler over a plain PyTorch loop.

All train the same module on the same rows, alternating in one process; the first round of each is not timed.

    python -m benchmarks.training [--rows 200000] [--rounds 5]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from operator import truediv
from typing import TYPE_CHECKING, Any

from benchmarks.harness import conclude, print_table

if TYPE_CHECKING:
    from torch.utils.data import TensorDataset

    from model_name.core.models.network.mlp import TabularMLP
    from model_name.core.models.network.tabular import TabularNetwork

COLUMNS = 25
BATCHES = (1024, 8192)
MIN_RATIO = 0.85  # of the speed of the plain loop


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    return report({size: measure(size, options.rows, options.rounds) for size in BATCHES})


def report(rates: dict[int, dict[str, list[float]]]) -> int:
    """Print and write the results, and check the limits.

    Args:
        rates: Rows per second of each round, by batch size and loop.
    """
    ratios = {
        size: {name: statistics.median(map(truediv, values, by_loop["bare"])) for name, values in by_loop.items()}
        for size, by_loop in rates.items()
    }
    table = [
        {"": LOOPS[name][0], "batch": size, "rows/s": statistics.median(values), "ratio": ratios[size][name]}
        for size, by_loop in rates.items()
        for name, values in by_loop.items()
    ]
    print_table(f"Training, {COLUMNS} columns, one thread", table)
    limits = {
        f"batch {size}: ratio {by_loop['ours']:.2f} is at least {MIN_RATIO}": by_loop["ours"] >= MIN_RATIO
        for size, by_loop in ratios.items()
    }
    return conclude("training", {"rates": rates, "ratios": ratios}, limits)


def measure(size: int, rows: int, rounds: int) -> dict[str, list[float]]:
    """Measure the rows per second of each loop in each round."""
    from model_name.core.models.network.lightning_trainer import deterministic_training

    settings, network, dataset = make_training(size, rows)
    rates: dict[str, list[float]] = {name: [] for name in LOOPS}
    with deterministic_training(settings.random_state, settings.threads):
        for number in range(rounds + 1):
            for name, (_, train) in LOOPS.items():
                seconds = train(settings, network, dataset)
                if number:
                    rates[name].append(rows / seconds)
    return rates


def make_training(size: int, rows: int) -> "tuple[TabularNetwork, TabularMLP, TensorDataset]":
    """Create a default network of one epoch, and normally distributed rows with a target."""
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
    features = [NumericFeature(name=f"n{position}", source=f"n{position}") for position in range(COLUMNS)]
    network = TabularMLP(TabularEncoder(features, matrix, settings), settings, classes=0, targets=targets)
    return settings, network, to_dataset(network, matrix, targets)


def train_with_slices(settings: "TabularNetwork", network: "TabularMLP", dataset: "TensorDataset") -> float:
    """Train with the plain loop: shuffled indices, sliced tensors, a step."""
    import torch

    rows, targets = dataset.tensors

    def batches() -> Any:
        for index in torch.split(torch.randperm(len(rows)), settings.batch_size):
            yield rows[index], targets[index]

    return train_epoch(settings, network, batches())


def train_with_data_loader(settings: "TabularNetwork", network: "TabularMLP", dataset: "TensorDataset") -> float:
    """Train with the plain loop on a `DataLoader`, which collates row by row."""
    from torch.utils.data import DataLoader

    return train_epoch(settings, network, DataLoader(dataset, batch_size=settings.batch_size, shuffle=True))


def train_epoch(settings: "TabularNetwork", network: "TabularMLP", batches: Any) -> float:
    """Train one epoch with a plain loop; return its seconds."""
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


def train_with_lightning(settings: "TabularNetwork", network: "TabularMLP", dataset: "TensorDataset") -> float:
    """Train one epoch with Lightning, without checkpoints; return its seconds without start and validation."""
    from lightning import Callback
    from torch.utils.data import TensorDataset

    from model_name.core.models import FitContext
    from model_name.core.models.network import checkpoint_callback, lightning_trainer

    class Timer(Callback):
        start = seconds = 0.0

        def on_train_epoch_start(self, *_: Any) -> None:
            self.start = time.perf_counter()

        def on_train_batch_end(self, *_: Any) -> None:
            self.seconds = time.perf_counter() - self.start

    timer = Timer()
    network.train().requires_grad_(requires_grad=True)
    checkpoints = checkpoint_callback.CheckpointCallback(settings, FitContext(), "benchmark")
    validation = TensorDataset(*(tensor[:1] for tensor in dataset.tensors))
    lightning_trainer.run_trainer(network, dataset, validation, checkpoints, callbacks=[timer])
    return timer.seconds


LOOPS: dict[str, tuple[str, Callable[..., float]]] = {
    "bare": ("bare loop, sliced tensors", train_with_slices),
    "ours": ("TabularNetwork (Lightning)", train_with_lightning),
    "loaded": ("bare loop, plain DataLoader", train_with_data_loader),
}


if __name__ == "__main__":
    sys.exit(main())
