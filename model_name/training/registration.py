"""Register a fitted model as a version, together with its bundle."""

import shutil
from pathlib import Path

import mlflow
import pandas as pd
from loguru import logger

from model_name.core.models import Model
from model_name.io.registries import BUNDLE, Registry, Version
from model_name.serving.bundle import MANIFEST_FILE, Bundle
from model_name.training.compression import CompressionConfig
from model_name.training.export import set_version
from model_name.utils.signers import Signer

SAMPLE_ROWS = 5  # of the signature and the input example


def register_version(
    registry: Registry,
    model: Model,
    bundle: Bundle,
    test: pd.DataFrame,
    *,
    signer: Signer,
    compression: CompressionConfig,
    table: str,
    bundles: Path,
) -> tuple[Version, Path]:
    """Register a model and store its bundle; delete the version again if its files cannot be stored.

    Args:
        registry: Versions of the model.
        model: Fitted model.
        bundle: Exported bundle; its manifest is given the version.
        test: Held-out rows, for the signature and the input example.
        signer: Source of the signature.
        compression: Compression of the bundle, a part of the recipe.
        table: Path of the table, a tag of the version.
        bundles: Local directory in which the bundle is kept under its version.

    Returns:
        The version, and the local directory of its bundle.
    """
    sample = test.head(SAMPLE_ROWS)
    signature = signer.sign(model.schema_, sample, model.predict(sample))
    uri = registry.save(model, signature, sample[list(model.schema_.inputs)])
    run_id = bundle.manifest.run_id
    version = registry.register(model, uri, run_id, tags={"table": table}, export=compression.recipe)
    try:
        directory = store_bundle(bundle, version, bundles)
        registry.attach_manifest(uri, directory / MANIFEST_FILE)
        return version, directory
    except BaseException:
        registry.delete_version(version)
        raise


def store_bundle(bundle: Bundle, version: Version, bundles: Path) -> Path:
    """Write the version into a bundle, log the bundle to the run, and copy it below `bundles`."""
    set_version(bundle, semver=version.semver, version=version.version)
    mlflow.log_artifacts(str(bundle.directory), BUNDLE)
    directory = bundles / version.version
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(bundle.directory, directory)
    logger.info("registered {}", version.title)
    return directory
