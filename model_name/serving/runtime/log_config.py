"""What a server writes to stderr."""

import logging
import warnings
from argparse import Namespace

from kserve.logging import configure_logging


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
