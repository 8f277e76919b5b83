"""Limit of the operating system on the open files of a process, of which connections are a part."""

import logging
import resource

logger = logging.getLogger("model_name.serving")

OTHER_FILES = 256  # open files that are not REST connections: of gRPC, the prediction log and libraries


def usable_connections(maximum: int) -> int:
    """Raise the limit on open files as far as a number of connections needs, and return how many fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = maximum + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return maximum
    fitting = max(1, soft - OTHER_FILES, soft // 2)
    logger.warning("--max_connections %d: only %d fit into the limit of %d open files", maximum, fitting, soft)
    return fitting
