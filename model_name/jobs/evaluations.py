"""Measure a version on held-out rows: against thresholds, slice by slice, the champion and two references."""

from typing import Literal

import mlflow
import numpy as np
import pandas as pd
from loguru import logger
from pydantic import Field

from model_name.core.columns import label_text
from model_name.core.documents import Frozen, Many
from model_name.core.metrics import Metric, Scores, score_all
from model_name.core.models import BoostedTrees, ConstantModel, Model
from model_name.core.schemas import Outputs
from model_name.core.versions import CHAMPION, LATEST
from model_name.errors import ConfigError, DataError, NotFoundError
from model_name.io.registries import Version
from model_name.jobs.base import Job, Parts, Result

EVALUATION = "evaluation.json"
CONSTANT = "constant"


class Slice(Frozen):
    """The rows where a column has one value.

    Attributes:
        column: The column.
        value: Its value.
        rows: How many held-out rows have it.
        metrics: What the version scores on them.
        champion: What the champion scores on them.
    """

    column: str
    value: str
    rows: int
    metrics: dict[str, float | None]
    champion: dict[str, float | None] = {}


class Champion(Frozen):
    """The version that is in charge, on the same rows.

    Attributes:
        version: Its number.
        semver: Its semantic version.
        metrics: What it scores.
        problem: Why it could not be compared, if it could not.
    """

    version: str
    semver: str
    metrics: dict[str, float | None] = {}
    problem: str = ""


class EvaluationResult(Result):
    """What a version is worth.

    Attributes:
        version: Its number.
        semver: Its semantic version.
        rows: How many held-out rows it was measured on.
        measures: What was measured, with thresholds.
        metrics: What it scores; None where a metric is not defined on the rows.
        references: What a constant and default boosted trees score, fitted on the same training part.
        champion: The version in charge; None where there is none, or this is it.
        slices: The configured slices.
    """

    version: str
    semver: str
    rows: int
    measures: Many[Metric]
    metrics: dict[str, float | None]
    references: dict[str, dict[str, float | None]]
    champion: Champion | None
    slices: Many[Slice]


class EvaluationsJob(Job):
    """Measure a version; the promotion decides on what is found here.

    Attributes:
        ref: Which version: an alias, a number, a semantic version or `latest`.
        slices: Columns whose values are measured one by one.
        min_slice_rows: Rows that a slice needs to be measured.
        max_slices: The most values of a column, the most frequent first.
    """

    KIND: Literal["EvaluationsJob"] = "EvaluationsJob"
    ref: str = LATEST
    slices: Many[str] = ()
    min_slice_rows: int = Field(30, gt=0)
    max_slices: int = Field(20, gt=0)

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
        outputs = self.registry.load(version.version).outputs(parts.test)
        champion, champion_outputs = self._champion(version, parts)
        result = EvaluationResult(
            version=version.version,
            semver=version.semver,
            rows=len(parts.test),
            measures=metrics,
            metrics=self._scores(parts.test, outputs),
            references=self._references(parts),
            champion=champion,
            slices=tuple(self._slices(parts.test, outputs, champion_outputs)),
        )
        with self.mlflow.run("evaluate", experiment=self.name, run_id=version.run_id):
            mlflow.log_metrics({f"eval_{name}": value for name, value in result.metrics.items() if value is not None})
            mlflow.log_dict(result.model_dump(mode="json"), EVALUATION)
        self._tell(version, result)
        return result

    def _check_slices(self) -> None:
        for name in self.slices:
            column = self.schema_.columns.get(name)
            if column is None or column.kind not in {"category", "boolean"}:
                raise ConfigError(f"job.slices: {name} is not a category or boolean column of {self.schema_.name}")

    def _scores(self, table: pd.DataFrame, outputs: Outputs) -> dict[str, float | None]:
        scores: Scores = score_all(self.measures, table[self.schema_.target.name].to_numpy(), outputs)
        return {name: value if np.isfinite(value) else None for name, value in scores.items()}

    def _references(self, parts: Parts) -> dict[str, dict[str, float | None]]:
        references: dict[str, Model] = {
            CONSTANT: ConstantModel(),
            "default trees": BoostedTrees(random_state=self.seed),
        }
        return {
            name: self._scores(parts.test, model.fit(self.schema_, parts.train).outputs(parts.test))
            for name, model in references.items()
        }

    def _champion(self, version: Version, parts: Parts) -> tuple[Champion | None, Outputs | None]:
        found = self.registry.find(CHAMPION)
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
            counts = table[column].value_counts()
            for value in counts[counts >= self.min_slice_rows].index[: self.max_slices]:
                rows = np.flatnonzero(table[column].to_numpy() == value)
                part = table.iloc[rows]
                found.append(
                    Slice(
                        column=column,
                        value=label_text(value),
                        rows=len(rows),
                        metrics=self._scores(part, take(outputs, rows)),
                        champion=self._scores(part, take(champion, rows)) if champion else {},
                    )
                )
        return found

    def _tell(self, version: Version, result: EvaluationResult) -> None:
        failed = [metric.name for metric in result.measures if not passes(metric, result.metrics[metric.name])]
        words = ", ".join(f"{name} {value:.4g}" for name, value in result.metrics.items() if value is not None)
        has_thresholds = any(metric.threshold is not None for metric in result.measures)
        reached = "every threshold reached" if has_thresholds else "no threshold is configured"
        verdict = f"below the threshold in {', '.join(failed)}" if failed else reached
        self.alerts.notify("evaluated", f"{version.title}: {words}; {verdict}")


def passes(metric: Metric, value: float | None) -> bool:
    """Whether a value reaches the threshold; one that is not defined does not, where there is a threshold."""
    return metric.threshold is None or (value is not None and metric.passes(value))


def take(outputs: Outputs, rows: np.ndarray) -> Outputs:
    """Some rows of an answer."""
    probabilities = None if outputs.probabilities is None else outputs.probabilities[rows]
    return Outputs(outputs.prediction[rows], probabilities, outputs.classes)
