"""Connections to the gRPC port: silent, dead and impatient clients, and large metadata."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import grpc
import pytest

from model_name.serving.grpc.channel_options import MAX_METADATA_BYTES
from tests.support.sockets import connect, seconds_until_closed

if TYPE_CHECKING:
    from model_name.serving.bundle import Bundle
    from tests.support.server_processes import Server, StartServer

NAME = "regression"
LIVE = "/inference.GRPCInferenceService/ServerLive"
WATCH = "/grpc.health.v1.Health/Watch"
SETTINGS = 4  # type of an HTTP/2 frame
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + bytes([SETTINGS, 0]) + bytes(4)
"""Start of an HTTP/2 connection with an empty settings frame."""


@pytest.fixture(scope="module")
def server(bundles: dict[str, Bundle], start_server: StartServer) -> Server:
    """Start a server with short time limits of a connection."""
    keepalive = ["--grpc_keepalive_time_ms", "500", "--grpc_keepalive_timeout_ms", "500"]
    return start_server(
        bundles[NAME].directory, NAME, "--header_seconds", "1", "--drain_seconds", "0", *keepalive
    ).wait()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(PREFACE[:10], id="a part of the preface"),
        pytest.param(PREFACE, id="the preface, but no responses to pings"),
    ],
)
def test_a_silent_connection_is_closed(server: Server, sent: bytes) -> None:
    with connect(server.grpc_port) as client:
        client.sendall(sent)
        assert 0.5 < seconds_until_closed(client) < 15


def test_a_client_that_pings_too_often_is_disconnected(server: Server) -> None:
    impatient = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(server.grpc_url, impatient) as channel:
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.unary_stream(WATCH)(b"", timeout=30))
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.UNAVAILABLE, "Too many pings")
    assert time.monotonic() - started < 25


@pytest.mark.parametrize(
    ("size", "code"),
    [
        pytest.param(MAX_METADATA_BYTES // 2, grpc.StatusCode.OK, id="within the limit"),
        pytest.param(MAX_METADATA_BYTES, grpc.StatusCode.RESOURCE_EXHAUSTED, id="beyond the limit"),
    ],
)
def test_metadata_are_bounded(server: Server, size: int, code: grpc.StatusCode) -> None:
    with grpc.insecure_channel(server.grpc_url) as channel:
        future = channel.unary_unary(LIVE).future(b"", timeout=30, metadata=[("x-large", "x" * size)])
        assert future.code() == code
