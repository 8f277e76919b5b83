"""Statuses of gRPC calls: those of errors, and the details that are sent with them."""

from collections.abc import Coroutine, Sequence
from typing import Any, Never
from urllib.parse import quote

import grpc
from grpc.aio import AbortError

from model_name.errors import ModelNameError
from model_name.serving.request_errors import client_message

STATUS_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""gRPC status by HTTP status; INTERNAL for any other."""
SERVER_ERRORS = frozenset(
    {
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Statuses that are failures of the server, by the semantic conventions of OpenTelemetry."""
MAX_DETAIL_BYTES = 4000  # of a message: gRPC sends it percent-encoded in a header, of which clients take 8 KB
UNESCAPED_CHARACTERS = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")  # that gRPC does not percent-encode

Metadata = Sequence[tuple[str, str]]


def abort(grpc_context: Any, err: ModelNameError, trailing_metadata: Metadata = ()) -> Coroutine[Any, Any, Never]:
    """End a call with the status of an error; the coroutine raises `AbortError`, which gRPC expects from the handler.

    The coroutine refers neither to the error nor to its traceback: gRPC keeps what it raises, and so all frames, until
    the garbage collector runs, and frames refer to messages.

    Args:
        grpc_context: Context of the call.
        err: Reason of the failure; its cause is the `AbortError` if the call has been ended already.
        trailing_metadata: Trailing metadata of the status.
    """
    if isinstance(err.__cause__, AbortError):
        return _reraise(err.__cause__.with_traceback(None))
    return grpc_context.abort(status_code(err.http_status), status_details(err), tuple(trailing_metadata))  # type: ignore[no-any-return]


def status_code(http_status: int) -> grpc.StatusCode:
    """Return the status of gRPC for an error of some HTTP status."""
    return STATUS_CODES.get(http_status, grpc.StatusCode.INTERNAL)


async def _reraise(err: AbortError) -> Never:
    raise err


def status_details(err: ModelNameError) -> str:
    """Shorten the message of an error to the size of a header."""
    details = client_message(err, MAX_DETAIL_BYTES)
    while len(quote(details, safe=UNESCAPED_CHARACTERS)) > MAX_DETAIL_BYTES:
        details = details[: len(details) // 2]
    return details
