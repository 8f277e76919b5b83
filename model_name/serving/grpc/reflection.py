"""Server reflection of gRPC, by which tools such as grpcurl find the services of a server and their messages.

The package `grpcio-reflection` and the descriptors are loaded by the first call: few servers get one.
"""

from collections.abc import AsyncIterator
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2

from model_name.errors import ModelNameError
from model_name.serving.context import ServerContext
from model_name.serving.grpc.health_service import HEALTH_SERVICE_NAME
from model_name.serving.grpc.message_reader import MessageReader
from model_name.serving.grpc.servicer import SERVICE_NAME, GrpcCall
from model_name.serving.grpc.statuses import abort
from model_name.serving.protocols.triton_messages import file_descriptor
from model_name.serving.protocols.v2_grpc import parse_message
from model_name.serving.request_errors import UnsupportedOperationError
from model_name.serving.request_lifecycle import RouteLabels

REFLECTION_SERVICE = "grpc.reflection.v1.ServerReflection"
OLD_REFLECTION_SERVICE = "grpc.reflection.v1alpha.ServerReflection"  # the same messages; tools try one, then the other
SERVICES = (SERVICE_NAME, HEALTH_SERVICE_NAME, REFLECTION_SERVICE, OLD_REFLECTION_SERVICE)
METHOD = "ServerReflectionInfo"
REFLECTION = RouteLabels("reflection", "grpc")


class ReflectionCall(GrpcCall):
    """Call of the reflection service."""

    __slots__ = ()

    service = REFLECTION_SERVICE


class ReflectionService:
    """Reflection service, in both versions of its protocol."""

    def __init__(self, context: ServerContext, reader: MessageReader) -> None:
        """Describe the services of a server.

        Args:
            context: Objects that all requests share.
            reader: Reader of the messages of all calls.
        """
        self.context = context
        self.reader = reader

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """Make the handlers for a gRPC server."""
        handler = grpc.stream_stream_rpc_method_handler(self.describe)
        names = (REFLECTION_SERVICE, OLD_REFLECTION_SERVICE)
        return tuple(grpc.method_handlers_generic_handler(name, {METHOD: handler}) for name in names)

    async def describe(self, _: Any, grpc_context: Any) -> AsyncIterator[bytes]:
        """Respond to a stream of requests for names and descriptors."""
        call = ReflectionCall(self.context, REFLECTION, METHOD, grpc_context)
        try:
            with call:
                call.authenticate()
                if find_spec("grpc_reflection") is None:
                    raise UnsupportedOperationError("this server has no reflection: grpcio-reflection is not installed")
                async for response in self._servicer.ServerReflectionInfo(self._requests(call), grpc_context):
                    yield response.SerializeToString()
                return
        except ModelNameError as err:
            ending = abort(grpc_context, err, call.trailing_metadata)
        await ending

    async def _requests(self, call: GrpcCall) -> AsyncIterator[Any]:
        """Read the requests of a call until its client ends the stream."""
        from grpc_reflection.v1alpha import reflection_pb2

        while (message := await self.reader.read_next(call.grpc_context, call.trailing_metadata)) is not None:
            yield parse_message(reflection_pb2.ServerReflectionRequest, message)

    @cached_property
    def _servicer(self) -> Any:
        """Servicer of the package, with the descriptors of all services of this server."""
        from grpc_reflection.v1alpha import reflection_pb2
        from grpc_reflection.v1alpha._async import ReflectionServicer

        pool = DescriptorPool()
        for file in (file_descriptor(), _copy(health_pb2), _copy(reflection_pb2), _current_version(reflection_pb2)):
            pool.Add(file)
        return ReflectionServicer(SERVICES, pool=pool)


def _copy(module: Any) -> FileDescriptorProto:
    """Copy the descriptor of a generated module."""
    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def _current_version(module: Any) -> FileDescriptorProto:
    """Rename the package of the reflection messages, which are the same in both versions."""
    text = text_format.MessageToString(_copy(module))
    return text_format.Parse(text.replace("v1alpha", "v1"), FileDescriptorProto())
