"""Why a server does not answer, beside what is wrong with the data, and how it tells of it in its log."""

import logging
from time import monotonic

from model_name.errors import DataError, DependencyError, ModelNameError

logger = logging.getLogger("model_name.serving")

MAX_LOGGED_CHARACTERS = 500  # characters of it in the log
MAX_MESSAGE_CHARACTERS = 4000  # characters of it in an answer: it quotes what the client sent
MAX_LINES_PER_SECOND = 10  # refusals that are told one by one


class UnsupportedOperationError(ModelNameError, NotImplementedError):
    """Something of KServe's API that this server does not do: 501, or UNIMPLEMENTED."""

    http_status = 501


class UnauthorizedError(ModelNameError, PermissionError):
    """A client does not show the token that it needs."""

    http_status = 401


class RequestTimeoutError(DataError):
    """A client takes too long to say what it wants."""

    http_status = 408


class UnsupportedMediaTypeError(DataError):
    """A body is in an encoding that is not known here."""

    http_status = 415


class MethodNotAllowedError(DataError):
    """A path is asked by a method that it does not have."""

    http_status = 405


class ClientDisconnectedError(DataError):
    """A client does not wait for its answer; 499 is how it is counted, and nobody is told it."""

    http_status = 499


class ModelNotLoadedError(DependencyError):
    """The model was unloaded, by somebody who may."""


class ShuttingDownError(DependencyError):
    """The server takes no new work."""


class ErrorLogger:
    """Tells why requests are refused, the first few of each second."""

    def __init__(self, *, is_quoting: bool) -> None:
        """Leave the reason out where it may quote a value that must not be in a log."""
        self.is_quoting = is_quoting
        self._second = 0
        self._count = 0

    def tell(self, request: str, err: ModelNameError) -> None:
        """Tell of one.

        Args:
            request: What was asked, without anything that a client chose.
            err: Why it is refused.
        """
        now = int(monotonic())
        if now != self._second:
            if self._count > MAX_LINES_PER_SECOND:
                logger.warning("refused: and %d more", self._count - MAX_LINES_PER_SECOND)
            self._second, self._count = now, 0
        self._count += 1
        if self._count <= MAX_LINES_PER_SECOND:
            reason = one_line(err.message) if self.is_quoting else "the client was told why"
            logger.warning("refused: %s: %d: %s", request, err.http_status, reason)


def one_line(message: str) -> str:
    """A message on one line of the log, where what a client chose moves no cursor."""
    line = " ".join(message[: 2 * MAX_LOGGED_CHARACTERS].split())[:MAX_LOGGED_CHARACTERS]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def client_message(err: ModelNameError, most: int = MAX_MESSAGE_CHARACTERS) -> str:
    """The reason as a client is told it: as far as UTF-8 can hold what it quotes, and no longer than `most`."""
    message = err.message if len(err.message) <= most else f"{err.message[:most]} …"
    return message.encode("utf-8", "replace").decode()
