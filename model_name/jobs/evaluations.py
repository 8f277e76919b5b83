"""Evaluate a version on held-out rows: against thresholds, by slice, against the champion and two reference models."""

from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
from loguru import logger
from pydantic import Field
from typing_extensions import override

from model_name.core.evaluation.bootstrap import (
    MIN_RESAMPLES,
    Difference,
    Interval,
    Resampler,
    paired_difference,
    percentile_interval,
)
from model_name.core.evaluation.curves import calibration_error, curves, interval_coverages
from model_name.core.evaluation.learning_curve import RELATIVE_COST, LearningPoint, learning_curve
from model_name.core.evaluation.slices import WorstSlice, worst_slices
from model_name.core.evaluation.weighted_metrics import weighted_metric
from model_name.core.metrics import Scores, row_losses, score_all
from model_name.core.models import BoostedTrees, ConstantModel, Model
from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import label_text
from model_name.core.schemas.strict_models import LaxTuple
from model_name.core.versions import CHAMPION, LATEST, Ref
from model_name.errors import ConfigError, DataError, NotFoundError
from model_name.io.registries import Version
from model_name.jobs.base import Job, TrainTestSplit
from model_name.results import (
    CONSTANT,
    EVALUATION_FILE,
    FIT_SECONDS_METRIC,
    Champion,
    EvaluationResult,
    Slice,
    Threshold,
    passes_threshold,
)

MISSING = "missing"  # value of the slice whose rows have no value in the column


class EvaluationsJob(Job):
    """Evaluate a version; the gate decides by the result.

    Attributes:
        ref: Version to evaluate: an alias, a number, a semantic version or `latest`.
        slices: Columns each of whose values is evaluated separately.
        min_slice_rows: Minimum number of rows of a slice, for configured slices and for those that the search finds.
        max_slices: Maximum number of evaluated values of a column, the most frequent first.
        resamples: Number of bootstrap resamples for the intervals; fewer are drawn if there are many rows.
        learning_curve_seconds: Time limit for the fits of the learning curve, estimated from the version's own fit; 0
            disables the curve.
    """

    KIND: Literal["EvaluationsJob"] = "EvaluationsJob"
    ref: Ref = LATEST
    slices: LaxTuple[str] = ()
    min_slice_rows: int = Field(30, gt=0)
    max_slices: int = Field(20, gt=0)
    resamples: int = Field(500, ge=MIN_RESAMPLES)
    learning_curve_seconds: float = Field(60, ge=0)

    @override
    def run(self) -> EvaluationResult:
        """Evaluate the version and log the result to its run.

        Raises:
            ConfigError: A metric does not fit the task, or a slice is not a column.
            DataError: The table does not fit its schema.
            NotFoundError: The version does not exist.
        """
        metrics = self.resolved_metrics
        self._check_slices()
        version = self.registry.resolve(self.ref)
        split = self.read_split()
        model = self.registry.load(version.version)
        outputs = model.outputs(split.test)
        champion, champion_outputs = self._champion(version, split)
        references = self._references(split)
        others = ({CHAMPION: champion_outputs} if champion_outputs else {}) | references
        intervals, differences, resampled = self._bootstrap(split.test, outputs, others)
        learning, skipped = self._learning_curve(version, model, split)
        result = EvaluationResult(
            version=version.version,
            semver=version.semver,
            rows=len(split.test),
            measures=metrics,
            metrics=self._scores(split.test, outputs),
            intervals=intervals,
            resampled=resampled,
            references={name: self._scores(split.test, reference) for name, reference in references.items()},
            champion=champion,
            differences=differences,
            slices=tuple(self._slices(split.test, outputs, champion_outputs)),
            worst_slices=self._worst_slices(split.test, outputs),
            learning=learning,
            learning_skipped=skipped,
            **self._curves(model, split.test, outputs),
        )
        with self.mlflow.run("evaluate", experiment=self.name, run_id=version.run_id):
            mlflow.log_metrics({f"eval_{name}": value for name, value in result.metrics.items() if value is not None})
            mlflow.log_dict(result.model_dump(mode="json"), EVALUATION_FILE)
        self._notify(version, result)
        return result

    def _check_slices(self) -> None:
        for name in self.slices:
            column = self.schema_.columns.get(name)
            if column is None or column.kind not in {"category", "boolean"}:
                raise ConfigError(f"job.slices: {name} is not a category or boolean column of {self.schema_.name}")

    def _scores(self, table: pd.DataFrame, outputs: Outputs) -> dict[str, float | None]:
        scores: Scores = score_all(self.resolved_metrics, self._targets(table), outputs)
        return {name: value if np.isfinite(value) else None for name, value in scores.items()}

    def _references(self, split: TrainTestSplit) -> dict[str, Outputs]:
        references: dict[str, Model] = {
            CONSTANT: ConstantModel(),
            "default trees": BoostedTrees(random_state=self.seed),
        }
        return {name: model.fit(self.schema_, split.train).outputs(split.test) for name, model in references.items()}

    def _champion(self, version: Version, split: TrainTestSplit) -> tuple[Champion | None, Outputs | None]:
        champion = self.registry.find_version(CHAMPION)
        if champion is None or champion.version == version.version:
            return None, None
        try:
            outputs = self.registry.load(champion.version).outputs(split.test)
            metrics = self._scores(split.test, outputs)
        except (DataError, NotFoundError, KeyError) as err:
            # A champion with another schema or with deleted files is recorded; it does not stop the evaluation.
            logger.warning("the champion {} cannot be compared: {}", champion.semver, err)
            return Champion(version=champion.version, semver=champion.semver, problem=str(err)), None
        return Champion(version=champion.version, semver=champion.semver, metrics=metrics), outputs

    def _slices(self, table: pd.DataFrame, outputs: Outputs, champion: Outputs | None) -> list[Slice]:
        slices = []
        for column in self.slices:
            is_boolean = self.schema_.columns[column].kind == "boolean"
            values = table[column].map(bool, na_action="ignore") if is_boolean else table[column]
            counts = values.value_counts(dropna=False)
            for value in counts[counts >= self.min_slice_rows].index[: self.max_slices]:
                rows = np.flatnonzero(values.isna() if pd.isna(value) else values == value)
                part = table.iloc[rows]
                slices.append(
                    Slice(
                        column=column,
                        value=MISSING if pd.isna(value) else label_text(value),
                        rows=len(rows),
                        metrics=self._scores(part, outputs.take(rows)),
                        champion=self._scores(part, champion.take(rows)) if champion else {},
                    )
                )
        return slices

    def _bootstrap(
        self, table: pd.DataFrame, outputs: Outputs, others: dict[str, Outputs]
    ) -> tuple[dict[str, Interval], tuple[Difference, ...], str]:
        """Return intervals of the metrics, differences to the other models, and a description of the resampling.

        All statistics are computed on the same resamples, so that variation common to all models cancels in the
        differences.
        """
        metrics, targets, resampler = self.resolved_metrics, self._targets(table), self._resampler(table)
        deciding = metrics[0]
        own_statistics = [weighted_metric(metric, targets, outputs) for metric in metrics]
        other_statistics = [weighted_metric(deciding, targets, other) for other in others.values()]
        samples = resampler.resample([*own_statistics, *other_statistics])
        value = self._scores(table, outputs)[deciding.name]
        differences = (
            paired_difference(
                name, deciding.name, (value, self._scores(table, other)[deciding.name]), samples[:, 0] - other_samples
            )
            for (name, other), other_samples in zip(others.items(), samples[:, len(metrics) :].T, strict=True)
        )
        intervals = {metric.name: percentile_interval(samples[:, column]) for column, metric in enumerate(metrics)}
        return intervals, tuple(differences), resampler.description

    def _worst_slices(self, table: pd.DataFrame, outputs: Outputs) -> tuple[WorstSlice, ...]:
        losses, resampler = row_losses(self._targets(table), outputs), self._resampler(table)
        blocks = resampler.block_of if resampler.unit == "days" else None
        return tuple(
            WorstSlice(
                words=candidate.description,
                rows=len(candidate.rows),
                metrics=self._scores(table.iloc[candidate.rows], outputs.take(candidate.rows)),
                share=float(losses[candidate.rows].sum() / losses.sum()),
                ratio=float(losses[candidate.rows].mean() / losses.mean()),
            )
            for candidate in worst_slices(table, self.schema_, losses, min_rows=self.min_slice_rows, blocks=blocks)
        )

    def _curves(self, model: Model, table: pd.DataFrame, outputs: Outputs) -> dict[str, Any]:
        """Compute the curves, the calibration errors and the cost of the threshold, as fields of the result."""
        targets, decision = self._targets(table), model.decision
        coverage = interval_coverages(decision.intervals, outputs.prediction, targets) if decision.intervals else ()
        points = curves(targets, outputs, moments=self._moments(table), coverage=coverage, seed=self.seed)
        fields: dict[str, Any] = {"curves": points, "calibration_error": calibration_error(points.calibration)}
        if decision.calibrator is not None:
            uncalibrated = curves(targets, model.raw_outputs(table)).calibration
            fields["calibration_error_before"] = calibration_error(uncalibrated)
        if decision.threshold is not None and decision.costs is not None and outputs.probabilities is not None:
            is_positive, positive = targets == outputs.classes[1], outputs.probabilities[:, 1]
            fields["threshold"] = Threshold(
                value=decision.threshold,
                cost=decision.costs.mean_cost(is_positive, positive >= decision.threshold),
                cost_at_half=decision.costs.mean_cost(is_positive, positive >= 0.5),
                costs=decision.costs,
            )
        return fields

    def _learning_curve(
        self, version: Version, model: Model, split: TrainTestSplit
    ) -> tuple[tuple[LearningPoint, ...], str]:
        """Compute the learning curve, or return the reason why there is none."""
        if not self.learning_curve_seconds:
            return (), "job.learning_curve_seconds is 0"
        run = mlflow.get_run(version.run_id).data
        if "warm_start" in run.params:
            return (
                (),
                "its fit began from the weights of an earlier version, which was trained on more rows than a point has",
            )
        fit_seconds = run.metrics.get(FIT_SECONDS_METRIC)
        if fit_seconds is None:
            return (), "the duration of its fit is not in the version's run"
        if fit_seconds * RELATIVE_COST > self.learning_curve_seconds:
            return (), (
                f"it would take about {fit_seconds * RELATIVE_COST:.0f} s, "
                f"more than job.learning_curve_seconds ({self.learning_curve_seconds:g})"
            )
        deciding = self.resolved_metrics[0].name

        def score(outputs: Outputs) -> float | None:
            return self._scores(split.test, outputs)[deciding]

        return learning_curve(model, self.schema_, split.train, split.test, score), ""

    def _resampler(self, table: pd.DataFrame) -> Resampler:
        return Resampler.for_rows(len(table), self._moments(table), resamples=self.resamples, seed=self.seed)

    def _targets(self, table: pd.DataFrame) -> np.ndarray:
        return table[self.schema_.target.name].to_numpy()

    def _moments(self, table: pd.DataFrame) -> np.ndarray | None:
        return None if self.schema_.time is None else table[self.schema_.time].to_numpy()

    def _notify(self, version: Version, result: EvaluationResult) -> None:
        failed = [
            metric.name for metric in result.measures if not passes_threshold(metric, result.metrics[metric.name])
        ]
        scores = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items() if value is not None)
        has_thresholds = any(metric.threshold is not None for metric in result.measures)
        reached = "every threshold reached" if has_thresholds else "no threshold is configured"
        verdict = f"below the threshold in {', '.join(failed)}" if failed else reached
        self.alerts.notify("evaluated", f"{version.title}: {scores}; {verdict}")
