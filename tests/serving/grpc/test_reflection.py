"""Server reflection, by the client of grpcio-reflection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer

reflection_pb2 = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2")
database = pytest.importorskip("grpc_reflection.v1alpha.proto_reflection_descriptor_database")

SERVICE = "inference.GRPCInferenceService"
SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    SERVICE,
}


@pytest.fixture
def channel(servers: dict[str, Server]) -> Iterator[grpc.Channel]:
    """Open a channel to a server."""
    with grpc.insecure_channel(servers["binary"].grpc_url) as channel:
        yield channel


def test_services_are_listed_and_described(channel: grpc.Channel) -> None:
    # Given
    pool = DescriptorPool(database.ProtoReflectionDescriptorDatabase(channel))
    # When
    service = pool.FindServiceByName(SERVICE)
    # Then
    methods = {method.name for method in service.methods}
    assert methods > {"ModelInfer", "ServerLive", "ModelMetadata", "ModelStatistics", "ModelConfig", "RepositoryIndex"}
    infer = service.methods_by_name["ModelInfer"]
    assert [field.name for field in infer.input_type.fields][:2] == ["model_name", "model_version"]
    assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["Watch"].server_streaming


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_both_versions_of_the_protocol_are_served(channel: grpc.Channel, version: str) -> None:
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"grpc.reflection.{version}.ServerReflection"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nowhere.Nothing"),
    ]
    names, found, missing = call(iter(requests), timeout=30)
    assert {service.name for service in names.list_services_response.service} == SERVICES
    assert len(found.file_descriptor_response.file_descriptor_proto) == 1
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


def test_reflection_is_off_by_option(bundles: dict[str, Bundle], start_server: StartServer) -> None:
    options = ["--enable_grpc_reflection", "false", "--drain_seconds", "0"]
    server = start_server(bundles["binary"].directory, "binary", *options).wait()
    with grpc.insecure_channel(server.grpc_url) as channel, pytest.raises(grpc.RpcError) as caught:
        database.ProtoReflectionDescriptorDatabase(channel).get_services()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
