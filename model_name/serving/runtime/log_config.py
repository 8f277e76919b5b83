"""Logging of a server to stderr."""

import json
import logging.config
from argparse import Namespace
from pathlib import Path

from model_name.serving.runtime.access_log import ACCESS_LOGGER, add_request_ids

LOGGERS = {"model_name": "stderr", "uvicorn": "stderr", "opentelemetry": "stderr", ACCESS_LOGGER: "access"}
"""Handler of each logger."""
LINE_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
DATE_FORMAT = "%Y-%m-%dT%H:%M:%S%z"


def configure_logging(args: Namespace) -> None:
    """Configure the loggers: one line per event, or as a configuration file defines."""
    if not args.configure_logging:
        return
    add_request_ids()
    if args.log_config_file is not None:
        load_log_config(args.log_config_file)
        return
    formats = {"stderr": LINE_FORMAT, "access": f"{LINE_FORMAT} (request %(request_id)s)"}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {name: {"format": text, "datefmt": DATE_FORMAT} for name, text in formats.items()},
            "handlers": {name: {"class": "logging.StreamHandler", "formatter": name} for name in formats},
            "loggers": {
                name: {"handlers": [handler], "level": "INFO", "propagate": False} for name, handler in LOGGERS.items()
            },
        }
    )


def load_log_config(path: str) -> None:
    """Load a logging configuration: YAML or JSON by the suffix of the file, else the format of `logging.config`."""
    match Path(path).suffix:
        case ".json":
            logging.config.dictConfig(json.loads(Path(path).read_text(encoding="utf-8")))
        case ".yaml" | ".yml":
            import yaml  # few servers have such a file

            logging.config.dictConfig(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
        case _:
            logging.config.fileConfig(path, disable_existing_loggers=False)
