"""`grpc.health.v1`: whether requests are to be sent here, for those who ask once and for those who watch.

The service that comes with gRPC forgets all who watch when one of them leaves, and lets those who stay hold up the end
of the server until its grace is over.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):
    """The health of a server as a whole, which is that of its one service."""

    def __init__(self, service: str) -> None:
        """Serve until something else is told.

        Args:
            service: Its name; the empty name is the whole server.
        """
        self._names = ("", service)
        self._is_serving = True
        self._is_over = False
        self._changed = asyncio.Event()

    def tell(self, *, is_serving: bool) -> None:
        """Say how it is now."""
        if is_serving is not self._is_serving:
            self._is_serving = is_serving
            self._wake()

    def end(self) -> None:
        """Send those away who watch."""
        self._is_over = True
        self._wake()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802  gRPC's name
        """How it is now."""
        if request.service not in self._names:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no such service is here; that of the model is {self._names[1]}"
            )
        return Status(status=self._status)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802  gRPC's name
        """How it is now, and each time that it changes."""
        told = None
        while True:
            changed = self._changed  # before the look, so that nothing is missed between the two
            status = self._status if request.service in self._names else Status.SERVICE_UNKNOWN
            if status != told:
                yield Status(status=status)
                told = status
            if self._is_over:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this server is ending; ask another one")
            await changed.wait()

    @property
    def _status(self) -> int:
        return Status.SERVING if self._is_serving else Status.NOT_SERVING  # type: ignore[no-any-return]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
