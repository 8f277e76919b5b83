"""REST and gRPC servers of a process, from their start to a graceful shutdown."""

import asyncio
import logging
import signal
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from time import monotonic, time
from typing import cast

import grpc
import uvicorn
import uvloop
from uvicorn.server import ServerState as UvicornState

from model_name.serving.arguments import ListenAddress
from model_name.serving.grpc.channel_options import channel_options
from model_name.serving.grpc.health_service import HealthService
from model_name.serving.rest.app import RestApp
from model_name.serving.rest.connection_limiter import ConnectionLimiter
from model_name.serving.rest.listener import LINGER_SECONDS, Listener, close_idle, close_stalled
from model_name.serving.rest.protocol import InferenceHttpProtocol
from model_name.serving.runtime.file_limit import usable_connections
from model_name.serving.runtime.shutdown import ShutdownTimer, SignalReceiver
from model_name.serving.runtime.tls import CertificateReloader, TlsConfig
from model_name.serving.state import ServerState

logger = logging.getLogger("model_name.serving")

PERIOD_SECONDS = 1.0
MAX_COUNTED_SIGNALS = 2  # further ones do not prolong the shutdown
DRAIN_POLL_SECONDS = 0.05
BACKLOG = 2048


class Server:
    """REST and gRPC servers on one event loop."""

    def __init__(
        self,
        app: RestApp,
        state: ServerState,
        address: ListenAddress,
        *,
        grpc_handlers: Sequence[grpc.GenericRpcHandler],
        health: HealthService,
        tls: TlsConfig | None,
        args: Namespace,
        header_seconds: float,
        on_period: Callable[[], None],
        reload_model: Callable[[], Awaitable[None]],
        shutdown_timer: ShutdownTimer,
    ) -> None:
        """Prepare both servers.

        Args:
            app: Application of REST.
            state: Lifecycle state, which this server updates.
            address: Address to listen on.
            grpc_handlers: Handlers of the gRPC services.
            health: Health service of gRPC, whose status the server sets.
            tls: TLS certificates; None for plain text.
            args: Command line: event loop, time-outs and sizes of messages.
            header_seconds: Time limit for the headers of a request.
            on_period: Called once a second, on the event loop.
            reload_model: Reloads the model if its files have changed; called a second after its last call has ended.
            shutdown_timer: Timer that ends the process if the shutdown takes too long.
        """
        self.app = app
        self.state = state
        self.address = address
        self.grpc_handlers = grpc_handlers
        self.args = args
        self.header_seconds = header_seconds
        self.on_period = on_period
        self.reload_model = reload_model
        self.shutdown_timer = shutdown_timer
        self._signals = 0
        self.health = health
        self._uvicorn_state = UvicornState()
        self._certificates = None if tls is None else CertificateReloader(tls)
        app.context.metrics.bind_connections(lambda: len(self._uvicorn_state.connections))

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        factory = asyncio.new_event_loop if self.args.event_loop == "asyncio" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._serve())

    def update_health(self) -> None:
        """Set the status of the gRPC health service to that of the server."""
        self.health.set_serving(is_serving=self.state.is_loaded and not self.state.is_draining)

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[int] = asyncio.Queue()

        def on_signal(number: int) -> None:
            self._start_shutdown_timer(number)
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(signals.put_nowait, number)

        SignalReceiver(on_signal)
        listener = await self._start_rest()
        grpc_server = await self._start_grpc()
        self.state.is_started = True
        # Time-outs must not wait for a bundle that is being loaded.
        periodic = [
            asyncio.create_task(run_periodically(work))
            for work in (partial(self._maintain, listener), self.reload_model)
        ]
        logger.info("ready: REST on port %d, gRPC on port %s", self.address.http_port, self.address.grpc_port)
        try:
            received = await signals.get()
            await self._shutdown(listener, grpc_server, signals, self._drain_seconds(received))
        finally:
            self._signals = MAX_COUNTED_SIGNALS  # a signal while the log is written changes no timer
            for task in periodic:
                task.cancel()

    def _start_shutdown_timer(self, number: int) -> None:
        """Start the timer at the first signal; the second one ends the drain period, further ones change nothing."""
        self._signals += 1
        if self._signals <= MAX_COUNTED_SIGNALS:
            drain_seconds = self._drain_seconds(number) if self._signals == 1 else 0
            self.shutdown_timer.start(drain_seconds + self.args.grace_seconds)

    def _drain_seconds(self, number: int) -> float:
        return float(self.args.drain_seconds) if number == signal.SIGTERM else 0.0

    async def _start_rest(self) -> Listener:
        config = uvicorn.Config(
            self.app,
            http=InferenceHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=self.args.access_log,
            server_header=False,
            proxy_headers=False,  # the address of the client is not used
            timeout_keep_alive=self.args.timeout_keep_alive,
        )
        config.load()
        context = None if self._certificates is None else self._certificates.loaded.context
        self._refresh_date_header()
        listener = Listener(self.address.host, self.address.http_port, BACKLOG)
        app = self.app
        make_protocol = partial(
            InferenceHttpProtocol, config, self._uvicorn_state, app.fast_router, app.context.batcher.budget
        )
        limiter = ConnectionLimiter(
            make_protocol,
            self._connections(),
            usable_connections(
                self.args.max_connections,
                grpc_connections=0 if self.address.grpc_port is None else self.args.grpc_max_connections,
            ),
            on_refused=app.context.metrics.connections_refused.inc,
            next_request_id=app.context.next_request_id,
            handshake_seconds=0.0 if context is None else self.header_seconds,
        )
        await listener.start(limiter.make_protocol, context, self.header_seconds)
        return listener

    async def _start_grpc(self) -> grpc.aio.Server | None:
        if self.address.grpc_port is None:
            return None
        server = grpc.aio.server(options=channel_options(self.args))
        server.add_generic_rpc_handlers(self.grpc_handlers)
        host = "[::]" if self.address.host == "0.0.0.0" else self.address.host  # noqa: S104  as KServe's server  # nosec B104
        endpoint = f"{host}:{self.address.grpc_port}"
        if self._certificates is None:
            server.add_insecure_port(endpoint)
        else:
            server.add_secure_port(endpoint, self._certificates.grpc_credentials())
        self.update_health()
        await server.start()
        return server

    async def _maintain(self, listener: Listener) -> None:
        """Enforce the time limits of connections, reload certificates, and update the health of gRPC."""
        self._refresh_date_header()
        close_stalled(self._connections(), self.header_seconds, self.args.timeout_keep_alive, self.args.answer_seconds)
        self.on_period()
        self.update_health()
        if self._certificates is not None and self._certificates.reload_if_changed():
            await listener.replace_context(self._certificates.loaded.context)

    def _connections(self) -> set[InferenceHttpProtocol]:
        return cast("set[InferenceHttpProtocol]", self._uvicorn_state.connections)

    def _refresh_date_header(self) -> None:
        self._uvicorn_state.default_headers = [(b"date", formatdate(time(), usegmt=True).encode())]

    async def _shutdown(
        self, listener: Listener, grpc_server: grpc.aio.Server | None, signals: "asyncio.Queue[int]", seconds: float
    ) -> None:
        """Shut down gracefully.

        The server reports that it is not ready, serves for the drain period until no requests are routed to it, then
        rejects new requests and finishes the pending ones.

        Args:
            listener: Listener of REST.
            grpc_server: Server of gRPC.
            signals: Further signals; one of them ends the drain period.
            seconds: Drain period.
        """
        self.state.is_draining = True
        self.update_health()
        logger.info("draining for %g s: not ready, still serving", seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await signals.get()
        self.state.is_closed = True
        await asyncio.gather(self._stop_rest(listener), self._stop_grpc(grpc_server))
        logger.info("shut down")

    async def _stop_grpc(self, server: grpc.aio.Server | None) -> None:
        """Stop gRPC after clients had time to be rejected: `stop` cancels calls whose handler has not started."""
        if server is not None:
            await asyncio.sleep(LINGER_SECONDS)
            self.health.close_watchers()
            await server.stop(self.args.grace_seconds)

    async def _stop_rest(self, listener: Listener) -> None:
        """Stop listening and close idle connections until none is left; abort the others after the grace period."""
        draining = asyncio.create_task(listener.drain())
        await asyncio.sleep(0)  # it stops listening, even without a grace period
        deadline = monotonic() + self.args.grace_seconds
        while (self._uvicorn_state.connections or not draining.done()) and monotonic() < deadline:
            # After a stall, uvloop runs timers before it reads sockets: requests that have arrived must be read first.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            close_idle(self._connections())
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        draining.cancel()
        for connection in list(self._connections()):
            connection.transport.abort()


async def run_periodically(work: Callable[[], Awaitable[None]]) -> None:
    """Run some work `PERIOD_SECONDS` after its last run, again and again; an error in it is logged."""
    while True:
        await asyncio.sleep(PERIOD_SECONDS)
        try:
            await work()
        # An outermost loop: without the next runs, no connection and no request would time out.
        except Exception:
            logger.exception("periodic work of the server failed; it is repeated")
