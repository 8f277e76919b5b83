"""What a server writes to stderr."""

import logging
import warnings
from argparse import Namespace
from time import monotonic

from kserve.logging import configure_logging

from model_name.errors import ModelNameError

logger = logging.getLogger("model_name.serving")

MAX_REASON = 500  # characters of it in the log
MOST_A_SECOND = 10  # refusals that are told one by one


def configure(args: Namespace) -> None:
    """One line an event."""
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # by kserve
    if not args.configure_logging:
        return
    if args.log_config_file is not None:
        configure_logging(args.log_config_file)
        return
    line = {"format": "%(asctime)s %(levelname)s %(name)s %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    levels = {
        "model_name": "INFO",
        "kserve": "WARNING",
        "kserve.trace": "INFO" if args.enable_latency_logging else "WARNING",
        "uvicorn": "INFO",
    }
    configure_logging(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": line},
            "filters": {"short": {"()": Short}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["short"]}},
            "loggers": {
                name: {"handlers": ["stderr"], "level": level, "propagate": False} for name, level in levels.items()
            },
        }
    )


class Short(logging.Filter):
    """Makes one line of what KServe's routes log with a trace: a request that they refuse."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the trace off, and let all lines through."""
        if record.name.startswith("kserve"):
            record.exc_info, record.exc_text = None, None
        return True


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
            reason = " ".join(err.message.split())[:MAX_REASON] if self.is_quoting else "the client was told why"
            logger.warning("refused: %s: %d: %s", request, err.http_status, reason)
