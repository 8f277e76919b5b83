"""Errors of the project: each message names the problem and its location, and a hint suggests the next step."""

from typing import ClassVar


class ModelNameError(Exception):
    """Base class of the errors that this project raises.

    Attributes:
        exit_code: Exit code of the command line.
        http_status: Status code of a server's response.
        message: Description of the error.
        hint: Suggested next step, printed below the message.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep message and hint apart, so that a server can send the message alone."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return the message, and the hint on a separate line."""
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class ConfigError(ModelNameError, ValueError):
    """A config file, a flag or an environment variable is wrong."""

    exit_code = 2
    http_status = 400


class DataError(ModelNameError, ValueError):
    """A table or a request does not fit its schema."""

    exit_code = 4
    http_status = 400


class TooLargeError(DataError):
    """A request exceeds a limit of the server."""

    http_status = 413


class NotFoundError(ModelNameError, LookupError):
    """A requested model, version, bundle or file does not exist."""

    exit_code = 4
    http_status = 404


class DependencyError(ModelNameError, ConnectionError):
    """A required service or optional package is not available."""

    exit_code = 5
    http_status = 503


class StorageError(ModelNameError, OSError):
    """A file cannot be read or written: the disk is full, access is denied, or the file is gone."""

    exit_code = 5
    http_status = 503


class BusyError(DependencyError):
    """A server is at capacity; the request can be retried later."""

    http_status = 429


class NotFittedError(ModelNameError, RuntimeError):
    """An operation needs a fitted model, and the model is not fitted."""

    http_status = 503


class ExportError(ModelNameError, ArithmeticError):
    """The predictions of an exported model differ from those of the original."""


class ExplanationError(ModelNameError, ArithmeticError):
    """The contributions of the features do not add up to the explained prediction."""


class AuditError(ModelNameError, RuntimeError):
    """The audit trail was changed after it was written, or has a gap."""


class PreemptedError(ModelNameError, InterruptedError):
    """The process received SIGTERM; the next run can resume from its checkpoints."""

    exit_code = 143
    http_status = 503
