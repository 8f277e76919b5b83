"""Services that a job starts and stops: log, alerts and MLflow."""

import logging
import os
import socket
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlparse

from loguru import logger
from pydantic import Field
from typing_extensions import override

from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import DependencyError
from model_name.io.osvariables import env

CONNECT_SECONDS = 5.0
DEFAULT_PORTS = {
    "https": 443,
    "http": 80,
    "postgresql": 5432,
    "mysql": 3306,
    "mssql": 1433,
}  # for a URI without a port
DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
NOISY_LOGGERS = (
    "alembic",
    "mlflow",
    "lightning",
    "lightning.pytorch",
    "lightning.fabric",
    "skl2onnx",
    "shap",
    "onnxscript",
)
URI_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
QUIET_VARIABLES = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def silence_mlflow() -> None:
    """Disable MLflow's progress bars and telemetry; call before the first import, which reads some variables."""
    for name, value in QUIET_VARIABLES.items():
        os.environ.setdefault(name, value)


class Service(FrozenModel, ABC):
    """Service that is started before a job and stopped after it, also if the job fails."""

    @abstractmethod
    def start(self) -> None:
        """Start the service; raise an error if that fails."""

    def stop(self) -> None:
        """Release the resources of `start`; by default there are none."""


class LoggerService(Service):
    """Service that sends the log to stderr; stdout is for results.

    Attributes:
        level: Minimum level that is shown.
        format: Format of a line, as in loguru.
        serialize: Whether each line is a JSON document, for clusters.
    """

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: str = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message} <dim>{name}:{line}</dim>"
    serialize: bool = False

    @override
    def start(self) -> None:
        """Send the log to stderr, and show only errors of noisy libraries."""
        logger.remove()
        logger.add(sys.stderr, level=self.level, format=self.format, serialize=self.serialize, diagnose=False)
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\.")  # caused by MLflow itself, not by the user


class AlertsService(Service):
    """Service that writes alerts to the log and posts them to a webhook if one is configured.

    The URL of the webhook comes from `MODEL_NAME_ALERTS_URL`; the body is a CloudEvent in JSON.

    Attributes:
        enable: Whether the webhook is used.
        timeout_seconds: Timeout of the request; a failed alert never fails a job.
    """

    enable: bool = True
    timeout_seconds: float = Field(5.0, gt=0)

    @override
    def start(self) -> None:
        """Do nothing: alerts need no connection."""

    def notify(self, title: str, message: str) -> None:
        """Log an alert and post it to the webhook."""
        logger.info("{}: {}", title, message)
        url = env().model_name_alerts_url
        if self.enable and url is not None:
            self._post(url.get_secret_value(), title, message)

    def _post(self, url: str, title: str, message: str) -> None:
        import uuid

        import requests

        event = {
            "specversion": "1.0",
            "id": str(uuid.uuid4()),
            "source": "model-name",
            "type": "model-name.alert",
            "subject": title,
            "data": {"title": title, "message": message},
        }
        headers = {"content-type": "application/cloudevents+json"}
        try:
            requests.post(url, json=event, headers=headers, timeout=self.timeout_seconds).raise_for_status()
        except requests.RequestException as err:
            logger.warning("the alert could not be posted: {}", type(err).__name__)  # the URL may hold a token


class MlflowService(Service):
    """Service that connects to the MLflow stores of runs and model versions.

    Attributes:
        tracking_uri: URI of the store of runs: `sqlite:///FILE`, `postgresql://...` or the URL of a server.
        registry_uri: URI of the model registry, if it is another store.
        experiment: Name of the experiment; by default the name of the model.
        artifacts: Folder or URL for the files of a new experiment in a database; a tracking server sets its own.
    """

    tracking_uri: str = "sqlite:///mlflow.db"
    registry_uri: str | None = None
    experiment: str | None = None
    artifacts: str = "mlartifacts"

    @override
    def start(self) -> None:
        """Set the URIs and connect to the stores once.

        Raises:
            DependencyError: A store cannot be reached.
        """
        silence_mlflow()
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri or self.tracking_uri)):
            check_reachable(uri)
        import mlflow

        # MLflow also sets environment variables, which later jobs and child processes would mistake for user settings.
        previous = {name: os.environ.get(name) for name in URI_VARIABLES}
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.registry_uri or self.tracking_uri)
        for name, value in previous.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

    @override
    def stop(self) -> None:
        """End a run that is still open."""
        import mlflow

        mlflow.end_run()

    @contextmanager
    def run(
        self, name: str, *, experiment: str, run_id: str | None = None, tags: dict[str, str] | None = None
    ) -> Generator[Any]:
        """Open a run for the block: a new run, or an earlier one by its id.

        Raises:
            DependencyError: The store raises an error.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            mlflow.set_experiment(experiment_id=self.experiment_id(self.experiment or experiment))
            with mlflow.start_run(run_id=run_id, run_name=None if run_id else name, tags=tags) as run:
                yield run
        except MlflowException as err:
            raise unreachable_error(self.tracking_uri, err) from err

    def experiment_id(self, name: str) -> str:
        """Return the id of an experiment, which is created if it does not exist."""
        import mlflow

        experiment = mlflow.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        location = None
        if not self.tracking_uri.startswith("http"):
            location = f"{self.artifacts.rstrip('/')}/{name}"
            location = location if "://" in location else Path(location).absolute().as_uri()
        return mlflow.create_experiment(name, artifact_location=location)


def check_reachable(uri: str) -> None:
    """Connect to a store once; MLflow itself would retry for minutes.

    Raises:
        DependencyError: The store does not respond, rejects the credentials, or is not a database.
    """
    address = urlparse(uri)
    scheme = address.scheme.partition("+")[0]
    try:
        port = address.port or DEFAULT_PORTS.get(scheme)
        if address.hostname and port:
            socket.create_connection((address.hostname, port), timeout=CONNECT_SECONDS).close()
        if scheme in DATABASE_SCHEMES:
            _open_database(uri)
    except DependencyError:  # is an OSError as well
        raise
    except (OSError, ValueError) as err:  # ValueError: the port is not a number
        raise unreachable_error(uri, err) from err


def _open_database(uri: str) -> None:
    from sqlalchemy import create_engine, inspect, make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        url = make_url(uri)
        if url.get_backend_name() == "sqlite" and url.database:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(url)
        try:
            inspect(engine).get_table_names()
        finally:
            engine.dispose()
    except (SQLAlchemyError, ImportError) as err:
        raise unreachable_error(uri, getattr(err, "orig", None) or err) from err


def unreachable_error(uri: str, err: Exception) -> DependencyError:
    """Create the error for an unreachable store, without the password that its URI may hold."""
    address = urlparse(uri)
    user, _, host = address.netloc.rpartition("@")
    location = f"{address.scheme}://{host}" if host else uri
    reason = str(err).replace(f"{user}@", "") if user else str(err)
    for secret in (address.password, unquote(address.password or "")):
        reason = reason.replace(secret, "***") if secret else reason
    return DependencyError(
        f"MLflow at {location} cannot be used: {reason}",
        hint="start it, or set MLFLOW_TRACKING_URI (sqlite:///mlflow.db needs no server)",
    )
