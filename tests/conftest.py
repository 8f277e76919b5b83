"""Fixtures of all tests: fitted models, an empty working directory, a real MLflow; markers and order of the tests."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
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
from tests.support.tables import TASKS, thing_schema, thing_table
from tests.support.tiers import mark_and_sort

# No deadlines: a slow machine must not fail a test.
settings.register_profile("shared", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

FAST_PARAMETERS: dict[str, dict[str, Any]] = {
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests by folder and run the longest files first."""
    mark_and_sort(items)


@cache
def _fitted(kind: str, task: str) -> Model:
    table = dataframes.check_frame(thing_table(task), thing_schema(task)).frame
    return model_kinds()[kind](**FAST_PARAMETERS.get(kind, {})).fit(thing_schema(task), table)


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    """Run a test once per task."""
    return str(request.param)


@pytest.fixture(scope="session")
def make_schema() -> Callable[..., TableSchema]:
    """Return `make_schema(task, **changes)`: builds the schema of the things."""
    return thing_schema


@pytest.fixture(scope="session")
def make_table() -> Callable[..., pd.DataFrame]:
    """Return `make_table(task, rows=240, seed=0)`: generates raw things."""
    return thing_table


@pytest.fixture(scope="session")
def fitted() -> Callable[[str, str], Model]:
    """Return `fitted(kind, task)`: a model on the things, fitted once in the session; do not modify it."""
    return _fitted


@pytest.fixture(autouse=True)
def restore_signal_handlers() -> Iterator[None]:
    """Restore the signal handlers that the command line and `run_component` replace."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to an empty working directory and unset the environment variables that the project reads."""
    names = [name for name in os.environ if name.upper().startswith(("MODEL_NAME", "MLFLOW_"))]
    for name in {*names, *(field.upper() for field in Env.model_fields)}:
        monkeypatch.setenv(name, "")  # so that values set by the test are removed as well
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    env.cache_clear()
    yield tmp_path
    env.cache_clear()


@pytest.fixture(scope="session")
def serving_env(pytestconfig: pytest.Config) -> dict[str, str]:
    """Return the environment of a server process, with a bytecode cache: compiling takes longer than starting."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    cache = getattr(pytestconfig, "cache", None)
    return env | ({"PYTHONPYCACHEPREFIX": str(cache.mkdir("bytecode"))} if cache else {})


@pytest.fixture
def logs() -> Iterator[list[str]]:
    """Collect the log lines of a test."""
    lines: list[str] = []
    sink = logger.add(lines.append, format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create an empty MLflow database, which takes seconds; each test copies it."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    service = MlflowService(tracking_uri=f"sqlite:///{file}")
    service.start()
    mlflow.search_experiments()
    service.stop()
    return file


@pytest.fixture
def mlflow_service(workplace: Path, empty_store: Path) -> Iterator[MlflowService]:
    """Start MLflow with an empty store in the working directory."""
    shutil.copy(empty_store, workplace / "mlflow.db")
    service = MlflowService(tracking_uri=f"sqlite:///{workplace}/mlflow.db", artifacts=str(workplace / "mlartifacts"))
    service.start()
    yield service
    service.stop()
