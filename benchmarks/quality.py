"""The champion of a search beside what it must beat, on tables that the project was not made for.

Each table goes the way of a user's: `model-name init` infers its schema (the examples bring theirs), a fifth is held
out, the search sees the rest. Beside the champion are fitted:

- plain trees: scikit-learn's default HistGradientBoosting on the columns as they are (categories as codes, a datetime
  as hour, weekday and month), what one gets without this project;
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

from benchmarks.measuring import console, show, write
from benchmarks.tables import Source, sources
from model_name.core import dataframes
from model_name.core.metrics import Metric
from model_name.core.models import AutoModel, BoostedTrees, ConstantModel, FitContext, Model, RandomForest
from model_name.core.profiling.schema_inference import infer_schema
from model_name.core.schemas import TableSchema
from model_name.io.configs import load_document
from model_name.utils.search.automl import AutoSearcher
from model_name.utils.search.objective import SearchProblem
from model_name.utils.splitters import RandomSplitter, Splitter, TimeSplitter

SMALL_ROWS = 6000  # below which the held-out part is so small that several are drawn
DECIDING = {"regression": "rmse", "binary": "roc_auc", "multiclass": "log_loss"}
MIN_GAIN = {"regression": 0.08, "binary": 0.01}  # over plain trees, on average: a share of RMSE, a difference of AUC
NOISE = {"regression": 0.005, "binary": 0.002}  # that counts as no worse
MAX_FLIGHTS_RMSE = 2.6
GAINS = {"plain": "gain", "default": "gain over default trees"}


def main(argv: list[str] | None = None) -> int:
    """Measure; 1 if a limit is missed."""
    options = parse(argv)
    names = options.tables.split(",") if options.tables else list(sources())
    rows = []
    for name in names:
        rows.append(compare(name, sources()[name], AutoSearcher(budget_seconds=options.budget), options.repeats))
        console.print(f"{name}: {rows[-1]['champion']:.4g} against {rows[-1]['plain trees']:.4g}")
    show("Held-out rows: RMSE of regressions, AUC of binary targets", [shown(row) for row in rows])
    limits = judge(rows)
    write("quality", {"rows": rows, "budget": options.budget, "limits": limits})
    for words, is_kept in limits.items():
        console.print(f"{'ok    ' if is_kept else 'MISSED'} {words}")
    return 0 if all(limits.values()) else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--tables", default="", help=f"some of {', '.join(sources())}; all by default")
    parser.add_argument("--budget", default="60s", help="of each search")
    parser.add_argument("--repeats", type=int, default=3, help="held-out parts of a small table")
    return parser.parse_args(argv)


def compare(name: str, source: Source, searcher: AutoSearcher, repeats: int) -> dict[str, Any]:
    """What each model scores on a table, averaged over its held-out parts."""
    raw = source.read()
    schema = (
        load_document(source.schema, TableSchema)
        if source.schema
        else infer_schema(raw, name=name, target=source.target).schema
    )
    table = dataframes.check_frame(dataframes.add_lag_columns(raw, schema), schema).frame
    seeds = range(repeats if len(table) < SMALL_ROWS and schema.time is None else 1)
    found = [
        once(table, schema, searcher, TimeSplitter() if schema.time else RandomSplitter(random_state=seed))
        for seed in seeds
    ]
    mean = {key: statistics.fmean(one[key] for one in found) for key in found[0]}
    task = schema.target.task
    return (
        {"table": name, "task": task, "rows": len(table), "held-out parts": len(found)}
        | mean
        | {
            "gain": gain(task, mean["champion"], mean["plain trees"]),
            "gain over default trees": gain(task, mean["champion"], mean["default trees"]),
        }
    )


def once(table: pd.DataFrame, schema: TableSchema, searcher: AutoSearcher, splitter: Splitter) -> dict[str, float]:
    """What each model scores on one held-out part."""
    rows, held = splitter.split(table, schema)
    train, test = table.iloc[rows], table.iloc[held]
    metric = Metric(name=DECIDING[schema.target.task])
    context = FitContext(has_time_order=schema.time is not None)
    start = time.monotonic()
    chosen = searcher.search(SearchProblem(AutoModel(), schema, train, metric, splitter))
    champion = AutoModel().with_params(**chosen.best_params).fit(schema, train, context)
    seconds = time.monotonic() - start
    references: dict[str, Model] = {
        "default trees": BoostedTrees(),
        "forest": RandomForest(max_depth=None),
        "constant": ConstantModel(),
    }
    fitted = {name: model.fit(schema, train, context) for name, model in references.items()}
    plain = plainly(schema)
    fitted |= {"plain trees": BoostedTrees().fit(plain, train[[*plain.columns, plain.target.name]], context)}
    truth = test[schema.target.name].to_numpy()
    scores = {
        name: metric.score(truth, model.outputs(test)) for name, model in {"champion": champion, **fitted}.items()
    }
    return scores | {"seconds": seconds}


def plainly(schema: TableSchema) -> TableSchema:
    """The table without what the project adds to it: histories and encodings."""
    columns = {
        name: column.model_copy(update={"encode": type(column.encode)()})
        for name, column in schema.columns.items()
        if column.history is None
    }
    return schema.model_copy(update={"columns": columns, "interactions": (), "extra": "drop"})


def gain(task: str, value: float, other: float) -> float:
    """How much better: a share of the RMSE, or a difference of AUC or log loss."""
    return (other - value) / other if task == "regression" else value - other if task == "binary" else other - value


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table for people."""
    names = ("champion", "plain trees", "default trees", "forest", "constant")
    figures = {name: f"{row[name]:.4g}" for name in names}
    is_share = row["task"] == "regression"
    gains = {
        name: f"{row[name]:+.1%}" if is_share else f"{row[name]:+.4f}" for name in ("gain", "gain over default trees")
    }
    return {"table": row["table"], "rows": row["rows"]} | figures | gains | {"seconds": f"{row['seconds']:.0f}"}


def judge(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """The limits, and whether each is kept."""
    limits = {}
    for task, least in MIN_GAIN.items():
        gains = [row["gain"] for row in rows if row["task"] == task]
        if gains:
            limits[f"{task}: mean gain over plain trees {np.mean(gains):.4f} is at least {least}"] = (
                np.mean(gains) >= least
            )
    worse = [row["table"] for row in rows if min(row["gain"], row["gain over default trees"]) < -NOISE[row["task"]]]
    limits[f"never worse than plain or default trees{': ' if worse else ''}{', '.join(worse)}"] = not worse
    flights = [row["champion"] for row in rows if row["table"] == "flights"]
    if flights:
        limits[f"flights: RMSE {flights[0]:.3f} is at most {MAX_FLIGHTS_RMSE}"] = flights[0] <= MAX_FLIGHTS_RMSE
    return {words: bool(is_kept) for words, is_kept in limits.items()}


if __name__ == "__main__":
    raise SystemExit(main())
