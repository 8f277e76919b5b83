"""Quality of the model that a search selects, compared with baselines on many tables.

Each table is treated like that of a user: its schema is inferred as `model-name init` does (examples have one), a fifth
is held out, the search uses the rest. The baselines are:

- plain trees: scikit-learn's default HistGradientBoosting on the raw columns (categories as codes, a datetime as hour,
  weekday and month), the result without this project;
- default trees, a forest and a constant on the project's features.

    python -m benchmarks.quality [--tables flights,wage] [--budget 60s] [--repeats 3]
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.example_tables import TableSource, table_sources
from benchmarks.harness import conclude, console, print_table
from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import AutoModel, BoostedTrees, ConstantModel, FitContext, Model, RandomForest
from model_name.core.profiling.schema_inference import infer_schema
from model_name.core.schemas import TableSchema
from model_name.io.configs import load_document
from model_name.utils.search.automl import AutoSearcher
from model_name.utils.search.objective import SearchProblem
from model_name.utils.splitters import RandomSplitter, Splitter, TimeSplitter

SMALL_ROWS = 6000  # tables with fewer rows are split several times, because the held-out part is small
METRICS = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}
MIN_GAIN = {"regression": 0.08, "binary": 0.01}  # mean over plain trees: share of the RMSE, difference of AUC
MAX_LOSS = {"regression": 0.005, "binary": 0.002}  # that counts as noise
MAX_FLIGHTS_RMSE = 2.6


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if a limit is missed."""
    options = parse_arguments(argv)
    names = options.tables.split(",") if options.tables else list(table_sources())
    rows = []
    for name in names:
        rows.append(compare(name, table_sources()[name], AutoSearcher(budget_seconds=options.budget), options.repeats))
        console.print(f"{name}: {rows[-1]['champion']:.4g} against {rows[-1]['plain trees']:.4g}")
    print_table("Held-out rows: RMSE of regressions, AUC of binary targets", [format_row(row) for row in rows])
    return conclude("quality", {"rows": rows, "budget": options.budget}, check_limits(rows))


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--tables", default="", help=f"some of {', '.join(table_sources())}; all by default")
    parser.add_argument("--budget", default="60s", help="time budget of each search")
    parser.add_argument("--repeats", type=int, default=3, help="number of held-out parts of a small table")
    return parser.parse_args(argv)


def compare(name: str, source: TableSource, searcher: AutoSearcher, repeats: int) -> dict[str, Any]:
    """Score each model on a table, averaged over its held-out parts."""
    raw = source.load()
    schema = (
        load_document(source.schema, TableSchema)
        if source.schema
        else infer_schema(raw, name=name, target=source.target).schema
    )
    table = dataframes.check_frame(dataframes.add_lag_columns(raw, schema), schema).frame
    seeds = range(repeats if len(table) < SMALL_ROWS and schema.time is None else 1)
    scores = [
        compare_once(table, schema, searcher, TimeSplitter() if schema.time else RandomSplitter(random_state=seed))
        for seed in seeds
    ]
    mean = {key: statistics.fmean(part[key] for part in scores) for key in scores[0]}
    task = schema.target.task
    return (
        {"table": name, "task": task, "rows": len(table), "held-out parts": len(scores)}
        | mean
        | {
            "gain": gain(task, mean["champion"], mean["plain trees"]),
            "gain over default trees": gain(task, mean["champion"], mean["default trees"]),
        }
    )


def compare_once(
    table: pd.DataFrame, schema: TableSchema, searcher: AutoSearcher, splitter: Splitter
) -> dict[str, float]:
    """Score each model on one held-out part."""
    rows, held = splitter.split(table, schema)
    train, test = table.iloc[rows], table.iloc[held]
    metric = Metric(name=METRICS[schema.target.task])
    context = FitContext(has_time_order=schema.time is not None)
    start = time.monotonic()
    result = searcher.search(SearchProblem(AutoModel(), schema, train, metric, splitter))
    champion = AutoModel().with_params(**result.best_params).fit(schema, train, context)
    seconds = time.monotonic() - start
    references: dict[str, Model] = {
        "default trees": BoostedTrees(),
        "forest": RandomForest(max_depth=None),
        "constant": ConstantModel(),
    }
    fitted = {name: model.fit(schema, train, context) for name, model in references.items()}
    plain = without_feature_engineering(schema)
    fitted |= {"plain trees": BoostedTrees().fit(plain, train[[*plain.columns, plain.target.name]], context)}
    truth = test[schema.target.name].to_numpy()
    scores = {
        name: metric.score(truth, model.outputs(test)) for name, model in {"champion": champion, **fitted}.items()
    }
    return scores | {"seconds": seconds}


def without_feature_engineering(schema: TableSchema) -> TableSchema:
    """Remove what the project adds to a table: lags and encodings."""
    columns = {
        name: column.model_copy(update={"encode": type(column.encode)()})
        for name, column in schema.columns.items()
        if column.history is None
    }
    return schema.model_copy(update={"columns": columns, "interactions": (), "extra": "drop"})


def gain(task: str, value: float, other: float) -> float:
    """Compute an improvement: a share of the RMSE, or a difference of AUC or log loss."""
    return (other - value) / other if task == "regression" else value - other if task == "binary" else other - value


def format_row(row: dict[str, Any]) -> dict[str, Any]:
    """Format a row of the table."""
    names = ("champion", "plain trees", "default trees", "forest", "constant")
    scores = {name: f"{row[name]:.4g}" for name in names}
    is_share = row["task"] == "regression"
    gains = {
        name: f"{row[name]:+.1%}" if is_share else f"{row[name]:+.4f}" for name in ("gain", "gain over default trees")
    }
    return {"table": row["table"], "rows": row["rows"]} | scores | gains | {"seconds": f"{row['seconds']:.0f}"}


def check_limits(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Check the limits; return whether each is met."""
    limits = {}
    for task, min_gain in MIN_GAIN.items():
        gains = [row["gain"] for row in rows if row["task"] == task]
        if gains:
            limits[f"{task}: mean gain over plain trees {np.mean(gains):.4f} is at least {min_gain}"] = (
                np.mean(gains) >= min_gain
            )
    worse = [row["table"] for row in rows if min(row["gain"], row["gain over default trees"]) < -MAX_LOSS[row["task"]]]
    limits[f"never worse than plain or default trees{': ' if worse else ''}{', '.join(worse)}"] = not worse
    flights = [row["champion"] for row in rows if row["table"] == "flights"]
    if flights:
        limits[f"flights: RMSE {flights[0]:.3f} is at most {MAX_FLIGHTS_RMSE}"] = flights[0] <= MAX_FLIGHTS_RMSE
    return {limit: bool(is_met) for limit, is_met in limits.items()}


if __name__ == "__main__":
    raise SystemExit(main())
