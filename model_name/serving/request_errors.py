"""Errors of requests that are not about their data, and how errors are reported to the client and to the log."""

import logging
from time import monotonic

from model_name.errors import DataError, DependencyError, ModelNameError

logger = logging.getLogger("model_name.serving")

MAX_LOGGED_CHARACTERS = 500
MAX_MESSAGE_CHARACTERS = 4000  # of a message to a client, which quotes what the client sent
MAX_LINES_PER_SECOND = 10


class UnsupportedOperationError(ModelNameError, NotImplementedError):
    """Operation of KServe's API that this server does not implement: 501, or UNIMPLEMENTED."""

    http_status = 501


class UnauthorizedError(ModelNameError, PermissionError):
    """Request without a valid token."""

    http_status = 401


class RequestTimeoutError(DataError):
    """Request whose body is not received in time."""

    http_status = 408


class UnsupportedMediaTypeError(DataError):
    """Body in an unsupported content encoding."""

    http_status = 415


class MethodNotAllowedError(DataError):
    """Method that a path does not support; the hint lists those that it does."""

    http_status = 405


class ClientDisconnectedError(DataError):
    """Client that disconnected before its response; the error is counted as 499 and never sent."""

    http_status = 499


class ModelNotLoadedError(DependencyError):
    """Model that was unloaded through the repository API."""


class ShuttingDownError(DependencyError):
    """Request to a server that rejects new requests because it shuts down."""


class TooManyConnectionsError(DependencyError):
    """Request other than a probe on a connection beyond the maximum number."""


class ErrorLogger:
    """Logs failed requests, at most `MAX_LINES_PER_SECOND` of them; the rest of a second is counted in one line."""

    def __init__(self, *, is_quoting: bool) -> None:
        """Log the messages of errors, or leave them out.

        Args:
            is_quoting: Whether messages are logged; they may quote values of sensitive columns.
        """
        self.is_quoting = is_quoting
        self._second = 0
        self._count = 0

    def log(self, request: str, err: ModelNameError, request_id: str, trace_id: str = "") -> None:
        """Log a failed request.

        Args:
            request: Protocol and route of the request, without any text from the client.
            err: Reason of the failure.
            request_id: Id of the request, which its response has as well.
            trace_id: Id of its trace; empty if it is not traced.
        """
        now = int(monotonic())
        if now != self._second:
            if self._count > MAX_LINES_PER_SECOND:
                logger.warning("refused: %d more in the same second", self._count - MAX_LINES_PER_SECOND)
            self._second, self._count = now, 0
        self._count += 1
        if self._count <= MAX_LINES_PER_SECOND:
            reason = one_line(err.message) if self.is_quoting else "the reason is only in the response"
            ids = f"{request_id}, trace {trace_id}" if trace_id else request_id
            logger.warning("refused: %s: %d: %s (request %s)", request, err.http_status, reason, ids)


def one_line(message: str) -> str:
    """Shorten a message to one line of printable characters: a client must not control the terminal of a log reader."""
    line = " ".join(message[: 2 * MAX_LOGGED_CHARACTERS].split())[:MAX_LOGGED_CHARACTERS]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def client_message(err: ModelNameError, max_characters: int = MAX_MESSAGE_CHARACTERS) -> str:
    """Shorten the message of an error for a response, and replace what UTF-8 cannot encode."""
    message = err.message if len(err.message) <= max_characters else f"{err.message[:max_characters]} …"
    return message.encode("utf-8", "replace").decode()
