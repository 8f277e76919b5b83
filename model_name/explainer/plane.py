"""From a request to the contributions of its features, by the fitted model itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray

from model_name.core.features.transforms import Matrix
from model_name.core.models import Explanation, Model
from model_name.core.schemas import Outputs
from model_name.errors import DataError, ModelNameError, NotFoundError
from model_name.io.registries import load_model
from model_name.serving.batching.requests import BatchResult, Payload, InferenceRequest
from model_name.serving.bundle import MANIFEST, Manifest, read_manifest
from model_name.serving.dataplane import DataPlane, RawColumns, rows_to_columns
from model_name.serving.limits import Limits
from model_name.serving.protocols.v1 import encode_predictions

FILES = (MANIFEST, "MLmodel", "python_model.pkl")
"""Of the folder of a model, that another version changes."""


class Fitted:
    """A model and the manifest of its bundle, as a data plane serves them."""

    def __init__(self, directory: Path, model: Model, manifest: Manifest) -> None:
        """Hold both, and where they lie."""
        self.directory = directory
        self.model = model
        self.manifest = manifest

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """As of `Scorer`."""
        return self.model.score_matrix(matrix)


class ExplainerPlane(DataPlane):
    """Checks requests as the predictor does, and explains what it answers."""

    def __init__(self, fitted: Fitted) -> None:
        """Explain a fitted model."""
        super().__init__(fitted)
        self.kind = fitted.model.KIND
        self._explain = fitted.model.explainer()

    def explain(self, table: RawColumns, *, interval: float | None = None) -> dict[str, Any]:
        """The body that explains a request, in JSON's types.

        Each row has its `prediction`, and `values`: how much each feature moves the `score` from the `base_value`, the
        mean score of what the model compares with. The base value and the values add up to the score, which is

        - the prediction of a regression;
        - the score of `class` where there are classes: the positive one of two, the predicted one of several. It is a
          probability or log-odds, as `scale` says, before any calibration.

        Args:
            table: The values by column.
            interval: The level of the prediction intervals, if they are asked for.

        Raises:
            DataError: Naming column, row and reason; or there are no intervals of this level.
            ExplanationError: The contributions do not add up.
        """
        matrix = self.matrix(table)
        outputs = self.predict_matrix(matrix, interval=interval)
        found = self._explain(matrix)
        found.check_additive(self.kind)
        return {"explanations": self._rows(outputs, found), "scale": found.scale}

    def warm_up(self) -> Outputs:
        """Explain the example as well."""
        self.explain(rows_to_columns([self.bundle.manifest.example], self.inputs))
        return super().warm_up()

    def _rows(self, outputs: Outputs, found: Explanation) -> list[dict[str, Any]]:
        answers = encode_predictions(outputs)["predictions"]
        rows = answers if outputs.lower is not None else [{"prediction": answer} for answer in answers]
        if outputs.classes:
            is_binary = len(outputs.classes) == 2
            labels = [outputs.classes[1]] * len(rows) if is_binary else outputs.prediction.tolist()
            if not is_binary:
                places = {label: place for place, label in enumerate(outputs.classes)}
                found = found.for_classes(np.array([places[label] for label in labels]))
            rows = [row | {"class": label} for row, label in zip(rows, labels, strict=True)]
        bases = np.broadcast_to(found.base, len(rows)).tolist()
        columns = zip(rows, found.scores.reshape(-1).tolist(), bases, found.values.tolist(), strict=True)
        return [
            row | {"score": score, "base_value": base, "values": dict(zip(found.features, values, strict=True))}
            for row, score, base, values in columns
        ]


def load(directory: Path) -> ExplainerPlane:
    """The model of a folder, which has explained its own example.

    Raises:
        NotFoundError: The model or its manifest is missing.
        DataError: It is a model that this project did not make, or the manifest is of another.
    """
    if not (directory / MANIFEST).is_file():
        hint = "name the folder of a registered model; one from before there were explainers must be trained again"
        raise NotFoundError(f"{directory}: is not the folder of a model, {MANIFEST} is missing", hint=hint)
    manifest = read_manifest(directory)
    model, run_id = load_model(str(directory), f"{manifest.name} {manifest.semver}")
    if run_id != manifest.run_id:
        raise DataError(f"{directory / MANIFEST}: is of run {manifest.run_id}, the model beside it of run {run_id}")
    plane = ExplainerPlane(Fitted(directory, model, manifest))
    plane.warm_up()
    return plane


def explain(plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> BatchResult:
    """Explain each request by itself: what samples are drawn for its rows must not depend on who else asks."""
    explainer = cast(ExplainerPlane, plane)  # that is what `load` makes
    return BatchResult([_reply(explainer, request, limits) for request in requests])


def _reply(plane: ExplainerPlane, request: InferenceRequest, limits: Limits) -> Payload | ModelNameError:
    try:
        question = request.decode(plane, limits)
        table = question.columns(plane.inputs)
        limits.check_texts(table, request.size)
        return orjson.dumps(plane.explain(table, interval=question.interval))
    except ModelNameError as err:
        return err
