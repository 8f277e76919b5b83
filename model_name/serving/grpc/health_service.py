"""Health checking service of gRPC, `grpc.health.v1`.

The service of the package `grpcio-health-checking` drops all watchers when one of them disconnects, and
the remaining ones delay the shutdown to the end of its grace period.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from typing_extensions import override

Status = health_pb2.HealthCheckResponse


class HealthService(health_pb2_grpc.HealthServicer):
    """Health of the server as a whole, which is that of its one inference service."""

    def __init__(self, service_name: str) -> None:
        """Report SERVING until `set_serving` changes it.

        Args:
            service_name: Name of the inference service; the empty name is the server as a whole.
        """
        self._names = ("", service_name)
        self._is_serving = True
        self._is_closed = False
        self._changed = asyncio.Event()

    def set_serving(self, *, is_serving: bool) -> None:
        """Set the status, and notify watchers if it has changed."""
        if is_serving is not self._is_serving:
            self._is_serving = is_serving
            self._notify_watchers()

    def close_watchers(self) -> None:
        """End the calls of all watchers."""
        self._is_closed = True
        self._notify_watchers()

    @override
    async def Check(self, request: Any, context: Any) -> Any:
        """Return the current status."""
        if request.service not in self._names:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"no such service is here; that of the model is {self._names[1]}"
            )
        return Status(status=self._status)

    @override
    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream the current status and each change of it."""
        sent = None
        while True:
            changed = self._changed  # taken before the status is read, so that no change is missed
            status = self._status if request.service in self._names else Status.SERVICE_UNKNOWN
            if status != sent:
                yield Status(status=status)
                sent = status
            if self._is_closed:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "this server is ending; ask another one")
            await changed.wait()

    @property
    def _status(self) -> int:
        return Status.SERVING if self._is_serving else Status.NOT_SERVING  # type: ignore[no-any-return]

    def _notify_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
