"""Small projects for tests of jobs: the orders with their schema and config folder."""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tests.support.tables import order_schema, order_table

METRICS: dict[str, list[dict[str, Any]]] = {
    "regression": [{"name": "rmse", "threshold": 4.0}, {"name": "r2", "threshold": 0.5}],
    "binary": [{"name": "roc_auc", "threshold": 0.6}, {"name": "log_loss"}],
    "multiclass": [{"name": "log_loss"}, {"name": "accuracy", "threshold": 0.4}],
}


def make_project(folder: Path, task: str = "regression", frame: pd.DataFrame | None = None, **job: Any) -> Path:
    """Write a config folder whose table and state lie below `folder`; `job` overrides the shared keys of the jobs."""
    confs = folder / "confs"
    confs.mkdir(parents=True, exist_ok=True)
    path = folder / "orders.parquet"
    (order_table(task) if frame is None else frame).to_parquet(path, index=False)
    shared = {
        "name": "orders",
        "schema": str(confs / "schema.yaml"),
        "table": {"KIND": "ParquetReader", "path": str(path)},
        "metrics": METRICS[task],
        "build": str(folder / "build"),
        "audit": str(folder / "audit"),
        # Absolute, because MLflow caches a store by its URI even if the working directory changes.
        "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db", "artifacts": str(folder / "mlartifacts")},
    }
    write_yaml(confs / "schema.yaml", order_schema(task))
    write_yaml(confs / "project.yaml", {"job": shared | job})
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
        write_yaml(confs / f"{name}.yaml", {"job": step})
    return confs


def write_yaml(path: Path, document: dict[str, Any]) -> None:
    """Write a document as a YAML file."""
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
