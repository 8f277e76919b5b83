"""Time to explain 1 000 rows of the example: a network by expected gradients and by SHAP's DeepExplainer, and trees.

python -m benchmarks.explaining [--rows 1000] [--rounds 3]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.harness import conclude, console, print_table

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from model_name.core.models import TabularNetwork

CONFS = "confs/flights"
KINDS = ("TabularNetwork", "BoostedTrees", "RandomForest")
DEEP = "DeepExplainer"
MAX_SECONDS = 1.0  # for 1 000 rows of the network on two processors
MIN_CORRELATION = 0.99


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explaining", description=__doc__)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    return report(options.rows, *measure(options.rows, options.rounds))


def report(rows: int, seconds: dict[str, list[float]], correlation: float) -> int:
    """Print and write the results, and check the limits.

    Args:
        rows: Number of explained rows.
        seconds: Seconds of each round, by explainer.
        correlation: Correlation of the two explanations of the network.
    """
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians[DEEP] / medians["TabularNetwork"]
    table = [
        {"": name, "seconds": median, "rows/s": rows / median, "of DeepExplainer's": median / medians[DEEP]}
        for name, median in medians.items()
    ]
    print_table(f"Explaining {rows:,} rows", table)
    console.print(f"the network is explained {ratio:.1f} times as fast as by DeepExplainer")
    limit = MAX_SECONDS * rows / 1000
    limits = {
        f"{medians['TabularNetwork']:.2f} s is at most {limit:g} s": medians["TabularNetwork"] <= limit,
        f"correlation {correlation:.4f} is at least {MIN_CORRELATION}": correlation >= MIN_CORRELATION,
    }
    return conclude("explaining", {"seconds": seconds, "ratio": ratio, "correlation": correlation}, limits)


def measure(rows: int, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Measure the seconds of each round by explainer, alternating, and the correlation for the network."""
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
    explainers[DEEP] = partial(explain_with_shap, network, table)
    seconds: dict[str, list[float]] = {name: [] for name in explainers}
    explanations: dict[str, Any] = {}
    for _ in range(rounds):
        for name, explain in explainers.items():
            start = time.perf_counter()
            explanations[name] = explain()
            seconds[name].append(time.perf_counter() - start)
    correlation = np.corrcoef(explanations["TabularNetwork"].values.ravel(), explanations[DEEP].ravel())[0, 1]
    return seconds, float(correlation)


def explain_with_shap(model: "TabularNetwork", table: "pd.DataFrame") -> "NDArray[Any]":
    """Compute SHAP values of the encoded rows over the model's background, summed by feature."""
    import shap
    import torch

    network = model.get_internal_model()
    rows, background = torch.from_numpy(model.matrix(table)), torch.from_numpy(model._background)  # noqa: SLF001  the same background
    explainer = shap.DeepExplainer(network.body, network.encoder(background))
    values = torch.tensor(explainer.shap_values(network.encoder(rows), check_additivity=False))[:, :, 0]
    by_feature = torch.zeros(rows.shape).index_add_(1, network.encoder.source_features, values.float())
    return (by_feature * network.target_deviation).numpy()


if __name__ == "__main__":
    sys.exit(main())
