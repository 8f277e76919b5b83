"""A worker as a process: bundle, broker, probes and signals."""

import os
from pathlib import Path

from loguru import logger
from pydantic import ValidationError

from model_name.errors import ConfigError
from model_name.io.signals import stop_on_signal
from model_name.io.storage import download_bundle
from model_name.kafka.client import KafkaClientFactory, silence_client_logs
from model_name.kafka.worker.health_server import HealthServer
from model_name.kafka.worker.instance_lock import InstanceLock
from model_name.kafka.worker.worker import WorkerStats, Worker
from model_name.kafka.worker.worker_config import WorkerSettings
from model_name.kafka.worker.worker_metrics import WorkerMetrics
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from model_name.serving.runtime.memory import tune_gc

LOG_KEY_VARIABLE = "MODEL_NAME_LOG_KEY"
LOG_FLUSH_SECONDS = 1.0  # to write what waits to be written at the end


def run_worker(settings: WorkerSettings) -> WorkerStats:
    """Be a worker until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: Something is asked for that cannot be, or the environment is wrong.
        NotFoundError: The bundle or a topic does not exist.
        DataError: The bundle is broken.
        DependencyError: The cluster cannot be reached, or refuses.
    """
    claim = None if settings.instance else InstanceLock(settings.group)
    settings = settings if claim is None else settings.model_copy(update={"instance": claim.name})
    plane = DataPlane(Bundle.load(Path(download_bundle(settings.bundle)), threads=settings.forward_threads))
    plane.warm_up()
    telemetry = WorkerMetrics(settings.slot)
    telemetry.serve(plane.bundle.manifest)
    log = build_prediction_log(settings)
    if log is not None:
        log.on_drop = telemetry.log_dropped.inc
    silence_client_logs()
    with stop_on_signal() as stop:
        worker = Worker(plane, settings, KafkaClientFactory(settings.bootstrap_servers), telemetry, log)
        health = start_health_server(worker, settings, telemetry)
        manifest = plane.bundle.manifest
        logger.info(
            "{} {} answers {} in {}, {}, as {}",
            manifest.name, manifest.semver, settings.input, settings.output, settings.delivery, settings.instance,
        )  # fmt: skip
        if log is not None:
            log.start()
        tune_gc()
        try:
            worker.run(stop)
        finally:
            if log is not None:
                log.close(LOG_FLUSH_SECONDS)
            if health is not None:
                health.close()
    return worker.totals


def build_prediction_log(settings: WorkerSettings) -> PredictionLog | None:
    """The prediction log that is asked for.

    Raises:
        ConfigError: It cannot be one.
        DependencyError: The package for its URL is missing.
    """
    if not settings.prediction_log:
        return None
    try:
        asked = LogSettings(url=settings.prediction_log, sampling=settings.log_sampling, text_ids=settings.log_text_ids)
    except ValidationError as err:
        raise ConfigError(f"prediction_log: {err.errors()[0]['msg']}") from err
    return PredictionLog(asked, slot=settings.slot, key=os.environ.get(LOG_KEY_VARIABLE, "").encode())


def start_health_server(worker: Worker, settings: WorkerSettings, telemetry: WorkerMetrics) -> HealthServer | None:
    """The probes of a worker, where it is to have them."""
    if not settings.http_port:
        return None

    def live() -> str:
        seconds = worker.stuck_for
        return f"no step for {seconds:.0f} seconds" if seconds > settings.stuck_seconds else ""

    def ready() -> str:
        if worker.is_cut_off:
            return "the broker is away"
        return live() or ("" if worker.is_ready else "not in the group yet")

    return HealthServer(settings.host, settings.http_port, live=live, ready=ready, registry=telemetry.registry)
