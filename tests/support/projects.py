"""Small projects that tests run jobs in: a table, a schema and a config folder, made in a folder of the test's."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

TARGETS = {
    "regression": {"name": "amount", "task": "regression"},
    "binary": {"name": "amount", "task": "binary", "classes": ["low", "high"]},
    "multiclass": {"name": "amount", "task": "multiclass", "classes": [1, 2, 3]},
}
METRICS: dict[str, list[dict[str, Any]]] = {
    "regression": [{"name": "rmse", "threshold": 4.0}, {"name": "r2", "threshold": 0.5}],
    "binary": [{"name": "roc_auc", "threshold": 0.6}, {"name": "log_loss"}],
    "multiclass": [{"name": "log_loss"}, {"name": "accuracy", "threshold": 0.4}],
}


def table(task: str = "regression", rows: int = 600, seed: int = 0) -> pd.DataFrame:
    """A table with every kind of column, in which the target can be learnt."""
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


def schema(task: str = "regression") -> dict[str, Any]:
    """Its schema, as a config holds it."""
    return {
        "name": "orders",
        "target": TARGETS[task],
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


def project(folder: Path, task: str = "regression", frame: pd.DataFrame | None = None, **job: Any) -> Path:
    """A config folder whose table and state all lie below `folder`; `job` overrides what the jobs share."""
    confs = folder / "confs"
    confs.mkdir(parents=True, exist_ok=True)
    path = folder / "orders.parquet"
    (table(task) if frame is None else frame).to_parquet(path, index=False)
    shared = {
        "name": "orders",
        "schema": str(confs / "schema.yaml"),
        "table": {"KIND": "ParquetReader", "path": str(path)},
        "metrics": METRICS[task],
        "build": str(folder / "build"),
        "audit": str(folder / "audit"),
        # Absolute: MLflow keeps a store open for each address, whatever the working directory is then.
        "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "mlartifacts")},
    }
    write(confs / "schema.yaml", schema(task))
    write(confs / "project.yaml", {"job": shared | job})
    steps = {
        "preparation": {"KIND": "PreparationJob"},
        "tuning": {
            "KIND": "TuningJob",
            "model": {"KIND": "BoostedTrees", "max_iter": 2},
            "searcher": {"KIND": "GridSearcher", "folds": 2, "space": {"max_iter": [10, 30]}},
        },
        "training": {"KIND": "TrainingJob", "model": {"KIND": "BoostedTrees", "max_iter": 30}},
        "evaluations": {"KIND": "EvaluationsJob", "slices": ["region"], "min_slice_rows": 10},
        "explanations": {"KIND": "ExplanationsJob", "rows": 30},
        "promotion": {"KIND": "PromotionJob"},
        "reports": {"KIND": "ReportJob"},
        "inference": {"KIND": "InferenceJob"},
    }
    for name, step in steps.items():
        write(confs / f"{name}.yaml", {"job": step})
    return confs


def write(path: Path, document: dict[str, Any]) -> None:
    """Write YAML."""
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
