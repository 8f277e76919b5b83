"""Batches for a prediction log with a column of each kind, and readers of the written files."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.decoding import decode_column
from model_name.core.schemas.validation import ValidationIssues
from model_name.serving.bundle import Manifest
from model_name.serving.prediction_log.blocks import LoggedBatch

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


@dataclass
class Request:
    """Properties of a request that are logged."""

    id: str
    protocol: str = "v1"
    trace_id: str = ""
    received_at: float = NOON
    pending_since: float = 1000.0
    size: int = 100


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


@cache
def default_manifest() -> Manifest:
    """Create the manifest of all batches that name no other, so that their rows can be in one block."""
    return manifest(schema())


def batch(
    rows: Sequence[Mapping[str, Any]] = (ROW,),
    *,
    of: Manifest | None = None,
    sizes: Sequence[int] = (),
    outputs: Outputs | None = None,
    received_at: float = NOON,
    trace_ids: Sequence[str] = (),
) -> LoggedBatch:
    """Create a predicted batch, with one row per request unless `sizes` gives the numbers of rows."""
    of = of or default_manifest()
    issues = ValidationIssues()
    columns = {
        name: decode_column(name, of.table.columns[name], [row[name] for row in rows], issues) for name in rows[0]
    }
    issues.raise_if_any()
    sizes = sizes or [1] * len(rows)
    requests = [Request(f"request-{number}", received_at=received_at) for number in range(len(sizes))]
    for request, trace_id in zip(requests, trace_ids, strict=False):
        request.trace_id = trace_id
    ends = np.cumsum(sizes).tolist()
    slices = [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    return LoggedBatch(of, requests, slices, columns, outputs or Outputs(np.arange(len(rows)) / 2), 1000.00342)


def lines(folder: Path) -> list[dict[str, Any]]:
    """Read all rows below a folder."""
    return [
        row for file in files(folder) for line in file.read_bytes().splitlines() for row in expand(json.loads(line))
    ]


def expand(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a block as objects, without the reader of the log."""
    requests, outputs = dict(block["requests"]), dict(block["outputs"])
    probabilities = outputs.pop("probabilities", None)
    assert {len(values) for values in requests.values()} == {len(requests["id"])}
    position = 0
    for number, count in enumerate(requests.pop("rows")):
        request = {name: values[number] for name, values in requests.items()}
        request_id, first_row = request.pop("id"), request.pop("first_row")
        for row in range(count):
            record = {name: value for name, value in block.items() if name not in ("requests", "inputs", "outputs")}
            record |= request | {"request_id": request_id, "row": first_row + row}
            record["inputs"] = {name: values[position] for name, values in block["inputs"].items()}
            record["outputs"] = {name: values[position] for name, values in outputs.items()}
            if probabilities is not None:
                record["outputs"]["probabilities"] = {
                    label: values[position] for label, values in probabilities.items()
                }
            yield record
            position += 1
    assert {position} == {len(values) for values in [*block["inputs"].values(), *outputs.values()]}


def files(folder: Path) -> list[Path]:
    """List all files of a log."""
    return sorted(folder.rglob("*.jsonl"))


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.005)
