"""The one error tree: every error says what went wrong, where, and what to do next."""

from typing import ClassVar


class ModelNameError(Exception):
    """Root of the errors that this project raises on purpose.

    Attributes:
        exit_code: What the command line exits with.
        http_status: What a server answers with.
        hint: What the reader can do next; printed below the message.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the message and the hint apart, so that a server can send the first alone."""
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Message, and the hint on a line of its own."""
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
    """A request asks for more than a server does at once."""

    http_status = 413


class NotFoundError(ModelNameError, LookupError):
    """A model, version, bundle or file that was asked for does not exist."""

    exit_code = 4
    http_status = 404


class DependencyError(ModelNameError, ConnectionError):
    """A service or an optional package that this needs cannot be reached."""

    exit_code = 5
    http_status = 503


class StorageError(ModelNameError, OSError):
    """Something could not be written or read: disk full, no permission, gone."""

    exit_code = 5
    http_status = 503


class BusyError(DependencyError):
    """A server has as much to do as it may take on; later it will have less."""

    http_status = 429


class NotFittedError(ModelNameError, RuntimeError):
    """A model was asked for something that only a fitted model has."""

    http_status = 503


class ExportError(ModelNameError, ArithmeticError):
    """An exported model does not answer like the model it was made from."""


class ExplanationError(ModelNameError, ArithmeticError):
    """Contributions of the features do not add up to what they explain."""


class AuditError(ModelNameError, RuntimeError):
    """The audit trail was changed after it was written, or has a gap."""


class PreemptedError(ModelNameError, InterruptedError):
    """The work was told to stop (SIGTERM); its checkpoints allow the next run to go on."""

    exit_code = 143
    http_status = 503
