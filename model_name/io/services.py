"""What a job leans on while it runs: a log, alerts, MLflow. Each starts and stops."""

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
}  # where an address names none
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
    """Have MLflow draw no bars and tell nobody of its use; some of it only listens before it is imported."""
    for name, value in QUIET_VARIABLES.items():
        os.environ.setdefault(name, value)


class Service(FrozenModel, ABC):
    """Something that must be started before a job and stopped after it, whatever happens."""

    @abstractmethod
    def start(self) -> None:
        """Make it ready, or raise."""

    def stop(self) -> None:
        """Let go of what `start` took; by default nothing."""


class LoggerService(Service):
    """The log, on stderr: results alone go to stdout.

    Attributes:
        level: The least severe level that is shown.
        format: How a line looks.
        serialize: One JSON document a line instead, for clusters.
    """

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: str = "<dim>{time:HH:mm:ss}</dim> <level>{level: <7}</level> {message} <dim>{name}:{line}</dim>"
    serialize: bool = False

    def start(self) -> None:
        """Send the log to stderr, and quieten the libraries."""
        logger.remove()
        logger.add(sys.stderr, level=self.level, format=self.format, serialize=self.serialize, diagnose=False)
        for name in NOISY_LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=r"mlflow\.")  # of its own making, nothing that a user could mend


class AlertsService(Service):
    """Tells people outside: the log always, and a webhook where one is configured.

    The webhook's address comes from `MODEL_NAME_ALERTS_URL`; it is sent a CloudEvent in JSON.

    Attributes:
        enable: Whether the webhook is used.
        timeout_seconds: How long it may take; an alert never fails a job.
    """

    enable: bool = True
    timeout_seconds: float = Field(5.0, gt=0)

    def start(self) -> None:
        """Nothing to start."""

    def notify(self, title: str, message: str) -> None:
        """Tell it."""
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
    """The store of runs and of model versions.

    Attributes:
        tracking_uri: Where runs are recorded: `sqlite:///FILE`, `postgresql://...` or a server's address.
        registry_uri: Where versions are registered, if elsewhere.
        experiment: The experiment's name; by default that of the job's model.
        artifacts: Where a new experiment in a database keeps its files; a server decides for itself.
    """

    tracking_uri: str = "sqlite:///mlflow.db"
    registry_uri: str | None = None
    experiment: str | None = None
    artifacts: str = "mlartifacts"

    def start(self) -> None:
        """Set the addresses and reach the store once.

        Raises:
            DependencyError: It cannot be reached.
        """
        silence_mlflow()
        for uri in dict.fromkeys((self.tracking_uri, self.registry_uri or self.tracking_uri)):
            check_reachable(uri)
        import mlflow

        # MLflow also sets the environment, where the next job and every child process would take it for a user's word.
        before = {name: os.environ.get(name) for name in URI_VARIABLES}
        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.registry_uri or self.tracking_uri)
        for name, word in before.items():
            os.environ.pop(name, None)
            if word is not None:
                os.environ[name] = word

    def stop(self) -> None:
        """End a run that was left open."""
        import mlflow

        mlflow.end_run()

    @contextmanager
    def run(
        self, name: str, *, experiment: str, run_id: str | None = None, tags: dict[str, str] | None = None
    ) -> Generator[Any]:
        """A run that is open inside the block: a new one, or an earlier one to add to.

        Raises:
            DependencyError: The store fails.
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
        """The experiment's id; it is made if need be."""
        import mlflow

        found = mlflow.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        location = None
        if not self.tracking_uri.startswith("http"):
            location = f"{self.artifacts.rstrip('/')}/{name}"
            location = location if "://" in location else Path(location).absolute().as_uri()
        return mlflow.create_experiment(name, artifact_location=location)


def check_reachable(uri: str) -> None:
    """Connect to a store once; MLflow's own retries would keep an unreachable one waiting for minutes.

    Raises:
        DependencyError: It does not answer, refuses its user, or is not a database.
    """
    address = urlparse(uri)
    scheme = address.scheme.partition("+")[0]
    try:
        port = address.port or DEFAULT_PORTS.get(scheme)
        if address.hostname and port:
            socket.create_connection((address.hostname, port), timeout=CONNECT_SECONDS).close()
        if scheme in DATABASE_SCHEMES:
            _open_database(uri)
    except DependencyError:  # an OSError too
        raise
    except (OSError, ValueError) as err:  # ValueError: its port is not a number
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
    """Say that MLflow cannot be used, without repeating a password that its address may hold."""
    address = urlparse(uri)
    user, _, host = address.netloc.rpartition("@")
    place = f"{address.scheme}://{host}" if host else uri
    reason = str(err).replace(f"{user}@", "") if user else str(err)
    for secret in (address.password, unquote(address.password or "")):
        reason = reason.replace(secret, "***") if secret else reason
    return DependencyError(
        f"MLflow at {place} cannot be used: {reason}",
        hint="start it, or set MLFLOW_TRACKING_URI (sqlite:///mlflow.db needs no server)",
    )
