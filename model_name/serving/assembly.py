"""Assembly of a server from its parts, and its run until a signal."""

import os
from argparse import Namespace
from importlib.metadata import version

from model_name.serving.arguments import check_ports_free, parse_address, parse_cors, parse_tls, warn_of_unused_options
from model_name.serving.auth import TokenAuth
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.observer import BatchObserver
from model_name.serving.batching.traced_batch import trace_batches
from model_name.serving.bundle import Manifest
from model_name.serving.context import ServerContext
from model_name.serving.grpc.health_service import HealthService
from model_name.serving.grpc.message_reader import MessageReader
from model_name.serving.grpc.reflection import ReflectionService
from model_name.serving.grpc.servicer import SERVICE_NAME, InferenceServicer
from model_name.serving.model_repository import BundleReloader, ModelRepository, ModelSource
from model_name.serving.request_errors import ErrorLogger
from model_name.serving.rest.app import RestApp
from model_name.serving.rest.endpoints import PREDICTOR, ServerRole
from model_name.serving.rest.pages import Pages, alive
from model_name.serving.runtime.memory import HeapTrimmer, mmap_large_allocations, set_thread_switch_interval, tune_gc
from model_name.serving.runtime.shutdown import MARGIN_SECONDS, ShutdownTimer
from model_name.serving.server import Server
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState
from model_name.serving.tracing import FLUSH_TIMEOUT_SECONDS, is_tracing_requested, start_tracing

TOKEN_ENV = "MODEL_NAME_TOKEN"  # noqa: S105  the name of a variable  # nosec B105


def serve_model(
    args: Namespace,
    batcher: AdaptiveBatcher,
    metrics: ServerMetrics,
    *,
    source: ModelSource,
    observer: BatchObserver,
    role: ServerRole = PREDICTOR,
) -> None:
    """Serve a model until a signal.

    Args:
        args: Command line.
        batcher: Batcher that runs the model.
        metrics: Prometheus metrics.
        source: Source that the model was loaded from, and a new one is reloaded from.
        observer: Observer of batches: metrics and prediction log.
        role: Kind of the server.

    Raises:
        ConfigError: An argument is not supported, a port is already in use, or a variable of tracing is invalid.
        DependencyError: A package for tracing is missing.
    """
    warn_of_unused_options(args)
    manifest = batcher.plane.bundle.manifest
    name = args.model_name or manifest.name
    tls, address, cors = parse_tls(args), parse_address(args), parse_cors(args)
    check_ports_free(address)
    metrics.set_model_info(manifest)
    metrics.bind_batcher(
        queue_depth=lambda: batcher.queued,
        held_bytes=lambda: batcher.budget.used,
        failed_observations=lambda: batcher.failed_observations,
    )
    tracing = start_tracing(name, args.slot) if is_tracing_requested(args.tracing) else None
    if tracing is not None:
        batcher.compute = trace_batches(batcher.compute)
    state = ServerState(is_loaded=True)
    reloader = BundleReloader(source, batcher, metrics, interval_seconds=args.watch_seconds)
    context = ServerContext(
        name=name,
        batcher=batcher,
        state=state,
        metrics=metrics,
        auth=TokenAuth(os.environ.get(TOKEN_ENV, "").encode()),
        error_log=ErrorLogger(is_quoting=not _has_sensitive_columns(manifest)),
        repository=ModelRepository(name, state, reloader.reload, is_enabled=args.model_repository),
        server_metadata=server_metadata(has_repository=args.model_repository),
        tracing=tracing,
    )
    pages = Pages(context, has_docs=args.enable_docs_url).handlers() if role.has_pages else {"/": alive}

    reader = MessageReader(batcher.limits, batcher.budget, args.grpc_max_receive_message_length)
    trimmer = HeapTrimmer(batcher.budget.take_peak)

    def on_period() -> None:
        batcher.evict_expired()
        trimmer.trim_after_peak()
        reader.trim_if_needed()
        observer.flush_metrics()

    shutdown_timer = ShutdownTimer(observer.close, args.log_flush_seconds)
    health = HealthService(SERVICE_NAME, reader, context.next_request_id)
    handlers = [InferenceServicer(context, reader, args.grpc_max_concurrent_calls).handler(), health.handler()]
    if args.enable_grpc_reflection:
        handlers += ReflectionService(context, reader).handlers()
    server = Server(
        RestApp(context, role, pages, cors),
        state,
        address,
        grpc_handlers=handlers,
        health=health,
        tls=tls,
        args=args,
        header_seconds=batcher.limits.header_seconds,
        on_period=on_period,
        reload_model=reloader.reload_if_changed,
        shutdown_timer=shutdown_timer,
    )
    tune_gc()
    set_thread_switch_interval()
    mmap_large_allocations()
    observer.start()
    server.run()
    if not batcher.close(min(args.grace_seconds, shutdown_timer.seconds_left) + MARGIN_SECONDS / 2):
        shutdown_timer.end_process()
    shutdown_timer.start(args.log_flush_seconds + FLUSH_TIMEOUT_SECONDS)
    observer.close(args.log_flush_seconds)
    if tracing is not None:
        tracing.close(FLUSH_TIMEOUT_SECONDS)


def server_metadata(*, has_repository: bool) -> dict[str, object]:
    """Describe the server as V2 defines it: with the name and the version of KServe, whose API it has."""
    extensions = ["binary_tensor_data", *(["model_repository_extension"] if has_repository else [])]
    return {"name": "kserve", "version": version("kserve"), "extensions": extensions}


def _has_sensitive_columns(manifest: Manifest) -> bool:
    return any(column.sensitive for column in manifest.table.columns.values())
