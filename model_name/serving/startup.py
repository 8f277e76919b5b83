"""The parts of a server, put together."""

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from kserve import model_server
from kserve.model import Model
from kserve.model_repository import ModelRepository as KServeRepository
from kserve.protocol.dataplane import DataPlane as Protocols
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from model_name.serving.arguments import parse_address, check_ports_free, parse_tls
from model_name.serving.auth import TokenAuth
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.observer import BatchObserver
from model_name.serving.context import ServerContext, Verb
from model_name.serving.dataplane import DataPlane
from model_name.serving.grpc.servicer import SERVICE_NAME, InferenceServicer
from model_name.serving.model_repository import WATCHED_FILES, ModelRepository, BundleReloader
from model_name.serving.request_errors import ErrorLogger
from model_name.serving.rest.app import Front
from model_name.serving.rest.messages import Application
from model_name.serving.rest.pages import Pages
from model_name.serving.runtime.memory import mmap_large_allocations, set_thread_switch_interval, tune_gc
from model_name.serving.runtime.server import Server
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.state import ServerState

LOG_FLUSH_TIMEOUT_SECONDS = 5.0  # to write what waits to be written at the end
TOKEN_ENV = "MODEL_NAME_TOKEN"  # noqa: S105  its name  # nosec B105


def serve_model(
    args: Namespace,
    batcher: AdaptiveBatcher,
    metrics: ServerMetrics,
    *,
    directory: Path,
    load: Callable[[Path], DataPlane],
    watcher: BatchObserver,
    verb: Verb = "predict",
    files: Sequence[str] = WATCHED_FILES,
) -> None:
    """Serve what a batcher answers until a signal.

    Args:
        args: Of the command line.
        batcher: What computes.
        telemetry: What is counted.
        directory: Where the bundle lies; a new one there takes over.
        load: Reads it, and answers its example.
        watcher: What notes the answers.
        verb: What this server does.
        files: Of the folder, that a new bundle changes.

    Raises:
        ConfigError: An argument asks for what cannot be done, or a port is taken.
    """
    manifest = batcher.plane.bundle.manifest
    name = args.model_name or manifest.name
    tls, address = parse_tls(args), parse_address(args)
    check_ports_free(address)
    metrics.serve(manifest)
    state = ServerState(is_loaded=True)
    swapper = BundleReloader(directory, batcher, metrics, seconds=args.watch_seconds, load=load, files=files)
    service = ServerContext(
        name=name,
        batcher=batcher,
        state=state,
        metrics=metrics,
        auth=TokenAuth(os.environ.get(TOKEN_ENV, "").encode()),
        error_log=ErrorLogger(is_quoting=not any(column.sensitive for column in manifest.table.columns.values())),
        repository=ModelRepository(name, state, swapper.swap, is_open=args.model_repository),
        server_metadata=server_metadata(args),
        verb=verb,
    )
    pages = Pages(name, args.slot, batcher, needs_token=service.auth.is_enabled)
    shown = {"/": pages.root, "/openapi.json": pages.openapi} if verb == "predict" else {}
    front = Front(service, routes_of_kserve(args, name), shown)
    rpc = InferenceServicer(service)

    async def tick() -> None:
        batcher.evict_expired()
        watcher.flush_metrics()
        await swapper.look()

    server = Server(
        front,
        state,
        address,
        handler=rpc.handler(),
        service=SERVICE_NAME,
        tls=tls,
        args=args,
        header_seconds=batcher.limits.header_seconds,
        tick=tick,
        shortcuts=front.shortcut,
    )
    tune_gc()
    set_thread_switch_interval()
    mmap_large_allocations()
    watcher.start()
    server.serve_model()
    batcher.close()
    watcher.close(LOG_FLUSH_TIMEOUT_SECONDS)


def routes_of_kserve(args: Namespace, name: str) -> Application:
    """KServe's own routes: they list the model, which no request reaches this way."""
    model = Model(name)
    model.ready = True
    registry = KServeRepository()
    registry.update(model)
    extension = ModelRepositoryExtension(model_registry=registry)
    server = RESTServer("kserve.model_server:app", Protocols(registry), extension, args.http_port)
    server.create_application()
    model_server.app.router.redirect_slashes = False  # to where the client's own Host header says
    model_server.app.add_exception_handler(HTTPException, _say_why)
    return model_server.app  # type: ignore[no-any-return]


async def _say_why(_: Request, err: HTTPException) -> Response:
    """A path or a method that there is not, in the words of all other refusals."""
    return JSONResponse({"error": err.detail}, err.status_code, err.headers)


def server_metadata(args: Namespace) -> dict[str, object]:
    """What the server says of itself in V2."""
    extensions = ["binary_tensor_data", *(["model_repository_extension"] if args.model_repository else [])]
    return {"name": "kserve", "version": model_server.app.version, "extensions": extensions}
