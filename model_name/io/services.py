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
from urllib.parse import urlparse

from loguru import logger
from pydantic import Field

from model_name.core.schemas import Frozen
from model_name.errors import DependencyError
from model_name.io.osvariables import env

CONNECT_SECONDS = 5.0
NOISY = ("alembic", "mlflow", "lightning", "lightning.pytorch", "lightning.fabric", "skl2onnx", "shap", "onnxscript")
QUIET = {"MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class Service(Frozen, ABC):
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
        for name in NOISY:
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
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        self._knock(self.tracking_uri)
        if self.registry_uri:
            self._knock(self.registry_uri)
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        mlflow.set_registry_uri(self.registry_uri or self.tracking_uri)

    def stop(self) -> None:
        """End a run that was left open."""
        import mlflow

        mlflow.end_run()

    @contextmanager
    def run(self, name: str, *, experiment: str, run_id: str | None = None, tags: dict[str, str] | None = None) -> Generator[Any]:
        """A run that is open inside the block: a new one, or an earlier one to add to.

        Raises:
            DependencyError: The store fails.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            mlflow.set_experiment(experiment_id=self.experiment_id(self.experiment or experiment))
            run = mlflow.start_run(run_id=run_id, run_name=None if run_id else name, tags=tags)
        except MlflowException as err:
            raise unreachable(self.tracking_uri, err) from err
        with run:
            yield run

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

    def _knock(self, uri: str) -> None:
        # MLflow's own retries would keep an unreachable store waiting for minutes.
        address = urlparse(uri)
        if not address.hostname:
            return
        port = address.port or {"https": 443, "http": 80}.get(address.scheme, 5432)
        try:
            socket.create_connection((address.hostname, port), timeout=CONNECT_SECONDS).close()
        except OSError as err:
            raise unreachable(uri, err) from err


def unreachable(uri: str, err: Exception) -> DependencyError:
    """Say that MLflow cannot be used, without repeating a password that its address may hold."""
    address = urlparse(uri)
    place = f"{address.scheme}://{address.hostname}:{address.port or ''}" if address.hostname else uri
    return DependencyError(
        f"MLflow at {place.rstrip(':')} cannot be used: {err}",
        hint="start it, or set MLFLOW_TRACKING_URI (sqlite:///mlflow.db needs no server)",
    )
