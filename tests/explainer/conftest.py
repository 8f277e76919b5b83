"""Fixtures: models of every kind, saved as the registry saves them, and explainer processes that serve them."""

import inspect
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import Model as MlflowModel

from model_name.core import dataframes
from model_name.core.decisions.decision import Decision, PredictionIntervals
from model_name.core.models import Model
from model_name.io.registries import PyfuncModel
from model_name.serving.bundle import Manifest, write_manifest
from model_name.training.export import example_row
from tests.support.graphs import hash_file
from tests.support.server_processes import Server, launch_server, pytest_runtest_makereport, stop_servers  # noqa: F401

SERVED = {
    "BoostedTrees": "regression",
    "RandomForest": "binary",
    "LinearModel": "multiclass",
    "TabularNetwork": "multiclass",
    "AutoModel": "binary",
}
INTERVALS = PredictionIntervals(levels=(0.8, 0.9), edges=(3.0,), halves=((1.0, 2.0), (1.5, 3.0)), rows=300)

SaveModel = Callable[..., Path]
StartExplainer = Callable[..., Server]


@pytest.fixture(scope="session")
def make_manifest(make_schema: Any, make_table: Any) -> Callable[..., Manifest]:
    """Return `make_manifest(model, **changes)`, which builds the manifest that the registry saves beside a model."""

    def make(model: Model, **changes: Any) -> Manifest:
        schema = model.schema_
        table = dataframes.check_frame(make_table(schema.target.task), make_schema(schema.target.task)).frame
        raw = Manifest(
            name="things",
            semver="1.2.3",
            version="7",
            run_id="f" * 32,
            kind=model.KIND,
            table=schema,
            features=model.features,
            decision=Decision(intervals=INTERVALS) if not model.classes else model.decision,
            profile={},
            metrics={},
            example=example_row(schema, table),
            files={},
            created="2026-01-01T00:00:00+00:00",
        )
        return raw.model_copy(update=changes)

    return make


@pytest.fixture(scope="session")
def save_model(make_manifest: Callable[..., Manifest]) -> SaveModel:
    """Return `save_model(model, folder, **manifest)`, which writes the directory of a registered model.

    With `vouched=True` the manifest lists the files of the model, as that of a registered model does; without it is as
    earlier releases wrote it.
    """

    def save(model: Model, folder: Path, *, vouched: bool = False, **changes: Any) -> Path:
        manifest = make_manifest(model, **changes)
        shutil.rmtree(folder, ignore_errors=True)
        module = type(model).__module__
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=PyfuncModel(model),
            code_paths=None if module.startswith("model_name.") else [inspect.getfile(type(model))],
            mlflow_model=MlflowModel(run_id=manifest.run_id),
            pip_requirements=[],
        )
        if vouched:
            files = [path for path in folder.rglob("*") if path.is_file()]
            hashes = {path.relative_to(folder).as_posix(): hash_file(path) for path in files}
            manifest = manifest.model_copy(update={"files": hashes})
        write_manifest(folder, manifest)
        return folder

    return save


@pytest.fixture(scope="session")
def start_explainer(serving_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartExplainer]:
    """Return a function that starts `python -m model_name.explainer` outside the sources; stop all at the end."""
    package = str(Path(__file__).parents[2])
    outside = tmp_path_factory.mktemp("outside")

    def start(folder: Path, *args: str, **env: str) -> Server:
        log = tmp_path_factory.mktemp("explainer") / "log"
        environment = serving_env | {"PYTHONPATH": package} | env
        args = ("--model", str(folder), "--drain_seconds", "0.2", *args)
        return launch_server("model_name.explainer", *args, name="things", log=log, env=environment, cwd=outside)

    yield start
    stop_servers()


@pytest.fixture(scope="session")
def explainer_of(
    fitted: Callable[[str, str], Model],
    save_model: SaveModel,
    start_explainer: StartExplainer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Server]:
    """Return `explainer_of(kind)`, which returns a ready explainer, started once per session."""
    started: dict[str, Server] = {}

    def explainer(kind: str) -> Server:
        if kind not in started:
            folder = save_model(fitted(kind, SERVED[kind]), tmp_path_factory.mktemp(kind) / "model")
            started[kind] = start_explainer(folder)
        return started[kind].wait()

    return explainer


@pytest.fixture(scope="session")
def rows(make_table: Any) -> list[dict[str, Any]]:
    """Return rows as clients send them."""
    table = make_table("regression", rows=12, seed=5).drop(columns=["outcome", "code"])
    table["moment"] = table["moment"].map(lambda moment: moment.isoformat())
    return [
        {name: None if pd.isna(value) else value for name, value in row.items()}
        for row in table.astype(object).to_dict("records")
    ]
