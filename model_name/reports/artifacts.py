"""Artifacts of a version: everything that the jobs stored in its MLflow run and its bundle.

A version of an older release lacks artifacts that newer jobs write, and not every job has run for every version.
Missing artifacts are None or empty, and the reports omit them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import mlflow
import pandas as pd
from mlflow.entities import Run

from model_name.errors import NotFoundError
from model_name.io.registries import Registry, Version
from model_name.results import (
    CONTRIBUTIONS_FILE,
    EVALUATION_FILE,
    EXPLANATION_FILE,
    FEATURE_VALUES_FILE,
    GATE_FILE,
    EvaluationResult,
    ExplanationResult,
    PromotionResult,
    Result,
)
from model_name.serving.bundle import Manifest, read_manifest

TESTING = "testing"  # context tag of the held-out rows among the inputs of a run

T = TypeVar("T")
AnyResult = TypeVar("AnyResult", bound=Result)


@dataclass(frozen=True)
class VersionArtifacts:
    """Artifacts of a version.

    Attributes:
        version: Identifiers of the version.
        run: MLflow run of the training.
        manifest: Manifest of the bundle.
        bundle_bytes: Size of the bundle's files.
        evaluation: Result of the evaluation.
        explanation: Result of the explanation.
        contributions: Contributions of single rows, one column per feature.
        values: Feature values of the same rows, one column per feature; without those of sensitive columns.
        gate: Decision of the gate.
        tags: Tags of the version in the registry.
    """

    version: Version
    run: Run
    manifest: Manifest
    bundle_bytes: int
    evaluation: EvaluationResult | None
    explanation: ExplanationResult | None
    contributions: pd.DataFrame | None
    values: pd.DataFrame | None
    gate: PromotionResult | None
    tags: dict[str, str]

    @property
    def held_out_digest(self) -> str:
        """Digest of the rows that the training held out; empty if none was recorded."""
        for dataset_input in self.run.inputs.dataset_inputs if self.run.inputs else ():
            if any(tag.value == TESTING for tag in dataset_input.tags):
                return str(dataset_input.dataset.digest)
        return ""


def load_version_artifacts(registry: Registry, version: Version, bundle: Path | None = None) -> VersionArtifacts:
    """Load the artifacts of a version.

    Args:
        registry: Registry of the model.
        version: Version of the model.
        bundle: Folder of the version's bundle; None to download it from the registry.

    Raises:
        NotFoundError: The bundle is neither given nor in the registry.
    """
    folder = bundle or registry.download_bundle(version.version)
    return VersionArtifacts(
        version=version,
        run=mlflow.get_run(version.run_id),
        manifest=read_manifest(folder),
        bundle_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        evaluation=load_result(registry, version, EVALUATION_FILE, EvaluationResult),
        explanation=load_explanation(registry, version),
        contributions=load_artifact(registry, version, CONTRIBUTIONS_FILE, pd.read_parquet),
        values=load_artifact(registry, version, FEATURE_VALUES_FILE, pd.read_parquet),
        gate=load_result(registry, version, GATE_FILE, PromotionResult),
        tags=registry.get_tags(version),
    )


def load_explanation(registry: Registry, version: Version) -> ExplanationResult | None:
    """Load the explanation of a version, or return None if it was not explained."""
    return load_result(registry, version, EXPLANATION_FILE, ExplanationResult)


def load_result(registry: Registry, version: Version, path: str, kind: type[AnyResult]) -> AnyResult | None:
    """Load a result from the run of a version, or return None if the run has no such file."""
    return load_artifact(registry, version, path, lambda file: kind.model_validate_json(file.read_text("utf-8")))


def load_artifact(registry: Registry, version: Version, path: str, parse: Callable[[Path], T]) -> T | None:
    """Load a file from the run of a version, or return None if the run has no such file."""
    try:
        return parse(registry.download_artifact(version, path))
    except NotFoundError:
        return None
