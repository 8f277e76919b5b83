"""Register a fitted model as a version, together with its bundle."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import pandas as pd
from loguru import logger

from model_name.core.models import Model
from model_name.io.registries import BUNDLE, Registry, Version
from model_name.serving.bundle import MANIFEST_FILE, Bundle, read_bundle, read_manifest, write_manifest
from model_name.serving.bundle_signature import SIGNATURE_FILE, write_signature
from model_name.training.compression import CompressionConfig
from model_name.training.export import set_version
from model_name.utils.signers import Signer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

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
    signing_key: "Ed25519PrivateKey | None" = None,
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
        signing_key: Key that signs the manifests of the bundle and of the model; None to leave them unsigned.

    Returns:
        The version, and the local directory of its bundle.
    """
    sample = test.head(SAMPLE_ROWS)
    signature = signer.sign(model.schema_, sample, model.predict(sample))
    uri = registry.save(model, signature, sample[list(model.schema_.inputs)])
    run_id = bundle.manifest.run_id
    version = registry.register(model, uri, run_id, tags={"table": table}, export=compression.recipe)
    try:
        directory = store_bundle(bundle, version, bundles, signing_key)
        attach_manifest(registry, uri, directory, signing_key)
        return version, directory
    except BaseException:
        registry.delete_version(version)
        raise


def store_bundle(
    bundle: Bundle, version: Version, bundles: Path, signing_key: "Ed25519PrivateKey | None" = None
) -> Path:
    """Write the version into a bundle, sign it, log the bundle to the run, and copy it below `bundles`."""
    set_version(bundle, semver=version.semver, version=version.version)
    if signing_key is not None:
        write_signature(bundle.directory, read_bundle(bundle.directory).text, signing_key)
    mlflow.log_artifacts(str(bundle.directory), BUNDLE)
    directory = bundles / version.version
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(bundle.directory, directory)
    logger.info("registered {}", version.title)
    return directory


def attach_manifest(registry: Registry, uri: str, bundle: Path, signing_key: "Ed25519PrivateKey | None" = None) -> None:
    """Store the manifest of a bundle beside the saved model, with the hashes of the files of the model.

    Args:
        registry: Versions of the model.
        uri: MLflow URI of the saved model.
        bundle: Directory of the bundle.
        signing_key: Key that signs the manifest; None to leave it unsigned.
    """
    with TemporaryDirectory(prefix="model-name-") as folder:
        path = Path(folder, MANIFEST_FILE)
        write_manifest(path.parent, read_manifest(bundle).model_copy(update={"files": registry.hash_files(uri)}))
        registry.attach_file(uri, path)
        if signing_key is not None:
            write_signature(path.parent, path.read_bytes(), signing_key)
            registry.attach_file(uri, path.with_name(SIGNATURE_FILE))
