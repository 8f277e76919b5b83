"""Why a server does not answer, beside what is wrong with the data, and how it tells of it in its log."""

import logging
from time import monotonic

from model_name.errors import DataError, DependencyError, ModelNameError

logger = logging.getLogger("model_name.serving")

MAX_REASON = 500  # characters of it in the log
MAX_TOLD = 4000  # characters of it in an answer: it quotes what the client sent
MOST_A_SECOND = 10  # refusals that are told one by one


class UnservedError(ModelNameError, NotImplementedError):
    """Something of KServe's API that this server does not do: 501, or UNIMPLEMENTED."""

    http_status = 501


class UnauthorizedError(ModelNameError, PermissionError):
    """A client does not show the token that it needs."""

    http_status = 401


class SlowError(DataError):
    """A client takes too long to say what it wants."""

    http_status = 408


class MediaError(DataError):
    """A body is in an encoding that is not known here."""

    http_status = 415


class MethodError(DataError):
    """A path is asked by a method that it does not have."""

    http_status = 405


class AbandonedError(DataError):
    """A client does not wait for its answer; 499 is how it is counted, and nobody is told it."""

    http_status = 499


class UnloadedError(DependencyError):
    """The model was unloaded, by somebody who may."""


class EndingError(DependencyError):
    """The server takes no new work."""


class Refusals:
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
            if self._count > MOST_A_SECOND:
                logger.warning("refused: and %d more", self._count - MOST_A_SECOND)
            self._second, self._count = now, 0
        self._count += 1
        if self._count <= MOST_A_SECOND:
            reason = printable(err.message) if self.is_quoting else "the client was told why"
            logger.warning("refused: %s: %d: %s", request, err.http_status, reason)


def printable(message: str) -> str:
    """A message on one line of the log, where what a client chose moves no cursor."""
    line = " ".join(message[: 2 * MAX_REASON].split())[:MAX_REASON]
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


def told(err: ModelNameError, most: int = MAX_TOLD) -> str:
    """The reason as a client is told it: as far as UTF-8 can hold what it quotes, and no longer than `most`."""
    message = err.message if len(err.message) <= most else f"{err.message[:most]} …"
    return message.encode("utf-8", "replace").decode()
