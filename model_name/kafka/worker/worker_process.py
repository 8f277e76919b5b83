"""Run a worker as a process: load its bundle, connect, serve its probes and stop on a signal."""

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem
from loguru import logger
from pydantic import ValidationError

from model_name.errors import ConfigError, StorageError
from model_name.io.signals import stop_on_signal
from model_name.io.storage import download_bundle, resolve_url
from model_name.kafka.client import KafkaClientFactory, silence_client_logs
from model_name.kafka.worker.delivery_observer import WorkerStats
from model_name.kafka.worker.health_server import HealthServer
from model_name.kafka.worker.instance_lock import InstanceLock
from model_name.kafka.worker.worker import Worker
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.kafka.worker.worker_settings import WorkerSettings
from model_name.serving.bundle import Bundle
from model_name.serving.bundle_signature import make_verifier
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import LOG_KEY_ENV, LogSettings, PredictionLog
from model_name.serving.runtime.memory import tune_gc
from model_name.serving.tracing import FLUSH_TIMEOUT_SECONDS, is_tracing_requested, start_tracing

LOG_CLOSE_SECONDS = 10.0  # to write the buffered rows at the end


def run_worker(settings: WorkerSettings) -> WorkerStats:
    """Run a worker until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: The settings or the environment are wrong.
        NotFoundError: The bundle or a topic does not exist.
        DataError: The bundle is broken, or not signed as required.
        StorageError: The prediction log cannot be written.
        DependencyError: The cluster cannot be reached or rejects a request, or a package for tracing is missing.
    """
    lock = None if settings.instance else InstanceLock(settings.group)  # held until this function returns
    settings = settings if lock is None else settings.model_copy(update={"instance": lock.name})
    plane = load_plane(settings)
    manifest = plane.bundle.manifest
    metrics = WorkerMetrics(settings.slot)
    metrics.set_model_info(manifest)
    log = build_prediction_log(settings)
    tracing = start_tracing(manifest.name, settings.slot) if is_tracing_requested(None) else None
    silence_client_logs()
    with ExitStack() as stack:
        if tracing is not None:
            stack.callback(tracing.close, FLUSH_TIMEOUT_SECONDS)
        stop = stack.enter_context(stop_on_signal())
        clients = KafkaClientFactory(settings.bootstrap_servers)
        worker = Worker(plane, settings, clients, metrics, log, tracing=tracing)
        if settings.http_port:
            stack.callback(start_health_server(worker, settings, metrics).close)
        logger.info(
            "{} {} predicts from {} to {}, {}, as {}",
            manifest.name, manifest.semver, settings.input, settings.output, settings.delivery, settings.instance,
        )  # fmt: skip
        if log is not None:
            metrics.bind_log(log)
            log.start()
            stack.callback(log.close, LOG_CLOSE_SECONDS)
        tune_gc()
        worker.run(stop)
    return worker.stats


def load_plane(settings: WorkerSettings) -> DataPlane:
    """Download and load the bundle, and predict its example.

    Raises:
        NotFoundError: The bundle does not exist.
        DataError: The bundle is broken, or not signed as required.
        ConfigError: The file of the public keys is invalid.
    """
    verifier = make_verifier(settings.bundle_public_key)
    folder = Path(download_bundle(settings.bundle))
    plane = DataPlane(Bundle.load(folder, threads=settings.forward_threads, verifier=verifier))
    plane.warm_up()
    return plane


def build_prediction_log(settings: WorkerSettings) -> PredictionLog | None:
    """Create the prediction log, if the settings have one.

    Raises:
        ConfigError: The settings of the log are wrong.
        StorageError: The folder of the log cannot be written.
        DependencyError: The package for the URL of the log is not installed.
    """
    if not settings.prediction_log:
        return None
    try:
        log = LogSettings(url=settings.prediction_log, sampling=settings.log_sampling, text_ids=settings.log_text_ids)
    except ValidationError as err:
        raise ConfigError(f"prediction_log: {err.errors()[0]['msg']}") from err
    check_log_folder(log.url)
    return PredictionLog(log, slot=settings.slot, key=os.environ.get(LOG_KEY_ENV, "").encode())


def check_log_folder(url: str) -> None:
    """Check that a local folder can be written; an object store can only fail at the first upload.

    Raises:
        ConfigError: The scheme of the URL is unknown.
        StorageError: The folder cannot be created, or no file in it.
        DependencyError: The package for the URL is not installed.
    """
    filesystem, folder = resolve_url(url)
    if not isinstance(filesystem, LocalFileSystem):
        return
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as err:
        hint = "name a folder that the worker may write to"
        raise StorageError(f"prediction_log: {url}: {err.strerror}", hint=hint) from err


def start_health_server(worker: Worker, settings: WorkerSettings, metrics: WorkerMetrics) -> HealthServer:
    """Serve the probes and the metrics of a worker.

    Raises:
        ConfigError: The port is in use.
    """

    def live() -> str:
        seconds = worker.seconds_since_progress
        return f"no step for {seconds:.0f} seconds" if seconds > settings.stuck_seconds else ""

    def ready() -> str:
        if worker.is_broker_down:
            return "the broker is away"
        return live() or ("" if worker.is_ready else "not in the group yet")

    return HealthServer(settings.host, settings.http_port, live=live, ready=ready, registry=metrics.registry)
