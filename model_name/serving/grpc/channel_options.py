"""Options of a gRPC server: limits of messages, calls and connections, and keepalive."""

from argparse import Namespace

MAX_METADATA_BYTES = 16 * 2**10
MILLISECONDS = 1000


def channel_options(args: Namespace) -> list[tuple[str, int]]:
    """Translate the command line to the options of gRPC.

    Args:
        args: Command line of the server.
    """
    return [
        ("grpc.max_send_message_length", args.grpc_max_send_message_length),
        ("grpc.max_receive_message_length", args.grpc_max_receive_message_length),
        ("grpc.so_reuseport", 0),
        # Beyond these, a client waits with its next call, and a connection is closed at once.
        ("grpc.max_concurrent_streams", args.grpc_max_concurrent_calls),
        ("grpc.max_allowed_incoming_connections", args.grpc_max_connections),
        ("grpc.server_handshake_timeout_ms", int(args.header_seconds * MILLISECONDS)),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.keepalive_time_ms", args.grpc_keepalive_time_ms),
        ("grpc.keepalive_timeout_ms", args.grpc_keepalive_timeout_ms),
        ("grpc.http2.ping_timeout_ms", args.grpc_keepalive_timeout_ms),
        ("grpc.keepalive_permit_without_calls", int(args.grpc_keepalive_permit_without_calls)),
        ("grpc.http2.max_pings_without_data", 0),  # of this server: it pings for as long as a connection is open
        ("grpc.http2.min_ping_interval_without_data_ms", args.grpc_min_recv_ping_interval_without_data_ms),
        ("grpc.http2.max_ping_strikes", args.grpc_max_ping_strikes),
        *_optional("grpc.max_connection_age_ms", args.grpc_max_connection_age_ms),
        *_optional("grpc.max_connection_age_grace_ms", args.grpc_max_connection_age_grace_ms),
    ]


def _optional(name: str, value: int) -> list[tuple[str, int]]:
    """Set an option unless its value is 0, which stands for no limit."""
    return [(name, value)] if value else []
