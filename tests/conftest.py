"""What the tests share: small tables of every task, fitted models, a clean place to work and a real MLflow."""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from loguru import logger

from model_name.core import dataframes
from model_name.core.models import Model, model_kinds
from model_name.core.schemas import TableSchema
from model_name.io.osvariables import Env, env
from model_name.io.services import MlflowService
from tests.support.kafka_cluster import broker, brokers3, secured_broker  # noqa: F401

# A shared machine is slow at times; that says nothing about the code.
settings.register_profile("shared", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

TASKS = ("regression", "binary", "multiclass")
CLASSES: dict[str, Any] = {"regression": None, "binary": [False, True], "multiclass": ["low", "mid", "high"]}
COLUMNS: dict[str, Any] = {
    "size": {"kind": "numeric"},
    "gap": {"kind": "numeric", "nullable": True, "min": -10, "max": 10, "out_of_bounds": "clip"},
    "group": {"kind": "category"},
    "mark": {"kind": "category", "nullable": True, "values": ["p", "q", "r"]},
    "flag": {"kind": "boolean"},
    "maybe": {"kind": "boolean", "nullable": True},
    "moment": {"kind": "datetime"},
    "code": {"kind": "text-id"},
}
SPEED: dict[str, dict[str, Any]] = {
    "BoostedTrees": {"max_iter": 8, "min_samples_leaf": 5},
    "RandomForest": {"n_estimators": 8, "max_depth": 5, "n_jobs": 1},
    "ConstantModel": {},
    "LinearModel": {"pieces": 4},
    "AutoModel": {
        "members": [
            {"KIND": "BoostedTrees", "max_iter": 8, "min_samples_leaf": 5},
            {"KIND": "LinearModel"},
            {"KIND": "RandomForest", "n_estimators": 5, "max_depth": 4, "n_jobs": 1, "randomized": True},
        ],
        "weights": [0.5, 0.25, 0.25],
    },
}


def schema_of(task: str, **changes: Any) -> TableSchema:
    """A schema with a column of every kind."""
    target = {"name": "outcome", "task": task} | ({"classes": CLASSES[task]} if CLASSES[task] else {})
    raw = {"name": "things", "target": target, "columns": COLUMNS, "time": "moment", "key": ["code"]}
    return TableSchema.model_validate(raw | changes)


def table_of(task: str, rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """Raw rows that fit it, as a Parquet file would bring them: ints, bools, None and NaN."""
    random = np.random.default_rng(seed)
    size = random.integers(0, 50, rows)
    group = random.choice(["a", "b", "c"], rows)
    flag = random.random(rows) < 0.5
    signal = size / 10 + 2 * (group == "b") + 1.5 * flag + random.normal(0, 0.3, rows)
    outcomes: dict[str, Any] = {
        "regression": signal,
        "binary": signal > np.median(signal),
        "multiclass": np.array(CLASSES["multiclass"])[np.digitize(signal, np.quantile(signal, [0.33, 0.66]))],
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


@cache
def _fitted(kind: str, task: str) -> Model:
    table = dataframes.check_frame(table_of(task), schema_of(task)).frame
    return model_kinds()[kind](**SPEED.get(kind, {})).fit(schema_of(task), table)


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    """Each task in turn."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_schema() -> Callable[..., TableSchema]:
    """`make_schema(task, **changes)`: a schema with a column of every kind."""
    return schema_of


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pd.DataFrame]:
    """`make_table(task, rows=240, seed=0)`: raw rows that fit it."""
    return table_of


@pytest.fixture(scope="session")
def fitted() -> Callable[[str, str], Model]:
    """`fitted(kind, task)`: a model that was fitted once in the session; not to be changed."""
    return _fitted


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory, and an environment that says nothing to this project."""
    names = [name for name in os.environ if name.upper().startswith(("MODEL_NAME", "MLFLOW_"))]
    for name in {*names, *(field.upper() for field in Env.model_fields)}:
        monkeypatch.setenv(name, "")  # so that what the test sets is undone as well
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    env.cache_clear()
    yield tmp_path
    env.cache_clear()


@pytest.fixture(scope="session")
def serving_env(pytestconfig: pytest.Config) -> dict[str, str]:
    """The environment of a server: its bytecode is kept, because to compile KServe takes longer than to start it."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cache = getattr(pytestconfig, "cache", None)
    return env | ({"PYTHONPYCACHEPREFIX": str(cache.mkdir("bytecode"))} if cache else {})


@pytest.fixture
def logs() -> Iterator[list[str]]:
    """What is logged during the test, a line each."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that MLflow has made its tables in, which takes it seconds; copied for each test."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    service = MlflowService(tracking_uri=f"sqlite:///{file}")
    service.start()
    mlflow.search_experiments()
    service.stop()
    return file


@pytest.fixture
def mlflow_service(workplace: Path, empty_store: Path) -> Iterator[MlflowService]:
    """A started MLflow with an empty store of its own in the working directory."""
    shutil.copy(empty_store, workplace / "mlflow.db")
    service = MlflowService(tracking_uri=f"sqlite:///{workplace}/mlflow.db", artifacts=str(workplace / "mlartifacts"))
    service.start()
    yield service
    service.stop()
