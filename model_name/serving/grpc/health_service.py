"""Health checking service of gRPC, `grpc.health.v1`.

The service of the package `grpcio-health-checking` drops all watchers when one of them disconnects, and
the remaining ones delay the shutdown to the end of its grace period.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from model_name.errors import BusyError, ModelNameError, NotFoundError
from model_name.serving.grpc.message_reader import MessageReader
from model_name.serving.grpc.statuses import Metadata, abort
from model_name.serving.protocols.v2_grpc import parse_message
from model_name.serving.request_errors import ShuttingDownError
from model_name.serving.request_lifecycle import REQUEST_ID_HEADER, choose_request_id

HEALTH_SERVICE_NAME = "grpc.health.v1.Health"
MAX_WATCHERS = 1024  # at once; each takes some kilobytes for as long as it is connected
Status = health_pb2.HealthCheckResponse


class HealthService:
    """Health of the server as a whole, which is that of its one inference service."""

    def __init__(self, service_name: str, reader: MessageReader, next_request_id: Callable[[], str]) -> None:
        """Report SERVING until `set_serving` changes it.

        Args:
            service_name: Name of the inference service; the empty name is the server as a whole.
            reader: Reader of the messages of all calls.
            next_request_id: Generates an id for a call that has none.
        """
        self.reader = reader
        self._next_request_id = next_request_id
        self._names = ("", service_name)
        self._is_serving = True
        self._watchers = 0
        self._is_closed = False
        self._changed = asyncio.Event()

    def handler(self) -> grpc.GenericRpcHandler:
        """Make the handler of the service for a gRPC server; it reads the messages of calls itself."""
        handlers = {
            "Check": grpc.stream_unary_rpc_method_handler(self.check),
            "Watch": grpc.stream_stream_rpc_method_handler(self.watch),
        }
        return grpc.method_handlers_generic_handler(HEALTH_SERVICE_NAME, handlers)

    def set_serving(self, *, is_serving: bool) -> None:
        """Set the status, and notify watchers if it has changed."""
        if is_serving is not self._is_serving:
            self._is_serving = is_serving
            self._notify_watchers()

    def close_watchers(self) -> None:
        """End the calls of all watchers."""
        self._is_closed = True
        self._notify_watchers()

    async def check(self, _: Any, grpc_context: Any) -> bytes:
        """Return the current status."""
        identity = self._identify(grpc_context)
        try:
            name = await self._read_name(grpc_context, identity)
            if name not in self._names:
                raise NotFoundError(f"no such service is here; that of the model is {self._names[1]}")
        except ModelNameError as err:
            ending = abort(grpc_context, err, identity)
        else:
            grpc_context.set_trailing_metadata(identity)
            return self._message(self._status)
        return await ending

    async def watch(self, _: Any, grpc_context: Any) -> AsyncIterator[bytes]:
        """Stream the current status and each change of it."""
        identity = self._identify(grpc_context)
        self._watchers += 1
        try:
            if self._watchers > MAX_WATCHERS:
                raise BusyError("too many clients watch the health of this server already; try again later")
            is_known = await self._read_name(grpc_context, identity) in self._names
            sent = None
            while not self._is_closed:
                changed = self._changed  # taken before the status is read, so that no change is missed
                status = self._status if is_known else Status.SERVICE_UNKNOWN
                if status != sent:
                    yield self._message(status)
                    sent = status
                await changed.wait()
            raise ShuttingDownError("this server is ending; ask another one")
        except ModelNameError as err:
            ending = abort(grpc_context, err, identity)
        finally:
            self._watchers -= 1
        await ending

    def _identify(self, grpc_context: Any) -> tuple[tuple[str, str]]:
        """Build the trailing metadata that names a call: its id."""
        given = dict(grpc_context.invocation_metadata()).get(REQUEST_ID_HEADER)
        return ((REQUEST_ID_HEADER, choose_request_id(given, self._next_request_id)),)

    async def _read_name(self, grpc_context: Any, identity: Metadata) -> str:
        """Read the name of the service that a call is about."""
        message = await self.reader.read(grpc_context, identity, is_public=True)
        return parse_message(health_pb2.HealthCheckRequest, message).service  # type: ignore[no-any-return]

    @staticmethod
    def _message(status: int) -> bytes:
        return Status(status=status).SerializeToString()  # type: ignore[no-any-return]

    @property
    def _status(self) -> int:
        return Status.SERVING if self._is_serving else Status.NOT_SERVING  # type: ignore[no-any-return]

    def _notify_watchers(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
