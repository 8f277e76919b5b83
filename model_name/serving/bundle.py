"""What is served: a folder with the graph and all that is known about it."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import onnxruntime as ort
from pydantic import ValidationError

from model_name.core.features import Features
from model_name.core.schemas import Frozen, Many, TableSchema
from model_name.errors import DataError, NotFoundError

GRAPH = "model.onnx"
MANIFEST = "bundle.json"
FORMAT = 1


class ColumnProfile(Frozen):
    """What the training part of one column looked like, for drift to be measured against.

    Attributes:
        missing: Share of missing values.
        quantiles: The 0, 5, ..., 100 % quantiles of a numeric column.
        shares: The share of each category, or of true.
    """

    missing: float
    quantiles: Many[float] = ()
    shares: dict[str, float] = {}


class Manifest(Frozen):
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
        profile: The training part, by column.
        metrics: What the version scored on the held-out rows.
        example: One row that a client may send.
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
    profile: dict[str, ColumnProfile]
    metrics: dict[str, float]
    example: dict[str, Any]
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
        """
        manifest = read_manifest(directory)
        for name, expected in manifest.files.items():
            if file_hash(directory / name) != expected:
                raise DataError(f"{directory / name}: is not the file that the bundle was written with", hint="fetch it again")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = ort.InferenceSession(str(directory / GRAPH), options, providers=ort.get_available_providers())
        return cls(directory, manifest, session)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a bundle.

    Raises:
        NotFoundError: There is none.
        DataError: It is not a manifest of this format.
    """
    path = directory / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise NotFoundError(f"{directory}: is not a bundle, {MANIFEST} is missing", hint="name the folder that holds it") from err
    except ValueError as err:
        raise DataError(f"{path}: is not JSON: {err}") from err
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise DataError(f"{path}: has format {raw.get('format')}, this version reads {FORMAT}")
    try:
        return Manifest.model_validate_json(json.dumps(raw))
    except ValidationError as err:
        raise DataError(f"{path}: is not a bundle's manifest: {err}") from err


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write the manifest; the files it names must be there."""
    text = manifest.model_dump_json(indent=1) + "\n"
    (directory / MANIFEST).write_text(text, encoding="utf-8")


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        NotFoundError: It is not there.
    """
    try:
        return sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as err:
        raise NotFoundError(f"{path}: is missing from the bundle", hint="fetch the bundle again") from err
