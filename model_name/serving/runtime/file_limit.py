"""Limit of the operating system on the open files of a process, of which connections are a part."""

import logging
import resource

logger = logging.getLogger("model_name.serving")

OTHER_FILES = 256  # open files that are no connections: of the prediction log and libraries


def usable_connections(maximum: int, *, grpc_connections: int = 0) -> int:
    """Raise the limit on open files as far as connections need, and return how many of REST fit into it.

    Args:
        maximum: Maximum number of connections of REST.
        grpc_connections: Maximum number of connections of gRPC.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = OTHER_FILES + grpc_connections
    needed = maximum + others
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return maximum
    fitting = max(1, soft - others, min(maximum, soft // 2))
    logger.warning("--max_connections %d: only %d fit into the limit of %d open files", maximum, fitting, soft)
    return fitting
