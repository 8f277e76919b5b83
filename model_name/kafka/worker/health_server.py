"""The probes and the metrics of a worker, over HTTP: `/healthz`, `/readyz`, `/metrics`."""

import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from model_name.errors import ConfigError

TEXT_PLAIN = "text/plain; charset=utf-8"
Probe = Callable[[], str]
"""What is wrong, in words; nothing where all is well."""


class HealthServer:
    """Answers probes from a thread of its own, so that a stuck worker can be seen to be stuck."""

    def __init__(self, host: str, port: int, *, live: Probe, ready: Probe, registry: CollectorRegistry) -> None:
        """Listen.

        Raises:
            ConfigError: The port is taken.
        """
        probes = {"/healthz": live, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # a client that sends nothing keeps no thread

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self.answer(200, generate_latest(registry), CONTENT_TYPE_LATEST)
                elif path in probes:
                    wrong = probes[path]()
                    self.answer(503 if wrong else 200, f"{wrong or 'ok'}\n".encode(), TEXT_PLAIN)
                else:
                    self.answer(404, b"there are /healthz, /readyz and /metrics\n", TEXT_PLAIN)

            def answer(self, status: int, body: bytes, content_type: str) -> None:
                self.send_response(status)
                self.send_header("content-type", content_type)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        try:
            self._server = _Server((host, port), Handler)
        except OSError as err:
            raise ConfigError(
                f"--http-port {port}: {err.strerror}", hint="--http-port names another one, and 0 none"
            ) from err
        self.port = self._server.server_address[1]
        Thread(target=self._server.serve_forever, name="health", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """As of the base, but a probe that hangs up is no error of this side."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)
