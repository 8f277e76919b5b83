"""What is served: a folder with the graph and all that is known about it."""

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
from model_name.core.features.transforms import Features, Matrix
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.errors import DataError, NotFoundError, StorageError

GRAPH = "model.onnx"
MANIFEST = "bundle.json"
FEATURES = "features"
SCORES = "scores"
FORMAT = 1
PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")

UNREADABLE = (  # they have no base of their own
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NotImplemented,
)


class ColumnProfile(FrozenModel):
    """What the training part of one column looked like, for drift to be measured against.

    Attributes:
        missing: Share of missing values.
        quantiles: The 0, 5, ..., 100 % quantiles of a numeric column.
        shares: The share of each category, or of true.
    """

    missing: float
    quantiles: LaxTuple[float] = ()
    shares: dict[str, float] = {}


class Shrunk(FrozenModel):
    """How a graph was made smaller, and what that cost on the held-out rows.

    Attributes:
        how: In words.
        bytes_before: Of the graph.
        bytes_after: Of the smaller one.
        metrics_before: What the one scored.
        metrics_after: What the other one scores.
    """

    how: str
    bytes_before: int
    bytes_after: int
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]


class Manifest(FrozenModel):
    """All that serving needs to know beside the graph.

    Attributes:
        format: Of this file.
        name: The model.
        semver: Its semantic version.
        version: Its number in MLflow.
        run_id: The run that made it.
        kind: The kind of model.
        table: The schema of requests, target included.
        features: The fitted features.
        decision: What turns scores into answers; a bundle from before there was one takes them as they are.
        profile: The training part, by column.
        metrics: What the version scored on the held-out rows.
        example: One row that a client may send.
        shrunk: How it was made smaller, where it was.
        files: SHA-256 of the other files.
        created: When, in ISO 8601 and UTC.
    """

    format: int = FORMAT
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
    shrunk: LaxTuple[Shrunk] = ()
    files: dict[str, str]
    created: str


class Bundle:
    """A bundle that was read and found whole."""

    def __init__(self, directory: Path, manifest: Manifest, session: ort.InferenceSession) -> None:
        """Hold what `load` found."""
        self.directory = directory
        self.manifest = manifest
        self.session = session

    @classmethod
    def load(cls, directory: Path, *, threads: int = 0) -> Self:
        """Read a bundle and check its hashes.

        Args:
            directory: Where it lies.
            threads: For one forward pass; 0 leaves it to ONNX Runtime.

        Raises:
            NotFoundError: A file is missing.
            DataError: It is not a bundle, or was changed after it was written.
            StorageError: A file may not be read.
        """
        manifest = read_manifest(directory)
        if GRAPH not in manifest.files:
            raise DataError(f"{directory / MANIFEST}: does not vouch for {GRAPH}", hint="export the bundle again")
        for name, expected in manifest.files.items():
            if file_hash(directory / name) != expected:
                raise DataError(
                    f"{directory / name}: is not the file that the bundle was written with", hint="fetch it again"
                )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that wait must not spin: the processors are shared with the event loop, and with other pods.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(directory / GRAPH), options, providers=providers())
        except UNREADABLE as err:  # a graph of a newer ONNX Runtime, as a rule
            hint = f"serve with the ONNX Runtime that it was exported for; this one is {ort.__version__}"
            raise DataError(f"{directory / GRAPH}: cannot be read: {err}", hint=hint) from err
        return cls(directory, manifest, session)

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """What the graph answers: n x 1 predictions of a regression, n x k probabilities otherwise."""
        return np.asarray(self.session.run([SCORES], {FEATURES: matrix})[0])


def providers() -> list[str]:
    """Where a forward pass may run: a GPU where there is one; nothing else that happens to be installed."""
    return [name for name in PROVIDERS if name in ort.get_available_providers()]


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        NotFoundError: There is none.
        DataError: It is not a manifest of this format.
        StorageError: It may not be read.
    """
    path = directory / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as err:
        hint = "name the folder that holds it"
        raise NotFoundError(f"{directory}: is not a bundle, {MANIFEST} is missing", hint=hint) from err
    except OSError as err:
        raise StorageError(f"{path}: cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise DataError(f"{path}: is not JSON: {err}") from err
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise DataError(f"{path}: has format {raw.get('format')}, this version reads {FORMAT}")
    try:
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as err:
        first = err.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: is not a bundle's manifest: {place}: {first['msg']}") from err


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest; the files it names must be there."""
    text = manifest.model_dump_json(indent=1) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        NotFoundError: It is not there.
        StorageError: It may not be read.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as err:
        raise NotFoundError(f"{path}: is missing from the bundle", hint="fetch the bundle again") from err
    except OSError as err:
        raise StorageError(f"{path}: cannot be read: {err.strerror}") from err
