"""Batches for a prediction log with a column of each kind, and readers of the written files."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.decoding import decode_column
from model_name.core.schemas.validation import ValidationIssues
from model_name.serving.bundle import Manifest
from model_name.serving.prediction_log.row_selection import LoggedBatch, LoggedRequest

NOON = 1_750_507_200.0  # 2025-06-21T12:00:00Z
DAY = 86_400.0
ROW: dict[str, Any] = {
    "area": 61.5,
    "age": None,
    "district": "east",
    "is_let": False,
    "sold": "2025-03-07T09:30:00",
    "remark": 'to the 5 % who ask, a "garden"\n',
}
CLASSES: dict[str, Any] = {"regression": None, "binary": [False, True], "multiclass": ["low", "fair", "5 % top"]}


def schema(task: str = "regression", sensitive: Sequence[str] = ()) -> TableSchema:
    """Create a schema with a column of each kind."""
    kinds = {
        "area": "numeric",
        "age": "numeric",
        "district": "category",
        "is_let": "boolean",
        "sold": "datetime",
        "remark": "text-id",
    }
    columns = {name: {"kind": kind, "nullable": True, "sensitive": name in sensitive} for name, kind in kinds.items()}
    target = {"name": "price", "task": task} | ({"classes": CLASSES[task]} if CLASSES[task] else {})
    return TableSchema.model_validate({"name": "flats", "target": target, "columns": columns})


def manifest(table: TableSchema, version: str = "7") -> Manifest:
    """Create a manifest with the fields that a log uses."""
    return Manifest.model_construct(name="flats", semver="1.2.3", version=version, table=table)


def batch(
    rows: Sequence[Mapping[str, Any]] = (ROW,),
    *,
    of: Manifest | None = None,
    sizes: Sequence[int] = (),
    outputs: Outputs | None = None,
    received_at: float = NOON,
) -> LoggedBatch:
    """Create a predicted batch, with one row per request unless `sizes` gives the numbers of rows."""
    of = of or manifest(schema())
    issues = ValidationIssues()
    columns = {
        name: decode_column(name, of.table.columns[name], [row[name] for row in rows], issues) for name in rows[0]
    }
    issues.raise_if_any()
    requests, start = [], 0
    for number, size in enumerate(sizes or [1] * len(rows)):
        requests.append(LoggedRequest(f"request-{number}", "v1", received_at, 0.00342, slice(start, start + size)))
        start += size
    return LoggedBatch(of, columns, outputs or Outputs(np.arange(len(rows)) / 2), tuple(requests))


def lines(folder: Path) -> list[dict[str, Any]]:
    """Read all records below a folder."""
    return [json.loads(line) for file in files(folder) for line in file.read_bytes().splitlines()]


def files(folder: Path) -> list[Path]:
    """List all files of a log."""
    return sorted(folder.rglob("*.jsonl"))


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)
