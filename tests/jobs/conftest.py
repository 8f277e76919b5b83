"""A bundle of each task, and jobs that predict with it: no MLflow is needed for that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model_name.core import frames
from model_name.core.models import Model
from model_name.jobs.exports import export_bundle, stamp
from model_name.jobs.inference import InferenceJob


@pytest.fixture(scope="session")
def bundle_of(
    tmp_path_factory: pytest.TempPathFactory, fitted: Callable[[str, str], Model], make_schema: Any, make_table: Any
) -> Callable[[str], Path]:
    """`bundle_of(task)`: the folder of a bundle of few boosted trees; made once in the session."""
    made: dict[str, Path] = {}

    def bundle(task: str) -> Path:
        if task not in made:
            folder = tmp_path_factory.mktemp(f"bundle-{task}")
            table = frames.check(make_table(task), make_schema(task)).frame
            made[task] = export(fitted("BoostedTrees", task), folder, table)
        return made[task]

    return bundle


def export(model: Model, folder: Path, table: pd.DataFrame) -> Path:
    """The bundle of a model, with a version."""
    train, test = table[:-60], table[-60:]
    bundle = export_bundle(model, folder, train, test, name="things", run_id="0" * 32, metrics={})
    stamp(bundle, semver="1.2.0", version="3")
    return folder


@pytest.fixture
def make_job(workplace: Path, bundle_of: Callable[[str], Path], make_schema: Any) -> Callable[..., InferenceJob]:
    """`make_job(frame, task="regression", **changes)`: a job over a frame, or the last one, in small parts."""

    def make(frame: pd.DataFrame | None = None, task: str = "regression", **changes: Any) -> InferenceJob:
        if frame is not None:
            frame.to_parquet(workplace / "table.parquet", row_group_size=70)
        raw = {
            "name": "things",
            "schema": make_schema(task),
            "table": {"KIND": "ParquetReader", "path": str(workplace / "table.parquet")},
            "bundle": str(bundle_of(task)),
            "outputs": str(workplace / "out"),
            "batch_rows": 30,
            "part_rows": 100,
            "threads": 2,
        }
        return InferenceJob.model_validate(raw | changes)

    return make
