"""Fit a model, and fit its decision (calibration, threshold, prediction intervals) to out-of-sample predictions."""

import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pandas as pd
from loguru import logger

from model_name.core import dataframes, ranks
from model_name.core.decisions.calibration import CalibrationMethod, fit_decision
from model_name.core.decisions.conformal import SplitConformal
from model_name.core.decisions.decision import Costs, Decision
from model_name.core.models import FitContext, Model
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError
from model_name.io.progress import progress
from model_name.serving.bundle import CompressionReport
from model_name.training.compression import CompressionConfig, Evaluate, prune_model, report_pruning
from model_name.utils.splitters import Splitter


@dataclass(frozen=True)
class FitResult:
    """Result of a fit.

    Attributes:
        model: Fitted model as it is exported: pruned if that was configured, with its decision.
        seconds: Duration of the fit.
        pruning: Size and metrics before and after pruning; None if the model was not pruned, or in a worker process of
            torchrun.
    """

    model: Model
    seconds: float
    pruning: CompressionReport | None


@dataclass(frozen=True)
class Trainer:
    """Fits models of one table; under torchrun, in all processes together.

    Attributes:
        schema: Schema of the table.
        splitter: Splitter that holds out the rows that the decision is fitted on.
        interval: Prediction intervals of a regression; None for none.
        costs: Costs of false positives and false negatives.
        calibration: Calibration of probabilities.
        compression: Compression, of which pruning is done here.
    """

    schema: TableSchema
    splitter: Splitter
    interval: SplitConformal | None
    costs: Costs | None
    calibration: CalibrationMethod
    compression: CompressionConfig

    def fit(
        self,
        model: Model,
        train: pd.DataFrame,
        test: pd.DataFrame,
        evaluate: Evaluate,
        *,
        checkpoints: Path,
        base_model: Model | None = None,
    ) -> FitResult:
        """Fit and prune a model, and fit the decisions of the model before and after pruning.

        Args:
            model: Unfitted model.
            train: Training part.
            test: Held-out rows, on which the cost of pruning is measured.
            evaluate: Metrics of the outputs for the held-out rows.
            checkpoints: Directory that a run of the same recipe on the same rows uses again; deleted after the fit.
            base_model: Model whose weights the fit starts from.

        Raises:
            DataError: Costs or a calibration are configured, and the training part is too small to be split.
            ConfigError: Costs or a calibration are configured, and the fit starts from earlier weights.
            PreemptedError: SIGTERM was received; the next fit with these checkpoints continues.
        """
        seconds = self._fit(model, train, FitContext(checkpoints=checkpoints, warm_start=base_model))
        pruned = prune_model(model, self.compression)
        if base_model is not None:
            decisions = self._inherited_decisions(base_model)
        else:
            decisions = self._fit_decisions(model, train, checkpoints / "copy")
        for candidate, decision in zip((model, pruned), decisions, strict=True):
            candidate.set_decision(decision)
        pruning = None
        if ranks.is_main_process():
            shutil.rmtree(checkpoints, ignore_errors=True)
            pruning = report_pruning(model, pruned, test, evaluate, self.compression)
        return FitResult(pruned, seconds, pruning)

    def _fit(self, model: Model, train: pd.DataFrame, context: FitContext) -> float:
        """Fit a model with progress on the console, and return the duration in seconds."""
        checkpoints = context.checkpoints
        if checkpoints and checkpoints.is_dir() and any(entry.is_file() for entry in checkpoints.iterdir()):
            logger.info("{}: an earlier fit was interrupted; continuing from its last complete checkpoint", checkpoints)
        logger.info("training {} on {:,} rows", model.KIND, len(train))
        start = time.monotonic()
        with progress(f"training {model.KIND}") if ranks.is_main_process() else nullcontext(context.progress) as report:
            model.fit(
                self.schema,
                train,
                replace(context, progress=report, has_time_order=dataframes.is_time_sorted(train, self.schema)),
            )
        seconds = time.monotonic() - start
        logger.info("fitted {} on {:,} rows in {:.1f} s", model.KIND, len(train), seconds)
        return round(seconds, 3)

    def _fit_decisions(self, model: Model, train: pd.DataFrame, checkpoints: Path) -> tuple[Decision, Decision]:
        """Fit the decisions of a model before and after pruning to out-of-sample predictions of a copy."""
        has_intervals = self.schema.target.task == "regression" and self.interval is not None
        is_required = self.costs is not None or self.calibration != "none"
        if not has_intervals and not is_required:
            return Decision(), Decision()
        try:
            older, newer = self.splitter.split(train, self.schema)
            copy = model.with_params()
            logger.info("fitting a copy on {:,} rows, to measure its errors on the other {:,}", len(older), len(newer))
            self._fit(copy, train.iloc[older], FitContext(checkpoints=checkpoints))
        except DataError as err:
            if is_required:
                raise DataError(f"costs and calibration need a training part to split: {err.message}") from err
            logger.warning("no prediction intervals: {}", err.message)
            return Decision(), Decision()
        unseen = train.iloc[newer]
        pruned = prune_model(copy, self.compression)
        decision = self._fit_decision(pruned, unseen)
        return (decision if pruned is copy else self._fit_decision(copy, unseen)), decision

    def _inherited_decisions(self, base_model: Model) -> tuple[Decision, Decision]:
        """Return the decision of the base model for the model before and after pruning.

        A new decision would need rows that the weights were not trained on, which a warm start does not have.

        Raises:
            ConfigError: Costs or a calibration are configured, which need unseen rows.
        """
        if self.costs is not None or self.calibration != "none":
            hint = "leave job.warm_start out, or job.costs and job.calibration"
            raise ConfigError("costs and calibration are found by a fit from scratch, not by a warm start", hint=hint)
        logger.info("the prediction intervals are those of the version that the fit started from")
        return base_model.decision, base_model.decision

    def _fit_decision(self, copy: Model, unseen: pd.DataFrame) -> Decision:
        targets, outputs = unseen[self.schema.target.name].to_numpy(), copy.outputs(unseen)
        return fit_decision(targets, outputs, interval=self.interval, costs=self.costs, calibration=self.calibration)


def run_worker(fit: Callable[[], object]) -> NoReturn:
    """Run the fit in a worker process of torchrun, and exit with code 0.

    Only the main process logs, reports and registers, so a worker is silent.
    """
    logger.disable("model_name")
    fit()
    raise SystemExit(0)
