"""Bundles of small models, one per task, exported without MLflow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from model_name.core import dataframes
from model_name.core.models import Model
from model_name.training.export import export_bundle, set_version


@pytest.fixture(scope="session")
def bundle_of(
    tmp_path_factory: pytest.TempPathFactory, fitted: Callable[[str, str], Model], make_schema: Any, make_table: Any
) -> Callable[[str], Path]:
    """Return `bundle_of(task)`: the folder of a bundle of few boosted trees, exported once per session."""
    exported: dict[str, Path] = {}

    def bundle(task: str) -> Path:
        if task not in exported:
            folder = tmp_path_factory.mktemp(f"bundle-{task}")
            table = dataframes.check_frame(make_table(task), make_schema(task)).frame
            exported[task] = export_versioned_bundle(fitted("BoostedTrees", task), folder, table)
        return exported[task]

    return bundle


def export_versioned_bundle(model: Model, folder: Path, table: pd.DataFrame) -> Path:
    """Export the bundle of a model and give it a version."""
    train, test = table[:-60], table[-60:]
    bundle = export_bundle(model, folder, train, test, name="things", run_id="0" * 32, metrics={})
    set_version(bundle, semver="1.2.0", version="3")
    return folder
