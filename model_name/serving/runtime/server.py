"""The life of a server: KServe's, with our front before its routes, until SIGTERM has been answered in peace."""

import asyncio
import logging
import signal
import ssl
from argparse import Namespace
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from pathlib import Path
from time import time

import grpc
import uvicorn
import uvloop
from grpc_health.v1 import health_pb2_grpc
from kserve.protocol.rest.ssl_cert_refresher import SSLCertRefresher
from uvicorn.server import ServerState as UvicornState

from model_name.serving.grpc.health_service import HealthService
from model_name.serving.rest.fast_path import Shortcuts
from model_name.serving.rest.messages import Application
from model_name.serving.rest.protocol import LINGER_SECONDS, InferenceHttpProtocol, Listener, close_idle, close_stalled
from model_name.serving.state import ServerState

logger = logging.getLogger("model_name.serving")

TICK_SECONDS = 1.0
DRAIN_POLL_SECONDS = 0.05  # seconds between two looks at what is still open
BACKLOG = 2048


@dataclass(frozen=True)
class TlsConfig:
    """The certificates of a server.

    Attributes:
        certificate: Its own, with the chain, in PEM.
        key: Its key.
        client_ca: Who signs the certificates that clients must show; they need none where it is None.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """For REST."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def credentials(self) -> grpc.ServerCredentials:
        """For gRPC."""
        ca = None if self.client_ca is None else self.client_ca.read_bytes()
        pair = [(self.key.read_bytes(), self.certificate.read_bytes())]
        return grpc.ssl_server_credentials(pair, root_certificates=ca, require_client_auth=ca is not None)


@dataclass(frozen=True)
class ListenAddress:
    """Where a server listens.

    Attributes:
        host: The interface.
        http_port: For REST.
        grpc_port: For gRPC; none where it is None.
    """

    host: str
    http_port: int
    grpc_port: int | None


class Server:
    """REST and gRPC on one event loop, from the first request to the last."""

    def __init__(
        self,
        front: Application,
        state: ServerState,
        address: ListenAddress,
        *,
        handler: grpc.GenericRpcHandler | None,
        service: str,
        tls: TlsConfig | None,
        args: Namespace,
        header_seconds: float,
        tick: Callable[[], Awaitable[None]],
        shortcuts: Shortcuts,
    ) -> None:
        """Serve a front.

        Args:
            front: What answers HTTP.
            state: What the probes are told; this tells it of the end.
            address: Where to listen.
            handler: What answers gRPC.
            service: Its name.
            tls: The certificates; plain text where None.
            args: KServe's, and how long the end may take.
            header_seconds: How long a client may take to say what it wants.
            tick: Called each second.
            shortcuts: Past the front, for requests that come whole.
        """
        self.front = front
        self.state = state
        self.address = address
        self.handler = handler
        self.tls = tls
        self.args = args
        self.header_seconds = header_seconds
        self.tick = tick
        self.shortcuts = shortcuts
        self.health = HealthService(service)
        self._connections = UvicornState()

    def run(self) -> None:
        """Serve until a signal."""
        factory = asyncio.new_event_loop if self.args.event_loop == "asyncio" else uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        signals: asyncio.Queue[int] = asyncio.Queue()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signals.put_nowait, int(number))
        listener = await self._start_rest()
        rpc = await self._start_grpc()
        self.state.is_started = True
        ticking = asyncio.create_task(self._tick_on())
        logger.info("ready: REST on port %d, gRPC on port %s", self.address.http_port, self.address.grpc_port)
        try:
            told = await signals.get()
            await self._end(listener, rpc, signals, patience=self.args.drain_seconds if told == signal.SIGTERM else 0)
        finally:
            ticking.cancel()

    async def _start_rest(self) -> Listener:
        config = uvicorn.Config(
            self.front,
            http=InferenceHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=self.args.access_log,
            server_header=False,
            proxy_headers=False,  # nobody asks who the client is
            timeout_keep_alive=self.args.timeout_keep_alive,
        )
        config.load()
        context = None if self.tls is None else self.tls.context()
        if self.tls is not None and context is not None:
            SSLCertRefresher(context, str(self.tls.key), str(self.tls.certificate))
        self._date()
        listener = Listener(self.address.host, self.address.http_port, BACKLOG)
        make = partial(InferenceHttpProtocol, config, self._connections, self.shortcuts)
        await listener.start(make, context, self.header_seconds)
        return listener

    async def _start_grpc(self) -> grpc.aio.Server | None:
        if self.address.grpc_port is None or self.handler is None:
            return None
        options = [
            ("grpc.max_send_message_length", self.args.grpc_max_send_message_length),
            ("grpc.max_receive_message_length", self.args.grpc_max_receive_message_length),
            ("grpc.so_reuseport", 0),
        ]
        server = grpc.aio.server(options=options)
        server.add_generic_rpc_handlers((self.handler,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, server)
        host = "[::]" if self.address.host == "0.0.0.0" else self.address.host  # noqa: S104  as KServe has it  # nosec B104
        where = f"{host}:{self.address.grpc_port}"
        if self.tls is None:
            server.add_insecure_port(where)
        else:
            server.add_secure_port(where, self.tls.credentials())
        self.tell_health()
        await server.start()
        return server

    def tell_health(self) -> None:
        """Tell those who watch the health over gRPC what it is now."""
        self.health.tell(is_serving=self.state.is_loaded and not self.state.is_draining)

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._date()
            close_stalled(self._connections.connections, self.header_seconds, self.args.timeout_keep_alive)
            await self.tick()
            self.tell_health()

    def _date(self) -> None:
        self._connections.default_headers = [(b"date", formatdate(time(), usegmt=True).encode())]

    async def _end(
        self, listener: Listener, rpc: grpc.aio.Server | None, signals: "asyncio.Queue[int]", patience: float
    ) -> None:
        """Say that this server is going, wait until nobody is sent here any more, finish what has come, and end."""
        self.state.is_draining = True
        self.tell_health()
        logger.info("draining for %g s: not ready, still answering", patience)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await signals.get()  # another one ends the wait
        self.state.is_closed = True
        await asyncio.gather(listener.end(), self._finish_rest(), self._finish_grpc(rpc))
        logger.info("ended")

    async def _finish_grpc(self, server: grpc.aio.Server | None) -> None:
        """Turn new calls away until those who call have left: gRPC cancels what it has not begun when it stops."""
        if server is not None:
            await asyncio.sleep(LINGER_SECONDS)
            self.health.end()
            await server.stop(self.args.grace_seconds)

    async def _finish_rest(self) -> None:
        """Wait until every connection is closed, which those that are idle are told to be."""
        deadline = time() + self.args.grace_seconds
        while self._connections.connections and time() < deadline:
            close_idle(self._connections.connections)
            await asyncio.sleep(DRAIN_POLL_SECONDS)
        for connection in list(self._connections.connections):
            connection.transport.abort()
