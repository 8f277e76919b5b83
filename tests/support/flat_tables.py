"""A small table with a column of each kind, and bundles over it: what servers and workers are tried with."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision, PredictionIntervals
from model_name.core.models import BoostedTrees
from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column
from model_name.serving.bundle import Bundle
from model_name.training.export import export_bundle, set_version

TASKS = ("regression", "binary", "multiclass")
VERSION = "7"

Row = dict[str, Any]

INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(300.0,), halves=((10.0, 20.0), (15.0, 30.0)), rows=300)
"""Of the bundle of a regression."""

ROWS: list[Row] = [
    {"area": 61.5, "age": 12.0, "district": "east", "heating": "gas", "is_let": False, "sold": "2025-03-07T09:30:00"},
    {"area": 140.0, "age": None, "district": "north", "heating": None, "is_let": None, "sold": "2025-06-21T17:00:00"},
    {"area": 8.0, "age": 80.0, "district": "", "heating": "wood", "is_let": True, "sold": "2025-01-02T00:00:00"},
]


def make_schema(task: str) -> TableSchema:
    """A table with a column of each kind and policy."""
    targets = {
        "regression": Target(name="price", task="regression"),
        "binary": Target(name="price", task="binary", classes=(False, True)),
        "multiclass": Target(name="price", task="multiclass", classes=("low", "fair", "high")),
    }
    return TableSchema(
        name="flats",
        target=targets[task],
        columns={
            "area": Column(kind="numeric", min=0, max=500),
            "age": Column(kind="numeric", nullable=True),
            "district": Column(kind="category", values=("", "east", "north"), unseen="refuse"),
            "heating": Column(kind="category", nullable=True),
            "is_let": Column(kind="boolean", nullable=True),
            "sold": Column(kind="datetime"),
            "remark": Column(kind="text-id", nullable=True),
        },
    )


def make_table(task: str, rows: int = 400) -> pd.DataFrame:
    """Rows of such a table, with a target that depends on them."""
    random = np.random.default_rng(7)
    area = random.uniform(5, 200, rows)
    age = np.where(random.random(rows) < 0.2, np.nan, random.uniform(0, 100, rows))
    district = random.choice(["", "east", "north"], rows)
    price = area * 3 + np.nan_to_num(age) + 50 * (district == "north") + random.normal(0, 5, rows)
    targets = {
        "regression": price,
        "binary": price > 350,
        "multiclass": np.select([price < 250, price < 450], ["low", "fair"], "high"),
    }
    return pd.DataFrame(
        {
            "area": area,
            "age": age,
            "district": district,
            "heating": random.choice(np.array(["gas", "wood", None], dtype=object), rows),
            "is_let": random.choice(np.array([True, False, None], dtype=object), rows),
            "sold": pd.Timestamp("2025-01-01") + pd.to_timedelta(random.integers(0, 24 * 300, rows), unit="h"),
            "remark": "",
            "price": targets[task],
        }
    )


def make_bundle(task: str, directory: Path) -> Bundle:
    """Fit few trees and export them."""
    schema = make_schema(task)
    table = dataframes.check_frame(make_table(task), schema).frame
    train, test = table[:300], table[300:]
    model = BoostedTrees(max_iter=10).fit(schema, train)
    if task == "regression":
        model.set_decision(Decision(intervals=INTERVALS))
    bundle = export_bundle(model, directory, train, test, name=task, run_id="0" * 32, metrics={})
    set_version(bundle, semver="1.2.3", version=VERSION)
    return Bundle.load(directory)
