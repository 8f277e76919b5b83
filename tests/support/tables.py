"""Example tables of the tests, each for regression, binary and multiclass.

things: one column of every kind and policy, for models, features and explanations.
orders: a table with a learnable target and a time column, for jobs, pipelines and the command line.
flats: a table as a service receives it, for servers, Kafka workers and the prediction log.
"""

from typing import Any

import numpy as np
import pandas as pd

from model_name.core.schemas import TableSchema, Target
from model_name.core.schemas.columns import Column

TASKS = ("regression", "binary", "multiclass")

THING_CLASSES: dict[str, Any] = {"regression": None, "binary": [False, True], "multiclass": ["low", "mid", "high"]}
THING_COLUMNS: dict[str, Any] = {
    "size": {"kind": "numeric"},
    "gap": {"kind": "numeric", "nullable": True, "min": -10, "max": 10, "out_of_bounds": "clip"},
    "group": {"kind": "category"},
    "mark": {"kind": "category", "nullable": True, "values": ["p", "q", "r"]},
    "flag": {"kind": "boolean"},
    "maybe": {"kind": "boolean", "nullable": True},
    "moment": {"kind": "datetime"},
    "code": {"kind": "text-id"},
}

ORDER_TARGETS = {
    "regression": {"name": "amount", "task": "regression"},
    "binary": {"name": "amount", "task": "binary", "classes": ["low", "high"]},
    "multiclass": {"name": "amount", "task": "multiclass", "classes": [1, 2, 3]},
}

Row = dict[str, Any]
FLAT_ROWS: list[Row] = [
    {"area": 61.5, "age": 12.0, "district": "east", "heating": "gas", "is_let": False, "sold": "2025-03-07T09:30:00"},
    {"area": 140.0, "age": None, "district": "north", "heating": None, "is_let": None, "sold": "2025-06-21T17:00:00"},
    {"area": 8.0, "age": 80.0, "district": "", "heating": "wood", "is_let": True, "sold": "2025-01-02T00:00:00"},
]
"""Rows of flats as a client sends them: complete, with missing values, with an empty text as category."""


def thing_schema(task: str, **changes: Any) -> TableSchema:
    """Build the schema of the things; `changes` replace its keys."""
    target = {"name": "outcome", "task": task} | ({"classes": THING_CLASSES[task]} if THING_CLASSES[task] else {})
    raw = {"name": "things", "target": target, "columns": THING_COLUMNS, "time": "moment", "key": ["code"]}
    return TableSchema.model_validate(raw | changes)


def thing_table(task: str, rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """Generate things with the types of a Parquet file: ints, bools, None and NaN."""
    random = np.random.default_rng(seed)
    size = random.integers(0, 50, rows)
    group = random.choice(["a", "b", "c"], rows)
    flag = random.random(rows) < 0.5
    signal = size / 10 + 2 * (group == "b") + 1.5 * flag + random.normal(0, 0.3, rows)
    outcomes: dict[str, Any] = {
        "regression": signal,
        "binary": signal > np.median(signal),
        "multiclass": np.array(THING_CLASSES["multiclass"])[np.digitize(signal, np.quantile(signal, [0.33, 0.66]))],
    }
    return pd.DataFrame(
        {
            "size": size,
            "gap": np.where(random.random(rows) < 0.1, np.nan, random.normal(0, 3, rows).clip(-9, 9)),
            "group": group,
            "mark": random.choice(np.array(["p", "q", "r", None], dtype=object), rows),
            "flag": flag,
            "maybe": random.choice(np.array([True, False, None], dtype=object), rows),
            "moment": pd.date_range("2024-01-01", periods=rows, freq="7h"),
            "code": [f"id-{row}" for row in range(rows)],
            "outcome": outcomes[task],
        }
    )


def order_schema(task: str = "regression") -> dict[str, Any]:
    """Build the schema of the orders as it stands in a config file."""
    return {
        "name": "orders",
        "target": ORDER_TARGETS[task],
        "time": "moment",
        "key": ["code"],
        "columns": {
            "code": {"kind": "text-id"},
            "moment": {"kind": "datetime"},
            "region": {"kind": "category", "values": ["north", "south", "west"]},
            "size": {"kind": "numeric", "nullable": True, "min": -50, "max": 100},
            "is_open": {"kind": "boolean"},
        },
    }


def order_table(task: str = "regression", rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """Generate orders, whose target depends on the other columns."""
    rng = np.random.default_rng(seed)
    region = rng.choice(["north", "south", "west"], rows)
    size = rng.normal(10, 3, rows)
    is_open = rng.random(rows) < 0.7
    moment = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(rows), unit="h")
    signal = size + 4 * (region == "north") - 2 * is_open + 0.2 * moment.hour + rng.normal(0, 0.5, rows)
    bins = {"regression": [], "binary": [np.median(signal)], "multiclass": list(np.quantile(signal, [0.33, 0.66]))}
    labels = {"binary": np.array(["low", "high"]), "multiclass": np.array([1, 2, 3])}
    amount = signal if task == "regression" else labels[task][np.digitize(signal, bins[task])]
    frame = pd.DataFrame(
        {
            "code": [f"r{row:05d}" for row in range(rows)],
            "moment": moment,
            "region": region,
            "size": size,
            "is_open": is_open,
        }
    )
    frame.loc[rng.random(rows) < 0.1, "size"] = np.nan
    return frame.assign(amount=amount)


def flat_schema(task: str) -> TableSchema:
    """Build the schema of the flats."""
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


def flat_table(task: str, rows: int = 400) -> pd.DataFrame:
    """Generate flats, whose target depends on the other columns."""
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
