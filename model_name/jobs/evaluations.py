"""Measure a version on held-out rows: against thresholds, slice by slice, the champion and two references."""

from typing import Any, Literal

import mlflow
import numpy as np
import pandas as pd
from loguru import logger
from pydantic import Field

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
from model_name.jobs.base import Job, Parts
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

MISSING = "missing"  # a slice of the rows where nothing is known


class EvaluationsJob(Job):
    """Measure a version; the promotion decides on what is found here.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        slices: Columns whose values are measured one by one.
        min_slice_rows: Rows that a slice needs to be measured, or to be found.
        max_slices: The most values of a column, the most frequent first.
        resamples: How often the held-out rows are drawn anew for the intervals; less often where they are many.
        learning_curve_seconds: How long the fits of the learning curve may take, judged by the version's own; 0
            switches it off.
    """

    KIND: Literal["EvaluationsJob"] = "EvaluationsJob"
    ref: Ref = LATEST
    slices: LaxTuple[str] = ()
    min_slice_rows: int = Field(30, gt=0)
    max_slices: int = Field(20, gt=0)
    resamples: int = Field(500, ge=MIN_RESAMPLES)
    learning_curve_seconds: float = Field(60, ge=0)

    def run(self) -> EvaluationResult:
        """As of `Job`.

        Raises:
            ConfigError: A metric does not fit the task, or a slice is not a column.
            DataError: The table does not fit its schema.
            NotFoundError: There is no such version.
        """
        metrics = self.measures
        self._check_slices()
        version = self.registry.resolve(self.ref)
        parts = self.read_parts()
        model = self.registry.load(version.version)
        outputs = model.outputs(parts.test)
        champion, champion_outputs = self._champion(version, parts)
        references = self._references(parts)
        others = ({CHAMPION: champion_outputs} if champion_outputs else {}) | references
        intervals, differences, resampled = self._uncertainty(parts.test, outputs, others)
        learning, skipped = self._learning(version, model, parts)
        result = EvaluationResult(
            version=version.version,
            semver=version.semver,
            rows=len(parts.test),
            measures=metrics,
            metrics=self._scores(parts.test, outputs),
            intervals=intervals,
            resampled=resampled,
            references={who: self._scores(parts.test, theirs) for who, theirs in references.items()},
            champion=champion,
            differences=differences,
            slices=tuple(self._slices(parts.test, outputs, champion_outputs)),
            worst_slices=self._worst_slices(parts.test, outputs),
            learning=learning,
            learning_skipped=skipped,
            **self._appearance(model, parts.test, outputs),
        )
        with self.mlflow.run("evaluate", experiment=self.name, run_id=version.run_id):
            mlflow.log_metrics({f"eval_{name}": value for name, value in result.metrics.items() if value is not None})
            mlflow.log_dict(result.model_dump(mode="json"), EVALUATION_FILE)
        self._tell(version, result)
        return result

    def _check_slices(self) -> None:
        for name in self.slices:
            column = self.schema_.columns.get(name)
            if column is None or column.kind not in {"category", "boolean"}:
                raise ConfigError(f"job.slices: {name} is not a category or boolean column of {self.schema_.name}")

    def _scores(self, table: pd.DataFrame, outputs: Outputs) -> dict[str, float | None]:
        scores: Scores = score_all(self.measures, self._targets(table), outputs)
        return {name: value if np.isfinite(value) else None for name, value in scores.items()}

    def _references(self, parts: Parts) -> dict[str, Outputs]:
        references: dict[str, Model] = {
            CONSTANT: ConstantModel(),
            "default trees": BoostedTrees(random_state=self.seed),
        }
        return {name: model.fit(self.schema_, parts.train).outputs(parts.test) for name, model in references.items()}

    def _champion(self, version: Version, parts: Parts) -> tuple[Champion | None, Outputs | None]:
        found = self.registry.find_version(CHAMPION)
        if found is None or found.version == version.version:
            return None, None
        try:
            outputs = self.registry.load(found.version).outputs(parts.test)
            metrics = self._scores(parts.test, outputs)
        except (DataError, NotFoundError, KeyError) as err:
            # Its schema is another one, or its files are gone: that is a finding, not the end of the evaluation.
            logger.warning("the champion {} cannot be compared: {}", found.semver, err)
            return Champion(version=found.version, semver=found.semver, problem=str(err)), None
        return Champion(version=found.version, semver=found.semver, metrics=metrics), outputs

    def _slices(self, table: pd.DataFrame, outputs: Outputs, champion: Outputs | None) -> list[Slice]:
        found = []
        for column in self.slices:
            is_boolean = self.schema_.columns[column].kind == "boolean"
            values = table[column].map(bool, na_action="ignore") if is_boolean else table[column]
            counts = values.value_counts(dropna=False)
            for value in counts[counts >= self.min_slice_rows].index[: self.max_slices]:
                rows = np.flatnonzero(values.isna() if pd.isna(value) else values == value)
                part = table.iloc[rows]
                found.append(
                    Slice(
                        column=column,
                        value=MISSING if pd.isna(value) else label_text(value),
                        rows=len(rows),
                        metrics=self._scores(part, outputs.take(rows)),
                        champion=self._scores(part, champion.take(rows)) if champion else {},
                    )
                )
        return found

    def _uncertainty(
        self, table: pd.DataFrame, outputs: Outputs, others: dict[str, Outputs]
    ) -> tuple[dict[str, Interval], tuple[Difference, ...], str]:
        """How far the metrics could be off, and the deciding one's distance to the other models; all in one draw."""
        targets, deciding, resampler = self._targets(table), self.measures[0], self._resampler(table)
        mine = [weighted_metric(metric, targets, outputs) for metric in self.measures]
        drawn = resampler.resample([*mine, *(weighted_metric(deciding, targets, other) for other in others.values())])
        value = self._scores(table, outputs)[deciding.name]
        differences = (
            paired_difference(
                who, deciding.name, (value, self._scores(table, other)[deciding.name]), drawn[:, 0] - resampled
            )
            for (who, other), resampled in zip(others.items(), drawn[:, len(mine) :].T, strict=True)
        )
        intervals = {metric.name: percentile_interval(drawn[:, place]) for place, metric in enumerate(self.measures)}
        return intervals, tuple(differences), resampler.description

    def _worst_slices(self, table: pd.DataFrame, outputs: Outputs) -> tuple[WorstSlice, ...]:
        losses, resampler = row_losses(self._targets(table), outputs), self._resampler(table)
        blocks = resampler.block_of if resampler.unit == "days" else None
        return tuple(
            WorstSlice(
                words=found.words,
                rows=len(found.rows),
                metrics=self._scores(table.iloc[found.rows], outputs.take(found.rows)),
                share=float(losses[found.rows].sum() / losses.sum()),
                ratio=float(losses[found.rows].mean() / losses.mean()),
            )
            for found in worst_slices(table, self.schema_, losses, min_rows=self.min_slice_rows, blocks=blocks)
        )

    def _appearance(self, model: Model, table: pd.DataFrame, outputs: Outputs) -> dict[str, Any]:
        """The curves, the calibration and the threshold, as fields of the result."""
        targets, decision = self._targets(table), model.decision
        covered = interval_coverages(decision.intervals, outputs.prediction, targets) if decision.intervals else ()
        drawn = curves(targets, outputs, moments=self._moments(table), coverage=covered, seed=self.seed)
        found: dict[str, Any] = {"curves": drawn, "calibration_error": calibration_error(drawn.calibration)}
        if decision.calibrator is not None:
            before = curves(targets, model.raw_outputs(table)).calibration
            found["calibration_error_before"] = calibration_error(before)
        if decision.threshold is not None and decision.costs is not None and outputs.probabilities is not None:
            is_positive, positive = targets == outputs.classes[1], outputs.probabilities[:, 1]
            at = [decision.costs.mean_cost(is_positive, positive >= place) for place in (decision.threshold, 0.5)]
            found["threshold"] = Threshold(
                value=decision.threshold, cost=at[0], cost_at_half=at[1], costs=decision.costs
            )
        return found

    def _learning(self, version: Version, model: Model, parts: Parts) -> tuple[tuple[LearningPoint, ...], str]:
        """The learning curve, or why there is none."""
        if not self.learning_curve_seconds:
            return (), "job.learning_curve_seconds is 0"
        run = mlflow.get_run(version.run_id).data
        if "warm_start" in run.params:
            return (
                (),
                "its fit began from the weights of an earlier version, which has seen more rows than a share of them",
            )
        took = run.metrics.get(FIT_SECONDS_METRIC)
        if took is None:
            return (), "the version's run does not say how long its fit took"
        if took * RELATIVE_COST > self.learning_curve_seconds:
            return (), (
                f"it would take about {took * RELATIVE_COST:.0f} s, "
                f"more than job.learning_curve_seconds ({self.learning_curve_seconds:g})"
            )
        deciding = self.measures[0].name

        def score(outputs: Outputs) -> float | None:
            return self._scores(parts.test, outputs)[deciding]

        return learning_curve(model, self.schema_, parts.train, parts.test, score), ""

    def _resampler(self, table: pd.DataFrame) -> Resampler:
        return Resampler.for_rows(len(table), self._moments(table), resamples=self.resamples, seed=self.seed)

    def _targets(self, table: pd.DataFrame) -> np.ndarray:
        return table[self.schema_.target.name].to_numpy()

    def _moments(self, table: pd.DataFrame) -> np.ndarray | None:
        return None if self.schema_.time is None else table[self.schema_.time].to_numpy()

    def _tell(self, version: Version, result: EvaluationResult) -> None:
        failed = [
            metric.name for metric in result.measures if not passes_threshold(metric, result.metrics[metric.name])
        ]
        words = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items() if value is not None)
        has_thresholds = any(metric.threshold is not None for metric in result.measures)
        reached = "every threshold reached" if has_thresholds else "no threshold is configured"
        verdict = f"below the threshold in {', '.join(failed)}" if failed else reached
        self.alerts.notify("evaluated", f"{version.title}: {words}; {verdict}")
