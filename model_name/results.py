"""Typed results of the jobs, and the names under which a run stores them.

A result is written by one job and read by others, perhaps by those of another release. Unknown keys are therefore
ignored, and fields that older releases did not write have defaults.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from model_name.core.decisions.decision import Costs
from model_name.core.evaluation.bootstrap import Difference, Interval
from model_name.core.evaluation.curves import Curves
from model_name.core.evaluation.learning_curve import LearningPoint
from model_name.core.evaluation.slices import WorstSlice
from model_name.core.metrics import Metric
from model_name.core.schemas.strict_models import LaxTuple, LenientModel

EVALUATION_FILE = "evaluation.json"
EXPLANATION_FILE = "explanation.json"
SAMPLES_DIR = "explanations"
CONTRIBUTIONS_FILE = f"{SAMPLES_DIR}/samples.parquet"
FEATURE_VALUES_FILE = f"{SAMPLES_DIR}/values.parquet"
GATE_FILE = "gate.json"
REPORT_FILE = "report.html"
TRIALS_FILE = "trials.json"
BEST_FILE = "best.json"
BEST_METRIC_PREFIX = "best_"  # followed by the name of the metric
TUNING_RUN_TAG = "tuning_run"  # tag of a training run: ID of the run of its search
FIT_SECONDS_METRIC = "fit_seconds"  # metric of a training run: duration of the fit

CONSTANT = "constant"  # reference model of an evaluation that predicts one value for all rows


class Result(LenientModel):
    """Base of the results of jobs, which the command line prints and a pipeline passes to later steps.

    Attributes:
        DETAILS: Fields for programs only; the command line omits them unless it prints JSON.
        accepted: False for a refusal of the gate, which is recorded; the job itself succeeded.
    """

    DETAILS: ClassVar[frozenset[str]] = frozenset()

    accepted: bool = True


class PreparationResult(Result):
    """Result of a preparation.

    Attributes:
        source: Path of the table that was read.
        table: Path of the validated table, Parquet; this result is stored beside it as JSON.
        fingerprint: Hash of the validated table.
        rows: Number of rows read.
        kept: Number of rows left after validation.
        findings: Sentences about rows, values and columns that were dropped, clipped or ignored.
        ranges: First and last moment of each datetime column, ISO 8601.
    """

    source: str
    table: str
    fingerprint: str
    rows: int
    kept: int
    findings: LaxTuple[str]
    ranges: dict[str, LaxTuple[str]] = {}


class SelectedParams(LenientModel):
    """Hyperparameters that a search selected: those of one trial, or of a blend of several.

    Attributes:
        params: Hyperparameters by name.
        score: Mean of the metric over the folds.
        fold_scores: Metric of each fold.
    """

    params: dict[str, Any]
    score: float
    fold_scores: LaxTuple[float]


class TuningResult(Result):
    """Result of a hyperparameter search.

    Attributes:
        run_id: ID of the search's MLflow run.
        kind: Kind of the model.
        metric: Name of the metric that decides.
        params: Best hyperparameters; empty if the model's own were best.
        score: Mean of the metric over the folds with `params`.
        default_score: Mean of the metric over the folds with the model's own hyperparameters.
        trials: Number of trials.
        failed: Number of trials that failed.
    """

    run_id: str
    kind: str
    metric: str
    params: dict[str, Any]
    score: float
    default_score: float
    trials: int
    failed: int

    @property
    def training_overrides(self) -> str:
        """Config keys for the training job, as JSON text because KFP turns every number of a dict into a float."""
        return json.dumps({"params": self.params, "tuning_run": self.run_id})


class TrainingResult(Result):
    """Result of a training.

    Attributes:
        version: Number of the registered version.
        semver: Semantic version.
        run_id: ID of the training's MLflow run.
        kind: Kind of the model.
        params: Hyperparameters of the model.
        metrics: Metrics on the held-out rows.
        train_rows: Number of rows that the model was fitted on.
        test_rows: Number of held-out rows.
        bundle: Path of the bundle's folder.
        fit_seconds: Duration of the fit.
    """

    version: str
    semver: str
    run_id: str
    kind: str
    params: dict[str, Any]
    metrics: dict[str, float]
    train_rows: int
    test_rows: int
    bundle: str
    fit_seconds: float


class Slice(LenientModel):
    """Metrics of the held-out rows that have one value in a column.

    Attributes:
        column: Name of the column.
        value: Value of the column, as text.
        rows: Number of held-out rows with this value.
        metrics: Metrics of the version on these rows.
        champion: Metrics of the champion on these rows; empty if there is none to compare with.
    """

    column: str
    value: str
    rows: int
    metrics: dict[str, float | None]
    champion: dict[str, float | None] = {}


class Champion(LenientModel):
    """The champion at the time of an evaluation, measured on the same rows.

    Attributes:
        version: Number of the champion.
        semver: Semantic version.
        metrics: Metrics on the held-out rows.
        problem: Reason why it could not be measured; empty if it was.
    """

    version: str
    semver: str
    metrics: dict[str, float | None] = {}
    problem: str = ""


class Threshold(LenientModel):
    """Decision threshold of a binary target, and the cost of the decisions on the held-out rows.

    Attributes:
        value: Probability from which on a row is classified as positive, chosen on rows of the training part.
        cost: Mean cost of a held-out row with this threshold.
        cost_at_half: Mean cost of a held-out row with a threshold of 0.5.
        costs: Costs of false positives and false negatives.
    """

    value: float
    cost: float
    cost_at_half: float
    costs: Costs | None = None

    @field_validator("costs", mode="before")
    @classmethod
    def _ignore_unknown_keys(cls, raw: Any) -> Any:
        """Drop keys of another release; `Costs` itself is a config and refuses them."""
        return {key: raw[key] for key in raw if key in Costs.model_fields} if isinstance(raw, dict) else raw


class EvaluationResult(Result):
    """Result of an evaluation. No field is NaN: undefined values are None, fields that do not fit the task are empty.

    Attributes:
        version: Number of the version.
        semver: Semantic version.
        rows: Number of held-out rows.
        measures: Metrics that were computed, with their thresholds; the first one decides.
        metrics: Metrics of the version; None if a metric is not defined on the rows.
        intervals: Bootstrap intervals (95 %) of the metrics, from resampled held-out rows.
        resampled: Description of the resampling.
        references: Metrics of a constant and of default boosted trees, both fitted on the same training part.
        champion: Champion on the same rows; None if there is none or if the version is the champion.
        differences: Deciding metric of this version minus that of the champion and of each reference.
        slices: Metrics of the configured slices.
        worst_slices: Slices that a search found to be significantly worse than the other rows.
        curves: Points of the figures, and the coverage of the prediction intervals.
        calibration_error: Expected calibration error (ECE) of the served probabilities.
        calibration_error_before: Expected calibration error before calibration; None without calibration.
        threshold: Decision threshold; None if the most probable class is predicted.
        learning: Deciding metric of the model fitted on fewer rows.
        learning_skipped: Reason why there is no learning curve; empty if there is one.
    """

    DETAILS = frozenset({"curves"})

    version: str
    semver: str
    rows: int
    measures: LaxTuple[Metric]
    metrics: dict[str, float | None]
    intervals: dict[str, Interval] = {}
    resampled: str = ""
    references: dict[str, dict[str, float | None]]
    champion: Champion | None
    differences: LaxTuple[Difference] = ()
    slices: LaxTuple[Slice]
    worst_slices: LaxTuple[WorstSlice] = ()
    curves: Curves = Curves()
    calibration_error: float | None = None
    calibration_error_before: float | None = None
    threshold: Threshold | None = None
    learning: LaxTuple[LearningPoint] = ()
    learning_skipped: str = ""

    @field_validator("intervals", mode="before")
    @classmethod
    def _drop_missing_intervals(cls, raw: Any) -> Any:
        """Drop intervals that are null."""
        return {name: ends for name, ends in raw.items() if ends is not None} if isinstance(raw, dict) else raw

    def interval_bounds(self, metric: str) -> tuple[float, float] | None:
        """Return the ends of the interval of a metric, or None if it is unknown or not defined."""
        return bounds(self.intervals.get(metric))

    def difference_bounds(self, against: str, metric: str) -> tuple[float, float] | None:
        """Return the ends of the difference to another model, or None if it is unknown or not defined."""
        matches = (each for each in self.differences if (each.against, each.metric) == (against, metric))
        return bounds(next(matches, None))


class ExplanationResult(Result):
    """Result of an explanation.

    Attributes:
        version: Number of the version.
        semver: Semantic version.
        rows: Number of held-out rows that were explained.
        method: Method of the explanation. SHAP's contributions add up to the score, LIME's weights do not.
        scale: Quantity that is explained: the prediction, a probability or log-odds.
        additivity_error: Largest distance between the sum of the contributions and the score, as a share of the score's
            spread; None for LIME.
        fidelity: Mean R2 of LIME's linear models around their rows; None for SHAP.
        importances: Mean absolute contribution (or weight) of each feature, the largest first.
        samples: Path of the contributions of each row, Parquet.
    """

    version: str
    semver: str
    rows: int
    method: Literal["shap", "lime"] = "shap"
    scale: str
    additivity_error: float | None
    fidelity: float | None = None
    importances: dict[str, float]
    samples: str


class GateCheck(LenientModel):
    """One check of the gate.

    Attributes:
        name: Name of the check.
        passed: Whether the version passed it.
        value: Metric of the version.
        limit: Value that the metric had to reach.
        words: Description of the check, with value and limit.
    """

    name: str
    passed: bool
    value: float | None
    limit: float | None
    words: str


class PromotionResult(Result):
    """Decision of the gate.

    Attributes:
        version: Number of the version.
        semver: Semantic version.
        alias: Alias that the gate set: champion, challenger, or empty.
        forced: Whether the version was promoted although a check failed.
        actor: Name of the person or system that requested the promotion.
        reason: Reason given for the promotion.
        checks: Checks of the gate.
        previous: Number of the previous champion, if there was one.
        entry: Number of the entry in the audit trail.
    """

    version: str
    semver: str
    alias: str
    forced: bool
    actor: str
    reason: str
    checks: LaxTuple[GateCheck]
    previous: str
    entry: int


class ReportResult(Result):
    """Summary of a version, and the path of its report.

    Attributes:
        version: Number of the version.
        semver: Semantic version.
        alias: Alias that the gate set: champion, challenger, or empty.
        metrics: Metrics on the held-out rows.
        references: Metrics of a constant and of default boosted trees on the same rows.
        gate: Decision of the gate; empty if the version was not put through it.
        bundle: Path of the bundle's folder.
        report: Path of the HTML report.
    """

    version: str
    semver: str
    alias: str
    metrics: dict[str, float | None]
    references: dict[str, dict[str, float | None]]
    gate: dict[str, Any]
    bundle: str
    report: str


class InferenceResult(Result):
    """Result of a batch inference.

    Attributes:
        outputs: Folder or URL of the output files, Parquet.
        semver: Semantic version of the model.
        rows: Number of rows read.
        predicted: Number of rows predicted.
        resumed: Number of predicted rows that an earlier, interrupted run had written.
        findings: Sentences about rows and values that were dropped or clipped.
    """

    outputs: str
    semver: str
    rows: int
    predicted: int
    resumed: int
    findings: LaxTuple[str]


def bounds(interval: Interval | Difference | None) -> tuple[float, float] | None:
    """Return both ends of an interval, or None if one of them is not defined."""
    if interval is None or interval.low is None or interval.high is None:
        return None
    return interval.low, interval.high


def passes_threshold(metric: Metric, value: float | None) -> bool:
    """Report whether a value reaches the threshold of a metric; an undefined value fails any threshold."""
    return metric.threshold is None or (value is not None and metric.passes(value))


def defined_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics without NaN, which MLflow rejects, as plain floats."""
    return {name: float(value) for name, value in values.items() if not math.isnan(value)}


def findings_path(table: str) -> str:
    """Return the path of the `PreparationResult` of a prepared table."""
    return f"{table.removesuffix('.parquet')}.findings.json"
