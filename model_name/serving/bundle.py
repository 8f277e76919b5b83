"""Bundle: the directory that is served, with the ONNX graph of a model and its manifest."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from pydantic import AfterValidator, ValidationError
from pydantic_core import from_json

from model_name.core.decisions.decision import Decision
from model_name.core.features import Features, Matrix
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.errors import DataError, ModelNameError, NotFoundError, StorageError
from model_name.serving.bundle_signature import SIGNATURE_FILE, SignatureVerifier
from model_name.serving.identifiers import Identifier, ModelName
from model_name.serving.runtime.contained_files import is_contained_name, read_contained_file
from model_name.serving.runtime.file_signature import read_unchanged

GRAPH_FILE = "model.onnx"
MANIFEST_FILE = "bundle.json"
BUNDLE_FILES = (MANIFEST_FILE, SIGNATURE_FILE, GRAPH_FILE)
GRAPH_INPUT = "features"
GRAPH_OUTPUT = "scores"
FORMAT_VERSION = 1
MAX_MANIFEST_BYTES = 64 * 2**20
MAX_BUNDLE_BYTES = 2 * 2**30  # of all files that a manifest lists; also the maximum of a graph in protobuf
EXECUTION_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

LOAD_ERRORS = (  # ONNX Runtime's exceptions have no common base class
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
)
EXTERNAL_DATA_FOLDER = "session.model_external_initializers_file_folder_path"
"""Option of ONNX Runtime: folder of the external data of a graph that is loaded from memory."""
NO_FOLDER = os.devnull
"""Path below which no file can exist."""
EXTERNAL_DATA_ERRORS = (NO_FOLDER, "External file", "External data")
"""Texts in the errors of ONNX Runtime about external data that it was not given."""


def check_file_names(files: dict[str, str]) -> dict[str, str]:
    """Check that all files that a manifest lists lie in the folder of the bundle.

    Raises:
        ValueError: A name leaves the folder, or is not in its normal form.
    """
    for name in files:
        if not is_contained_name(name):
            raise ValueError(f"{name[:100]!r} is not the name of a file in the folder of the bundle")
    return files


class ColumnProfile(FrozenModel):
    """Distribution of one column in the training part, the reference of drift detection.

    Attributes:
        missing: Share of missing values.
        quantiles: The 0, 5, ..., 100 % quantiles of a numeric column.
        shares: Share of each category, or of true.
    """

    missing: float
    quantiles: LaxTuple[float] = ()
    shares: dict[str, float] = {}


class CompressionReport(FrozenModel):
    """Report of one compression of a graph, with its cost on the held-out rows.

    Attributes:
        how: Description of the compression.
        bytes_before: Size of the graph before.
        bytes_after: Size of the graph after.
        metrics_before: Metrics of the graph before.
        metrics_after: Metrics of the graph after.
    """

    how: str
    bytes_before: int
    bytes_after: int
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]


class Manifest(FrozenModel):
    """Manifest of a bundle: all that serving needs beside the graph.

    Attributes:
        format: Format version of the manifest.
        name: Name of the model.
        semver: Semantic version of the model.
        version: Version number in MLflow.
        run_id: MLflow run that trained the model.
        kind: `KIND` of the model.
        table: Table schema, target included.
        features: Fitted features.
        decision: Rule that turns scores into predictions; bundles written before it existed use the scores unchanged.
        profile: Profile of the training part, by column.
        metrics: Metrics of the version on the held-out rows.
        example: Row that a client may send.
        shrunk: Reports of the compressions that were applied.
        files: SHA-256 hashes of the other files, by name.
        created: Time of creation, ISO 8601 in UTC.
    """

    format: int = FORMAT_VERSION
    name: ModelName
    semver: Identifier
    version: Identifier
    run_id: Identifier
    kind: str
    table: TableSchema
    features: Features
    decision: Decision = Decision()
    profile: dict[str, ColumnProfile]
    metrics: dict[str, float]
    example: dict[str, Any]
    shrunk: LaxTuple[CompressionReport] = ()
    files: Annotated[dict[str, str], AfterValidator(check_file_names)]
    created: str


@dataclass(frozen=True)
class BundleContents:
    """Contents of a bundle, each file read once and equal to its hash in the manifest.

    Attributes:
        text: Bytes of the manifest.
        manifest: Manifest.
        files: Bytes of the files that the manifest lists, by name.
    """

    text: bytes = field(repr=False)
    manifest: Manifest
    files: Mapping[str, bytes] = field(repr=False)


class Bundle:
    """A loaded bundle whose hashes were verified."""

    def __init__(
        self, directory: Path, manifest: Manifest, session: ort.InferenceSession, *, manifest_hash: str = ""
    ) -> None:
        """Create a bundle from its parts; use `load` for a directory."""
        self.directory = directory
        self.manifest = manifest
        self.session = session
        self.manifest_hash = manifest_hash

    @classmethod
    def load(cls, directory: Path, *, threads: int = 0, verifier: SignatureVerifier | None = None) -> Self:
        """Load a bundle and verify its hashes. What is loaded are the bytes that were hashed.

        Args:
            directory: Directory of the bundle.
            threads: Number of threads of one forward pass; 0 selects ONNX Runtime's default.
            verifier: Verifier of the signature; None if the bundle need not be signed.

        Raises:
            NotFoundError: A file of the bundle is missing.
            DataError: The directory is not a bundle, a file was changed after it was written, or the signature is
                missing or of another key.
            StorageError: A file of the bundle cannot be read.
            ConfigError: The file of the public keys is invalid.
        """
        contents = read_bundle(directory, verifier)
        session = create_session(contents.files, directory / GRAPH_FILE, threads=threads)
        return cls(directory, contents.manifest, session, manifest_hash=sha256(contents.text).hexdigest())

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """Run the graph: n x 1 predictions of a regression, n x k probabilities otherwise."""
        return np.asarray(self.session.run([GRAPH_OUTPUT], {GRAPH_INPUT: matrix})[0])


def execution_providers() -> list[str]:
    """List the ONNX Runtime providers to use: CUDA if available, and the CPU; no other that happens to be installed."""
    return [name for name in EXECUTION_PROVIDERS if name in ort.get_available_providers()]


def create_session(files: Mapping[str, bytes], path: Path, *, threads: int) -> ort.InferenceSession:
    """Create the session of a graph from its bytes.

    Args:
        files: Bytes of the graph and of its external data, by name. No other file is read.
        path: Path of the graph, for error messages.
        threads: Number of threads of one forward pass; 0 selects ONNX Runtime's default.

    Raises:
        DataError: The graph cannot be read, or refers to external data that is not among the files.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Idle threads must not spin: the processors are shared with the event loop, and with other pods.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry(EXTERNAL_DATA_FOLDER, NO_FOLDER)  # the working directory by default
    external = {name: content for name, content in files.items() if name != GRAPH_FILE}
    if external and not hasattr(options, "add_external_initializers_from_files_in_memory"):
        reason = f"has external data, which ONNX Runtime {ort.__version__} cannot take from memory"
        raise DataError(f"{path}: {reason}", hint="serve with a newer ONNX Runtime, or export the graph as one file")
    try:
        if external:
            sizes = [*map(len, external.values())]
            options.add_external_initializers_from_files_in_memory([*external], [*external.values()], sizes)
        session = ort.InferenceSession(files[GRAPH_FILE], options, providers=execution_providers())
    except LOAD_ERRORS as err:  # usually a graph of a newer ONNX Runtime
        if any(text in str(err) for text in EXTERNAL_DATA_ERRORS):
            reason = f"refers to external data that {MANIFEST_FILE} does not vouch for"
            raise DataError(f"{path}: {reason}: {err}", hint="export the graph as one file") from err
        hint = f"serve with the ONNX Runtime that it was exported for; this one is {ort.__version__}"
        raise DataError(f"{path}: cannot be read: {err}", hint=hint) from err
    session._model_bytes = None  # noqa: SLF001  kept for a change of the providers, which does not happen
    return session


def read_bundle(
    directory: Path, verifier: SignatureVerifier | None = None, *, required: str | None = GRAPH_FILE
) -> BundleContents:
    """Read the manifest and the files that it lists, each once, and verify their hashes.

    Args:
        directory: Directory of the bundle.
        verifier: Verifier of the signature; None if the bundle need not be signed.
        required: Name of a file that the manifest has to list; None for any files.

    Raises:
        NotFoundError: A file of the bundle is missing.
        DataError: The directory is not a bundle, a file was changed after it was written, or the files are being
            changed.
        StorageError: A file of the bundle cannot be read.
    """
    return read_unchanged(directory, lambda: list_files(directory), lambda: _read_bundle(directory, verifier, required))


def _read_bundle(directory: Path, verifier: SignatureVerifier | None, required: str | None) -> BundleContents:
    text = _read_manifest_bytes(directory, verifier)
    manifest = parse_manifest(text, directory / MANIFEST_FILE)
    if required not in {None, *manifest.files}:
        raise DataError(f"{directory / MANIFEST_FILE}: does not vouch for {required}", hint="export the bundle again")
    return BundleContents(text, manifest, read_listed_files(directory, manifest))


def read_listed_files(directory: Path, manifest: Manifest) -> dict[str, bytes]:
    """Read the files that a manifest lists, each once, and verify their hashes.

    Raises:
        NotFoundError: A file is missing.
        DataError: A file was changed after it was written, lies elsewhere, is not regular or too large.
        StorageError: A file cannot be read.
    """
    files: dict[str, bytes] = {}
    max_bytes = MAX_BUNDLE_BYTES
    for name, expected in manifest.files.items():
        files[name] = read_contained_file(directory, name, max_bytes=max_bytes)
        max_bytes -= len(files[name])
        if sha256(files[name]).hexdigest() != expected:
            raise DataError(
                f"{directory / name}: is not the file that the bundle was written with", hint="fetch it again"
            )
    return files


def list_files(directory: Path) -> Sequence[str]:
    """List the files of a bundle whose change makes it another one. Those of a broken manifest are left out."""
    try:
        raw = from_json(_read_manifest_bytes(directory))
        names = raw["files"].keys()
    except (ModelNameError, ValueError, KeyError, TypeError, AttributeError):
        names = ()
    return [*dict.fromkeys((*BUNDLE_FILES, *filter(is_contained_name, names)))]


def read_manifest(directory: Path, verifier: SignatureVerifier | None = None) -> Manifest:
    """Load the manifest of a bundle.

    Args:
        directory: Directory of the bundle.
        verifier: Verifier of the signature; None if the manifest need not be signed.

    Raises:
        NotFoundError: The directory holds no manifest.
        DataError: The file is not a manifest of this format, or the signature is missing or of another key.
        StorageError: The manifest cannot be read.
        ConfigError: The file of the public keys is invalid.
    """
    return parse_manifest(_read_manifest_bytes(directory, verifier), directory / MANIFEST_FILE)


def _read_manifest_bytes(directory: Path, verifier: SignatureVerifier | None = None) -> bytes:
    try:
        text = read_contained_file(directory, MANIFEST_FILE, max_bytes=MAX_MANIFEST_BYTES)
    except NotFoundError as err:
        hint = "name the folder that holds it"
        raise NotFoundError(f"{directory}: is not a bundle, {MANIFEST_FILE} is missing", hint=hint) from err
    if verifier is not None:
        verifier.verify(directory, text)
    return text


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """Parse the manifest of a bundle.

    Args:
        text: Bytes of the file.
        path: Path of the file, for error messages.

    Raises:
        DataError: The text is not a manifest of this format.
    """
    try:
        raw = from_json(text)
    except ValueError as err:
        raise DataError(f"{path}: is not JSON: {err}") from err
    if isinstance(raw, dict) and raw.get("format") != FORMAT_VERSION:
        raise DataError(f"{path}: has format {raw.get('format')}, this version reads {FORMAT_VERSION}")
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as err:
        first = err.errors()[0]
        location = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: is not a bundle's manifest: {location}: {first['msg']}") from err


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest in one step; the files that it lists must exist. An earlier signature is removed.

    Raises:
        DataError: A value of the manifest is invalid; nothing is written.
    """
    path = directory / MANIFEST_FILE
    text = manifest.model_dump_json(indent=1) + "\n"
    parse_manifest(text.encode(), path)  # `model_copy` does not validate
    temporary = path.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    (directory / SIGNATURE_FILE).unlink(missing_ok=True)
    temporary.replace(path)


def file_hash(path: Path) -> str:
    """Compute the SHA-256 hash of a file.

    Raises:
        NotFoundError: The file does not exist.
        StorageError: The file cannot be read.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as err:
        raise NotFoundError(f"{path}: is missing from the bundle", hint="fetch the bundle again") from err
    except OSError as err:
        raise StorageError(f"{path}: cannot be read: {err.strerror}") from err
