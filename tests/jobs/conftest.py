"""Inference jobs over bundles of each task, without MLflow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model_name.jobs.inference import InferenceJob
from tests.support.bundles import bundle_of

__all__ = ["bundle_of"]


@pytest.fixture
def make_job(workplace: Path, bundle_of: Callable[[str], Path], make_schema: Any) -> Callable[..., InferenceJob]:
    """Return `make_job(frame, task="regression", **changes)`: a job on a frame, or on the last one, in small parts."""

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
