"""Bundle: the directory that is served, with the ONNX graph of a model and its manifest."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from pydantic import ValidationError

from model_name.core.decisions.decision import Decision
from model_name.core.features import Features, Matrix
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.errors import DataError, NotFoundError, StorageError

GRAPH_FILE = "model.onnx"
MANIFEST_FILE = "bundle.json"
GRAPH_INPUT = "features"
GRAPH_OUTPUT = "scores"
FORMAT_VERSION = 1
EXECUTION_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

LOAD_ERRORS = (  # ONNX Runtime's exceptions have no common base class
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
)


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
    name: str
    semver: str
    version: str
    run_id: str
    kind: str
    table: TableSchema
    features: Features
    decision: Decision = Decision()
    profile: dict[str, ColumnProfile]
    metrics: dict[str, float]
    example: dict[str, Any]
    shrunk: LaxTuple[CompressionReport] = ()
    files: dict[str, str]
    created: str


class Bundle:
    """A loaded bundle whose hashes were verified."""

    def __init__(self, directory: Path, manifest: Manifest, session: ort.InferenceSession) -> None:
        """Create a bundle from its parts; use `load` for a directory."""
        self.directory = directory
        self.manifest = manifest
        self.session = session

    @classmethod
    def load(cls, directory: Path, *, threads: int = 0) -> Self:
        """Load a bundle and verify its hashes.

        Args:
            directory: Directory of the bundle.
            threads: Number of threads of one forward pass; 0 selects ONNX Runtime's default.

        Raises:
            NotFoundError: A file of the bundle is missing.
            DataError: The directory is not a bundle, or a file was changed after it was written.
            StorageError: A file of the bundle cannot be read.
        """
        manifest = read_manifest(directory)
        if GRAPH_FILE not in manifest.files:
            raise DataError(
                f"{directory / MANIFEST_FILE}: does not vouch for {GRAPH_FILE}", hint="export the bundle again"
            )
        for name, expected in manifest.files.items():
            if file_hash(directory / name) != expected:
                raise DataError(
                    f"{directory / name}: is not the file that the bundle was written with", hint="fetch it again"
                )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Idle threads must not spin: the processors are shared with the event loop, and with other pods.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(directory / GRAPH_FILE), options, providers=execution_providers())
        except LOAD_ERRORS as err:  # usually a graph of a newer ONNX Runtime
            hint = f"serve with the ONNX Runtime that it was exported for; this one is {ort.__version__}"
            raise DataError(f"{directory / GRAPH_FILE}: cannot be read: {err}", hint=hint) from err
        return cls(directory, manifest, session)

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """Run the graph: n x 1 predictions of a regression, n x k probabilities otherwise."""
        return np.asarray(self.session.run([GRAPH_OUTPUT], {GRAPH_INPUT: matrix})[0])


def execution_providers() -> list[str]:
    """List the ONNX Runtime providers to use: CUDA if available, and the CPU; no other that happens to be installed."""
    return [name for name in EXECUTION_PROVIDERS if name in ort.get_available_providers()]


def read_manifest(directory: Path) -> Manifest:
    """Load the manifest of a bundle.

    Raises:
        NotFoundError: The directory holds no manifest.
        DataError: The file is not a manifest of this format.
        StorageError: The manifest cannot be read.
    """
    path = directory / MANIFEST_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as err:
        hint = "name the folder that holds it"
        raise NotFoundError(f"{directory}: is not a bundle, {MANIFEST_FILE} is missing", hint=hint) from err
    except OSError as err:
        raise StorageError(f"{path}: cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise DataError(f"{path}: is not JSON: {err}") from err
    if isinstance(raw, dict) and raw.get("format") != FORMAT_VERSION:
        raise DataError(f"{path}: has format {raw.get('format')}, this version reads {FORMAT_VERSION}")
    try:
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as err:
        first = err.errors()[0]
        location = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: is not a bundle's manifest: {location}: {first['msg']}") from err


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest; the files that it lists must exist."""
    text = manifest.model_dump_json(indent=1) + "\n"
    (directory / MANIFEST_FILE).write_text(text, encoding="utf-8")


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
