"""Base of all jobs: a config with `run()`, and services that are started while it runs."""

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


__all__ = ["FINGERPRINT_DIGITS", "Job", "Result", "TrainTestSplit"]

SCHEMA_DIGITS = 8  # hex digits of a schema fingerprint in a log line
FINGERPRINT_DIGITS = 16  # hex digits of a fingerprint in a file name


@dataclass(frozen=True)
class TrainTestSplit:
    """A validated table, split into training and held-out rows.

    Attributes:
        train: Training part.
        test: Held-out rows.
        report: Report of the validation.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    report: CheckReport


class Job(FrozenModel, ABC):
    """Job on one table. Run it inside a `with` block, which starts and stops its services.

    Attributes:
        name: Name of the registered model and of the experiment.
        schema_: Schema of the table (`schema` in a config, or the path of a schema file).
        table: Reader of the table.
        splitter: Strategy that holds out rows; by default by time if the schema has a time column, else at random.
        metrics: Metrics to compute, by default those of the task; the first one decides.
        seed: Seed of all random choices.
        audit: Folder or URL of the audit trail.
        build: Folder of the files that jobs write: prepared tables, bundles, checkpoints, reports.
        plugins: Modules to import first; they define further kinds of models.
        logger: Logging service.
        alerts: Service that sends alerts.
        mlflow: Service that connects to the MLflow tracking server and registry.
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
        """Start the services in order; if one fails, stop the ones before it."""
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
        """Stop the services in reverse order; send an alert about an error, and let the error propagate."""
        signals.disarm()
        if isinstance(error, Exception) and ranks.is_main_process():  # one alert per failure, not one per process
            self.alerts.notify(f"{self.KIND} of {self.name} failed", f"{type(error).__name__}: {error}")
        self._services.close()
        return False

    @abstractmethod
    def run(self) -> Result:
        """Run the job. The services must be started."""

    @property
    def needs_mlflow(self) -> bool:
        """Whether the job needs MLflow; importing it and connecting takes seconds."""
        return True

    @property
    def resolved_metrics(self) -> tuple[Metric, ...]:
        """Configured metrics, or the default ones of the task.

        Raises:
            ConfigError: A metric does not fit the task.
        """
        task = self.schema_.target.task
        metrics = self.metrics or default_metrics(task)
        for metric in metrics:
            metric.check_task(task)
        return metrics

    @property
    def resolved_splitter(self) -> Splitter:
        """Configured splitter, or the default one of the schema."""
        return self.splitter or (TimeSplitter() if self.schema_.time else RandomSplitter(random_state=self.seed))

    @property
    def registry(self) -> "Registry":
        """Registry of the model's versions."""
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
            "{}: {:,} rows, already validated by preparation (schema {}...); not validated again",
            self.table.path,
            len(frame),
            schema_fingerprint(self.schema_)[:SCHEMA_DIGITS],
        )
        return dataframes.CheckedFrame(frame, CheckReport(rows=len(frame), kept=len(frame)))

    def read_and_validate(self) -> dataframes.CheckedFrame:
        """Read the table, add its lag columns and validate it; log what validation changed.

        Raises:
            DataError: The table does not fit the schema.
        """
        raw = self.table.read(self.schema_)
        checked = dataframes.check_frame(dataframes.add_lag_columns(raw, self.schema_), self.schema_)
        checked.report.notes = tuple(dataframes.lag_warnings(raw, self.schema_))
        for message in checked.report.messages():
            logger.warning("{}: {}", self.table.path, message)
        logger.info("{}: {:,} rows fit the schema {}", self.table.path, len(checked.frame), self.schema_.name)
        return checked

    def read_split(self) -> TrainTestSplit:
        """Read the table, validate it and split it.

        Raises:
            DataError: The table does not fit the schema, or cannot be split.
        """
        checked = self.read()
        train, test = self.resolved_splitter.split(checked.frame, self.schema_)
        logger.info("{:,} training rows, {:,} held out", len(train), len(test))
        return TrainTestSplit(checked.frame.iloc[train], checked.frame.iloc[test], checked.report)
