"""What the jobs left in the run of a version, read back in one place.

An older version lacks what newer jobs write, and no version needs to have been through all of them: what is missing is
None or empty, and is simply not shown.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from pydantic import BaseModel, ConfigDict, field_validator

from model_name.core.schemas.strict_models import LaxTuple
from model_name.errors import NotFoundError
from model_name.io.registries import Registry, Version
from model_name.jobs.evaluations import EVALUATION, EvaluationResult
from model_name.jobs.explanations import CONTRIBUTIONS, EXPLANATION, VALUES, ExplanationResult
from model_name.jobs.promotion import GATE, PromotionResult
from model_name.jobs.searches import BEST, BEST_METRIC, TRIALS, TUNING_RUN
from model_name.serving.bundle import Manifest, read_manifest

TESTING = "testing"  # the context of the held-out rows among the inputs of a run

T = TypeVar("T")


class Record(BaseModel):
    """Something that was written by another job, perhaps of another release: what is unknown is skipped."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Interval(Record):
    """Where a metric lies, with 95 % confidence."""

    low: float
    high: float


class Difference(Record):
    """How far this version is from another model on the same rows: this minus the other, in the deciding metric."""

    against: str
    metric: str
    value: float
    low: float
    high: float


class Point(Record):
    """One point of a curve."""

    x: float
    y: float


class Band(Record):
    """Quantiles (10, 50, 90 %) of the residuals, actual less predicted, from a moment (ISO 8601) or a prediction on."""

    x: str
    low: float
    middle: float
    high: float
    rows: int


class CalibrationBin(Record):
    """How often it was so (`observed`) where it was predicted with this probability."""

    predicted: float
    observed: float
    rows: int


class Coverage(Record):
    """How often the actual value lay in the prediction interval of a level, and how wide that is on average."""

    level: float
    observed: float
    width: float


class Curves(Record):
    """The points of pictures; those that do not fit the task are empty.

    Attributes:
        predicted: Prediction (x) and actual value (y) of a sample of rows.
        residuals: Along the time, or the prediction where there is no time.
        coverage: Of the prediction intervals, by level.
        roc: False positive rate (x) and true positive rate (y).
        precision_recall: Recall (x) and precision (y).
        calibration: From the least to the largest probability.
        confusion: Counts; rows are actual, columns predicted classes, in the schema's order.
    """

    predicted: LaxTuple[Point] = ()
    residuals: LaxTuple[Band] = ()
    coverage: LaxTuple[Coverage] = ()
    roc: LaxTuple[Point] = ()
    precision_recall: LaxTuple[Point] = ()
    calibration: LaxTuple[CalibrationBin] = ()
    confusion: LaxTuple[LaxTuple[int]] = ()


class Threshold(Record):
    """From which probability on the positive class is answered, and what a row costs then and with 0.5."""

    value: float
    cost: float
    cost_at_half: float


class LearningPoint(Record):
    """What the deciding metric is after learning from so many rows."""

    rows: int
    score: float


class FoundSlice(Record):
    """Rows that were found to be served worse than the others.

    Attributes:
        words: Which.
        rows: How many.
        metrics: What the version scores on them.
        share: Their part of the loss of all held-out rows.
        ratio: Their mean loss as a multiple of that of all.
    """

    words: str
    rows: int
    metrics: dict[str, float | None]
    share: float | None = None
    ratio: float | None = None


class Detail(Record):
    """What an evaluation says beyond its metrics; everything may be missing, and what is not defined is left out.

    Attributes:
        intervals: By metric.
        resampled: What was drawn for them, for people.
        differences: To the champion and to the references.
        curves: For the pictures.
        calibration_error: Mean distance between predicted probability and observed share.
        calibration_error_before: The same without the calibration.
        learning: The learning curve.
        learning_skipped: Why there is none.
        worst_slices: The worst first.
        threshold: Of a binary target with costs.
    """

    intervals: dict[str, Interval] = {}
    resampled: str = ""
    differences: LaxTuple[Difference] = ()
    curves: Curves = Curves()
    calibration_error: float | None = None
    calibration_error_before: float | None = None
    learning: LaxTuple[LearningPoint] = ()
    learning_skipped: str = ""
    worst_slices: LaxTuple[FoundSlice] = ()
    threshold: Threshold | None = None

    @field_validator("intervals", mode="before")
    @classmethod
    def _defined(cls, found: Any) -> Any:
        return {name: ends for name, ends in found.items() if ends is not None and None not in ends.values()}

    @field_validator("differences", "learning", mode="before")
    @classmethod
    def _all_defined(cls, found: Any) -> Any:
        return tuple(one for one in found if None not in one.values())


class Best(Record):
    """What a search chose: one of its trials, or a blend of several."""

    params: dict[str, Any]
    score: float
    fold_scores: LaxTuple[float]


@dataclass(frozen=True)
class Search:
    """The search of hyperparameters that a version came from.

    Attributes:
        run_id: Its run.
        metric: What decided.
        trials: One row a trial as `SearchResult.frame` has them; the first is the model with its own hyperparameters.
        best: What it chose; older releases did not write it.
    """

    run_id: str
    metric: str
    trials: pd.DataFrame
    best: Best | None = None

    @property
    def is_over_kinds(self) -> bool:
        """Whether the trials were of several kinds of model, the default trees first."""
        return "param_KIND" in self.trials


@dataclass(frozen=True)
class Findings:
    """Everything that is known about a version.

    Attributes:
        version: Its names.
        run: Its run.
        manifest: Of its bundle.
        bundle_bytes: How large that is.
        evaluation: What it is worth.
        detail: What else the evaluation says.
        explanation: What it looks at.
        contributions: Those of single rows, one column a feature.
        values: What the model saw in these rows, one column a feature; sensitive ones are not there.
        gate: What was decided.
        tags: What was noted about it in the registry.
    """

    version: Version
    run: Run
    manifest: Manifest
    bundle_bytes: int
    evaluation: EvaluationResult | None
    detail: Detail
    explanation: ExplanationResult | None
    contributions: pd.DataFrame | None
    values: pd.DataFrame | None
    gate: PromotionResult | None
    tags: dict[str, str]

    @property
    def held_out(self) -> str:
        """The digest of the rows that were held out when it was trained; empty where it was not recorded."""
        for one in self.run.inputs.dataset_inputs if self.run.inputs else ():
            if any(tag.value == TESTING for tag in one.tags):
                return str(one.dataset.digest)
        return ""


def read_findings(registry: Registry, version: Version, bundle: Path | None = None) -> Findings:
    """All that the run of a version holds.

    Args:
        registry: Of the model.
        version: One of it.
        bundle: Where its bundle lies, if it is at hand.

    Raises:
        NotFoundError: The bundle is gone.
    """
    folder = bundle or registry.download_bundle(version.version)
    evaluation = find(registry, version, EVALUATION, Path.read_text)
    return Findings(
        version=version,
        run=mlflow.get_run(version.run_id),
        manifest=read_manifest(folder),
        bundle_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        evaluation=evaluation_of(evaluation) if evaluation else None,
        detail=Detail.model_validate_json(evaluation) if evaluation else Detail(),
        explanation=explanation_of(registry, version),
        contributions=find(registry, version, CONTRIBUTIONS, pd.read_parquet),
        values=find(registry, version, VALUES, pd.read_parquet),
        gate=find(registry, version, GATE, lambda file: PromotionResult.model_validate_json(file.read_text("utf-8"))),
        tags=registry.get_tags(version),
    )


def find(registry: Registry, version: Version, path: str, read: Callable[[Path], T]) -> T | None:
    """What a file in the run of a version holds, or None where there is no such file."""
    try:
        return read(registry.download_artifact(version, path))
    except NotFoundError:
        return None


def evaluation_of(text: str) -> EvaluationResult:
    """An evaluation without what `Detail` reads, and without what another release has written beside that."""
    mine = EvaluationResult.model_fields.keys() - Detail.model_fields.keys()
    known = {key: value for key, value in json.loads(text).items() if key in mine}
    return EvaluationResult.model_validate_json(json.dumps(known))


def explanation_of(registry: Registry, version: Version) -> ExplanationResult | None:
    """What a version looks at, if it was explained."""
    return find(
        registry, version, EXPLANATION, lambda file: ExplanationResult.model_validate_json(file.read_text("utf-8"))
    )


def search_of(run: Run) -> Search | None:
    """The search that a training run took its hyperparameters from, or None.

    That is the one that its tag names, or its own; without either, the newest search before it whose best
    hyperparameters it has.
    """
    if TUNING_RUN in run.data.tags:
        return _search_in(_known(run.data.tags[TUNING_RUN]))
    return _search_in(run) or _search_in(_matching(run))


def _search_in(run: Run | None) -> Search | None:
    metrics = [name for name in run.data.metrics if name.startswith(BEST_METRIC)] if run else []
    if run is None or not metrics:
        return None
    trials = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{TRIALS}")
    frame = pd.DataFrame(trials["data"], columns=trials["columns"])
    return Search(run.info.run_id, metrics[0].removeprefix(BEST_METRIC), frame, _best_of(run))


def _best_of(run: Run) -> Best | None:
    if not any(file.path == BEST for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)):
        return None  # of a release that did not write it
    return Best.model_validate(mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/{BEST}"))


def _known(run_id: str) -> Run | None:
    try:
        return mlflow.get_run(run_id)
    except MlflowException as err:
        if err.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # somebody has deleted it


def _matching(run: Run) -> Run | None:
    kind = run.data.params.get("kind", "")
    searches = mlflow.search_runs(
        experiment_ids=[run.info.experiment_id],
        filter_string=(
            f"tags.job = 'TuningJob' and attributes.status = 'FINISHED' and attributes.run_name = 'tune {kind}' "
            f"and attributes.start_time <= {run.info.start_time}"
        ),
        order_by=["attributes.start_time DESC"],
        max_results=1,
        output_format="list",
    )
    return searches[0] if searches and searches[0].data.params.items() <= run.data.params.items() else None
