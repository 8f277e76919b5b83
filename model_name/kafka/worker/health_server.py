"""Serve the probes and the metrics of a worker over HTTP: `/healthz`, `/readyz`, `/metrics`."""

import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from typing_extensions import override

from model_name.errors import ConfigError

TEXT_PLAIN = "text/plain; charset=utf-8"
Probe = Callable[[], str]
"""Function that returns the reason of a failed probe; an empty text means that the probe succeeds."""


class HealthServer:
    """HTTP server on a thread of its own, so that it responds while the worker is stuck.

    Attributes:
        port: Port that the server listens on.
    """

    def __init__(self, host: str, port: int, *, live: Probe, ready: Probe, registry: CollectorRegistry) -> None:
        """Listen on a port.

        Args:
            host: Interface to listen on.
            port: Port to listen on.
            live: Probe behind `/healthz`.
            ready: Probe behind `/readyz`.
            registry: Registry of the metrics.

        Raises:
            ConfigError: The port is already in use.
        """
        probes = {"/healthz": live, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # an idle connection must not keep its thread

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self.send_text(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif path in probes:
                    failure = probes[path]()
                    self.send_text(503 if failure else 200, f"{failure or 'ok'}\n".encode(), TEXT_PLAIN)
                else:
                    self.send_text(404, b"there are /healthz, /readyz and /metrics\n", TEXT_PLAIN)

            def send_text(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, *_: Any) -> None:
                """Log no requests."""

        try:
            self._server = _ProbeServer((host, port), Handler)
        except OSError as err:
            raise ConfigError(
                f"--http-port {port}: {err.strerror}", hint="--http-port names another one, and 0 none"
            ) from err
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()


class _ProbeServer(ThreadingHTTPServer):
    daemon_threads = True

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an error of a request, unless the client has disconnected."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
