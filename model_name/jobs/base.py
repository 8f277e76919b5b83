"""What every job is: a config with `run()`, and services that are up while it does."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Literal, Self

import pandas as pd
from loguru import logger
from pydantic import Field, PrivateAttr

from model_name.core import dataframes, ranks
from model_name.core.metrics import Metric, default_metrics
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel, LaxTuple
from model_name.core.schemas.validation import CheckReport
from model_name.io import signals
from model_name.io.datasets import ReaderKind
from model_name.io.prepared_tables import read_prepared, schema_fingerprint
from model_name.io.services import AlertsService, LoggerService, MlflowService
from model_name.results import Result
from model_name.utils.splitters import RandomSplitter, Splitter, SplitterKind, TimeSplitter

if TYPE_CHECKING:
    from model_name.io.registries import Registry


__all__ = ["SHOWN_HASH", "Job", "Parts", "Result"]

SHOWN_SCHEMA_HASH = 8  # characters of a schema fingerprint in the log
SHOWN_HASH = 16  # letters of a fingerprint that names a file


@dataclass(frozen=True)
class Parts:
    """A checked table, split."""

    train: pd.DataFrame
    test: pd.DataFrame
    report: CheckReport


class Job(FrozenModel, ABC):
    """A job about one table.

    Attributes:
        name: The registered model, and the experiment.
        schema_: What the table is (`schema` in a config; a path is read into its place).
        table: Where the table is.
        splitter: How rows are held out: by time where the schema has a time column, else at random.
        metrics: What is measured; the first one decides. By default those of the task.
        seed: Of everything random.
        audit: Where the audit trail lies.
        build: Where files are made: prepared tables, bundles, checkpoints, reports.
        plugins: Modules to import first, for model kinds of one's own.
        logger: The log.
        alerts: Who is told.
        mlflow: Where runs and versions are kept.
    """

    KIND: str
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    schema_: TableSchema = Field(alias="schema")
    table: ReaderKind
    splitter: Annotated[SplitterKind, Field(discriminator="KIND")] | None = None
    metrics: LaxTuple[Metric] = ()
    seed: int = 42
    audit: str = "audit"
    build: str = "build"
    plugins: LaxTuple[str] = ()
    logger: LoggerService = LoggerService()
    alerts: AlertsService = AlertsService()
    mlflow: MlflowService = MlflowService()

    _services: ExitStack = PrivateAttr(default_factory=ExitStack)

    def __enter__(self) -> Self:
        """Start the services in order; if one fails, those before it are stopped."""
        with ExitStack() as stack:
            for service in (self.logger, self.alerts, *([self.mlflow] if self.needs_mlflow else [])):
                service.start()
                stack.callback(service.stop)
                logger.debug("{} started", type(service).__name__)
            self._services.push(stack.pop_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        """Stop the services in reverse; what went wrong is told and goes on."""
        signals.disarm()
        if isinstance(error, Exception) and ranks.is_main_process():  # one message a failure
            self.alerts.notify(f"{self.KIND} of {self.name} failed", f"{type(error).__name__}: {error}")
        self._services.close()
        return False

    @abstractmethod
    def run(self) -> Result:
        """Do it. The services must be up."""

    @property
    def needs_mlflow(self) -> bool:
        """Whether the store of runs must be up; importing and reaching it costs seconds."""
        return True

    @property
    def measures(self) -> tuple[Metric, ...]:
        """The metrics, or those of the task.

        Raises:
            ConfigError: One does not fit the task.
        """
        task = self.schema_.target.task
        metrics = self.metrics or default_metrics(task)
        for metric in metrics:
            metric.check_task(task)
        return metrics

    @property
    def split_by(self) -> Splitter:
        """The splitter, or the one that the schema calls for."""
        return self.splitter or (TimeSplitter() if self.schema_.time else RandomSplitter(random_state=self.seed))

    @property
    def registry(self) -> "Registry":
        """The versions of the model."""
        from model_name.io.registries import Registry

        return Registry(self.name)

    def read(self) -> dataframes.CheckedFrame:
        """Read the table, validated against the schema.

        A table that preparation wrote for the same schema is not validated a second time.

        Raises:
            DataError: The table does not fit the schema.
        """
        frame = read_prepared(self.table, self.schema_)
        if frame is None:
            return self.read_and_validate()
        logger.info(
            "{}: {:,} rows; was validated by preparation (schema {}...); not validated again",
            self.table.path,
            len(frame),
            schema_fingerprint(self.schema_)[:SHOWN_SCHEMA_HASH],
        )
        return dataframes.CheckedFrame(frame, CheckReport(rows=len(frame), kept=len(frame)))

    def read_and_validate(self) -> dataframes.CheckedFrame:
        """Read the table, add its lag columns and validate it; what validation changed is logged.

        Raises:
            DataError: The table does not fit the schema.
        """
        raw = self.table.read(self.schema_)
        checked = dataframes.check_frame(dataframes.add_lag_columns(raw, self.schema_), self.schema_)
        checked.report.notes = tuple(dataframes.lag_warnings(raw, self.schema_))
        for sentence in checked.report.messages():
            logger.warning("{}: {}", self.table.path, sentence)
        logger.info("{}: {:,} rows fit the schema {}", self.table.path, len(checked.frame), self.schema_.name)
        return checked

    def read_parts(self) -> Parts:
        """The table, checked and split.

        Raises:
            DataError: It does not fit the schema, or cannot be split.
        """
        checked = self.read()
        train, test = self.split_by.split(checked.frame, self.schema_)
        logger.info("{:,} rows to train on, {:,} held out", len(train), len(test))
        return Parts(checked.frame.iloc[train], checked.frame.iloc[test], checked.report)
