"""Fit a model, and find on rows that it has not seen what its scores are decided by."""

import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from loguru import logger

from model_name.core import dataframes, ranks
from model_name.core.decisions.calibration import Calibration, decision
from model_name.core.decisions.conformal import Conformal
from model_name.core.decisions.decision import Costs, Decision
from model_name.core.models import FitContext, Model
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError
from model_name.io.progress import progress
from model_name.training.compression import Export
from model_name.utils.splitters import Splitter


@dataclass(frozen=True)
class Learnt:
    """What came of a fit.

    Attributes:
        model: The fitted model as it is exported.
        whole: The same before it was pruned.
        seconds: How long the fit took.
    """

    model: Model
    whole: Model
    seconds: float


@dataclass(frozen=True)
class Fitter:
    """How models are fitted.

    Attributes:
        schema: What the table is.
        splitter: Sets rows aside that a copy of the model does not see.
        interval: Which prediction intervals a regression is given.
        costs: What wrong answers cost.
        calibration: How probabilities are made to mean what they say.
        export: How much is pruned.
    """

    schema: TableSchema
    splitter: Splitter
    interval: Conformal | None
    costs: Costs | None
    calibration: Calibration
    export: Export

    def learn(self, model: Model, train: pd.DataFrame, checkpoints: Path, earlier: Model | None) -> Learnt:
        """Fit a model, prune it, and find what the scores of both are decided by.

        Args:
            model: Unfitted.
            train: The training part.
            checkpoints: A folder that a run of the same recipe on the same rows finds; gone in the end.
            earlier: The model whose weights the fit begins from.

        Raises:
            DataError: Costs or a calibration are asked for, and the training part is too small for that.
            ConfigError: They are asked for, and the fit begins from earlier weights.
            PreemptedError: SIGTERM; the next fit with these checkpoints goes on.
        """
        seconds = self._fit(model, train, FitContext(checkpoints=checkpoints, warm_start=earlier))
        pruned = self.export.pruned(model)
        if earlier is not None:
            decisions = self._decisions_of(earlier)
        else:
            decisions = self._decisions(model, train, checkpoints / "copy")
        for one, decided in zip((model, pruned), decisions, strict=True):
            one.decide_by(decided)
        if ranks.is_first():
            shutil.rmtree(checkpoints, ignore_errors=True)
        return Learnt(pruned, model, seconds)

    def _fit(self, model: Model, train: pd.DataFrame, context: FitContext) -> float:
        checkpoints = context.checkpoints
        if checkpoints and checkpoints.is_dir() and any(entry.is_file() for entry in checkpoints.iterdir()):
            logger.info("{}: an earlier fit was interrupted; going on behind its last whole checkpoint", checkpoints)
        logger.info("training {} on {:,} rows", model.KIND, len(train))
        start = time.monotonic()
        with progress(f"training {model.KIND}") if ranks.is_first() else nullcontext(context.progress) as report:
            model.fit(
                self.schema,
                train,
                replace(context, progress=report, has_time_order=dataframes.is_in_order(train, self.schema)),
            )
        seconds = time.monotonic() - start
        logger.info("fitted {} on {:,} rows in {:.1f} s", model.KIND, len(train), seconds)
        return round(seconds, 3)

    def _decisions(self, model: Model, train: pd.DataFrame, checkpoints: Path) -> tuple[Decision, Decision]:
        """What the scores of a model are decided by, and those of the pruned one; found by a copy of it."""
        wants_intervals = self.schema.target.task == "regression" and self.interval is not None
        is_asked = self.costs is not None or self.calibration != "none"
        if not wants_intervals and not is_asked:
            return Decision(), Decision()
        try:
            older, newer = self.splitter.split(train, self.schema)
            copy = model.with_params()
            logger.info("fitting a copy on {:,} rows, to see how it errs on the other {:,}", len(older), len(newer))
            self._fit(copy, train.iloc[older], FitContext(checkpoints=checkpoints))
        except DataError as err:
            if is_asked:
                raise DataError(f"costs and calibration need a training part to split: {err.message}") from err
            logger.warning("no prediction intervals: {}", err.message)
            return Decision(), Decision()
        unseen = train.iloc[newer]
        pruned = self.export.pruned(copy)
        found = self._decision(pruned, unseen)
        return (found if pruned is copy else self._decision(copy, unseen)), found

    def _decisions_of(self, earlier: Model) -> tuple[Decision, Decision]:
        """Those of the version that the fit began from: its weights have seen the rows that a copy must not see.

        Raises:
            ConfigError: Costs or a calibration are asked for, which need such rows.
        """
        if self.costs is not None or self.calibration != "none":
            hint = "leave job.warm_start out, or job.costs and job.calibration"
            raise ConfigError("costs and calibration are found by a fit from scratch, not by a warm start", hint=hint)
        logger.info("the prediction intervals are those of the version that the fit began from")
        return earlier.decision, earlier.decision

    def _decision(self, copy: Model, unseen: pd.DataFrame) -> Decision:
        targets, outputs = unseen[self.schema.target.name].to_numpy(), copy.outputs(unseen)
        return decision(targets, outputs, interval=self.interval, costs=self.costs, calibration=self.calibration)
