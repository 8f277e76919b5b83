"""Explainer plane: the contributions of the features to a prediction, computed with the fitted model."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray
from typing_extensions import override

from model_name.core.features import Matrix
from model_name.core.models import Explanation, Model
from model_name.core.schemas import Outputs
from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.io.registries import load_model
from model_name.io.storage import translate_write_errors
from model_name.serving.batching.requests import BatchResult, InferenceRequest, Payload
from model_name.serving.bundle import MANIFEST_FILE, Manifest, read_bundle, read_manifest
from model_name.serving.bundle import list_files as list_bundle_files
from model_name.serving.bundle_signature import SignatureVerifier
from model_name.serving.dataplane import DataPlane, RawColumns, rows_to_columns
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import encode_predictions
from model_name.serving.runtime.file_signature import read_unchanged

MODEL_FILE = "MLmodel"
MODEL_FILES = (MODEL_FILE, "python_model.pkl")
"""Files of a model that change with its version, beside those that its manifest lists."""


def list_files(directory: Path) -> Sequence[str]:
    """List the files in the directory of a model whose change makes it another version."""
    return [*dict.fromkeys((*MODEL_FILES, *list_bundle_files(directory)))]


class ModelBackend:
    """Inference backend over a fitted model, with the manifest of its bundle.

    Attributes:
        directory: Directory that the model was loaded from.
        model: Fitted model.
        manifest: Manifest of its bundle.
        verified_copy: Copy of the verified files, from which the model may import modules; None without one.
    """

    def __init__(
        self,
        directory: Path,
        model: Model,
        manifest: Manifest,
        verified_copy: TemporaryDirectory[str] | None = None,
    ) -> None:
        """Create a backend from a model and its manifest, which were loaded from a directory."""
        self.directory = directory
        self.model = model
        self.manifest = manifest
        self.verified_copy = verified_copy

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """Compute the scores of a feature matrix, see `InferenceBackend.scores`."""
        return self.model.score_matrix(matrix)


class ExplainerPlane(DataPlane):
    """Data plane that validates requests as the predictor does, and explains its predictions."""

    def __init__(self, backend: ModelBackend) -> None:
        """Create a plane that explains the model of a backend."""
        super().__init__(backend)
        self.kind = backend.model.KIND
        self._explain = backend.model.explainer()

    def explain(self, table: RawColumns, *, interval: float | None = None) -> dict[str, Any]:
        """Build the response body that explains a request, in JSON types.

        Each row has its `prediction` and `values`: the contribution of each feature to the difference between the
        `score` and the `base_value`, the mean score of the reference rows of the model. The base value and the values
        add up to the score, which is

        - the prediction of a regression;
        - the score of `class` for a classification: the positive class of two, the predicted class of several. It is a
          probability or log-odds, as stated by `scale`, before any calibration.

        Args:
            table: Values by column.
            interval: Level of the prediction intervals, if they are requested.

        Raises:
            DataError: A value is not accepted (the error names column, row and reason), or the level has no intervals.
            ExplanationError: The contributions do not add up to the score.
        """
        matrix = self.matrix(table)
        outputs = self.predict_matrix(matrix, interval=interval)
        explanation = self._explain(matrix)
        explanation.check_additive(self.kind)
        return {"explanations": self._encode_rows(outputs, explanation), "scale": explanation.scale}

    @override
    def warm_up(self) -> Outputs:
        """Explain the example as well."""
        self.explain(rows_to_columns([self.bundle.manifest.example], self.inputs))
        return super().warm_up()

    def _encode_rows(self, outputs: Outputs, explanation: Explanation) -> list[dict[str, Any]]:
        predictions = encode_predictions(outputs)["predictions"]
        rows = predictions if outputs.lower is not None else [{"prediction": value} for value in predictions]
        if outputs.classes:
            is_binary = len(outputs.classes) == 2
            labels = [outputs.classes[1]] * len(rows) if is_binary else outputs.prediction.tolist()
            if not is_binary:
                positions = {label: position for position, label in enumerate(outputs.classes)}
                explanation = explanation.for_classes(np.array([positions[label] for label in labels]))
            rows = [row | {"class": label} for row, label in zip(rows, labels, strict=True)]
        scores = explanation.scores.reshape(-1).tolist()
        base_values = np.broadcast_to(explanation.base, len(rows)).tolist()
        return [
            row | {"score": score, "base_value": base, "values": dict(zip(explanation.features, values, strict=True))}
            for row, score, base, values in zip(rows, scores, base_values, explanation.values.tolist(), strict=True)
        ]


def load_plane(directory: Path, *, verifier: SignatureVerifier | None = None) -> ExplainerPlane:
    """Load the model of a directory and warm up its explainer.

    Args:
        directory: Directory of the model.
        verifier: Verifier of the signature; None if the model need not be signed.

    Raises:
        NotFoundError: The model or its manifest is missing.
        DataError: The model was not made by this project, the manifest belongs to another model, or the signature is
            missing or of another key.
    """
    if not (directory / MANIFEST_FILE).is_file():
        hint = "name the folder of a registered model; one from before there were explainers must be trained again"
        raise NotFoundError(f"{directory}: is not the folder of a model, {MANIFEST_FILE} is missing", hint=hint)
    if verifier is None and MODEL_FILE not in read_manifest(directory).files:
        backend = read_unchanged(directory, lambda: list_files(directory), lambda: load_unverified(directory))
    else:
        backend = load_verified(directory, verifier)
    plane = ExplainerPlane(backend)
    plane.warm_up()
    return plane


def load_verified(directory: Path, verifier: SignatureVerifier | None = None) -> ModelBackend:
    """Load a model whose manifest lists its files: each is read once and verified, and its bytes are loaded.

    MLflow loads folders, so that what was read is copied to a temporary folder that only this user may read.

    Args:
        directory: Directory of the model.
        verifier: Verifier of the signature; None if the model need not be signed.

    Raises:
        NotFoundError: A file is missing.
        DataError: The manifest does not list the files of the model, a file was changed after it was written, or the
            signature is missing or of another key.
        StorageError: A file cannot be read or copied.
    """
    contents = read_bundle(directory, verifier, required=MODEL_FILE)
    copy = TemporaryDirectory(prefix="model-name-model-")
    with translate_write_errors(copy.name):
        for name, content in contents.files.items():
            path = Path(copy.name, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return ModelBackend(directory, load_of_run(copy.name, directory, contents.manifest), contents.manifest, copy)


def load_unverified(directory: Path) -> ModelBackend:
    """Load a model that was registered before manifests listed the files of the model.

    Raises:
        NotFoundError: The model or its manifest is missing.
        DataError: The model was not made by this project, or the manifest belongs to another model.
    """
    manifest = read_manifest(directory)
    return ModelBackend(directory, load_of_run(str(directory), directory, manifest), manifest)


def load_of_run(folder: str, directory: Path, manifest: Manifest) -> Model:
    """Load a model and check that its manifest is of the same run.

    Args:
        folder: Folder to load from.
        directory: Directory of the model, for error messages.
        manifest: Manifest of the model.

    Raises:
        NotFoundError: The model is missing or damaged.
        DataError: The model was not made by this project, or the manifest belongs to another model.
    """
    model, run_id = load_model(folder, f"{manifest.name} {manifest.semver}")
    if run_id != manifest.run_id:
        raise DataError(
            f"{directory / MANIFEST_FILE}: is of run {manifest.run_id}, the model beside it of run {run_id}"
        )
    return model


def explain_batch(plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> BatchResult:
    """Explain each request by itself, so that its random samples do not depend on other requests of the batch."""
    explainer = cast(ExplainerPlane, plane)  # `load_plane` returns one
    return BatchResult([_explain_request(explainer, request, limits) for request in requests])


def _explain_request(plane: ExplainerPlane, request: InferenceRequest, limits: Limits) -> Payload | ModelNameError:
    try:
        decoded = request.decode(plane, limits)
        table = decoded.to_columns(plane.inputs)
        limits.check_texts(table, request.size)
        return orjson.dumps(plane.explain(table, interval=decoded.interval))
    except ModelNameError as err:
        return err
