"""Access log: uvicorn's line per request, with the id of the request."""

import logging
from contextvars import ContextVar

from typing_extensions import override

ACCESS_LOGGER = "uvicorn.access"

current_request_id: ContextVar[str] = ContextVar("current_request_id", default="-")
"""Id of the request that the current task handles."""


class RequestIdFilter(logging.Filter):
    """Filter that adds the attribute `request_id` to the records of the access log and drops none."""

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = current_request_id.get()
        return True


def add_request_ids() -> None:
    """Add the ids to the access log, for `%(request_id)s` in the format of a handler."""
    logging.getLogger(ACCESS_LOGGER).addFilter(RequestIdFilter())
