"""Explaining 1 000 rows of the example: the network by expected gradients, beside SHAP's DeepExplainer; the trees.

python -m benchmarks.explaining [--rows 1000] [--rounds 3]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import console, show, write

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model_name.core.models import TabularNetwork

CONFS = "confs/flights"
KINDS = ("TabularNetwork", "BoostedTrees", "RandomForest")
DEEP = "DeepExplainer"
MAX_SECONDS = 1.0  # of the network, for 1 000 rows on two processors
MIN_CORRELATION = 0.99


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explaining", description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    return judge(options.rows, *measure(options.rows, options.rounds))


def judge(rows: int, seconds: dict[str, list[float]], correlation: float) -> int:
    """Print, write and hold against the limits; `seconds` are those of each round."""
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians[DEEP] / medians["TabularNetwork"]
    lines = [
        {"": name, "seconds": median, "rows/s": rows / median, "of DeepExplainer's": median / medians[DEEP]}
        for name, median in medians.items()
    ]
    show(f"Explaining {rows:,} rows", lines)
    console.print(f"the network is explained {ratio:.1f} times as fast as by DeepExplainer")
    limit = MAX_SECONDS * rows / 1000
    limits = {
        f"{medians['TabularNetwork']:.2f} s is at most {limit:g} s": medians["TabularNetwork"] <= limit,
        f"correlation {correlation:.4f} is at least {MIN_CORRELATION}": correlation >= MIN_CORRELATION,
    }
    for sentence, holds in limits.items():
        console.print(f"[{'green' if holds else 'red'}]{'holds' if holds else 'FAILS'}[/] {sentence}")
    write("explaining", {"seconds": seconds, "ratio": ratio, "correlation": correlation, "limits": limits})
    return 0 if all(limits.values()) else 1


def measure(rows: int, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of each round by explainer, taken by turns, and how far the two of the network agree."""
    import numpy as np

    from model_name.core.models import FitContext, TabularNetwork, model_kinds
    from model_name.settings import load_job

    job = load_job([f"{CONFS}/training.yaml"], (), {})
    split: Any = job.read_split()
    table: pd.DataFrame = split.test.head(rows)
    models = {
        kind: model_kinds()[kind]().fit(job.schema_, split.train, FitContext(has_time_order=True)) for kind in KINDS
    }
    network = models["TabularNetwork"]
    assert isinstance(network, TabularNetwork)
    explainers: dict[str, Callable[[], Any]] = {kind: partial(model.explain, table) for kind, model in models.items()}
    explainers[DEEP] = partial(deep, network, table)
    seconds: dict[str, list[float]] = {name: [] for name in explainers}
    found: dict[str, Any] = {}
    for _ in range(rounds):
        for name, explain in explainers.items():
            start = time.perf_counter()
            found[name] = explain()
            seconds[name].append(time.perf_counter() - start)
    correlation = np.corrcoef(found["TabularNetwork"].values.ravel(), found[DEEP].ravel())[0, 1]
    return seconds, float(correlation)


def deep(model: "TabularNetwork", table: "pd.DataFrame") -> "NDArray[Any]":
    """SHAP's contributions, over the encoded rows with the model's background, added up by feature."""
    import shap
    import torch

    network = model.get_internal_model()
    rows, background = torch.from_numpy(model.matrix(table)), torch.from_numpy(model._background)  # noqa: SLF001  the very same
    explainer = shap.DeepExplainer(network.body, network.encoder(background))
    values = torch.tensor(explainer.shap_values(network.encoder(rows), check_additivity=False))[:, :, 0]
    by_feature = torch.zeros(rows.shape).index_add_(1, network.encoder.source_features, values.float())
    return (by_feature * network.target_deviation).numpy()


if __name__ == "__main__":
    sys.exit(main())
