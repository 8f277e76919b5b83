"""Logging of a server to stderr."""

import json
import logging.config
from argparse import Namespace
from pathlib import Path

LOG_LEVELS = {"model_name": "INFO", "uvicorn": "INFO"}


def configure_logging(args: Namespace) -> None:
    """Configure the loggers: one line per event, or as a configuration file defines."""
    if not args.configure_logging:
        return
    if args.log_config_file is not None:
        load_log_config(args.log_config_file)
        return
    line = {"format": "%(asctime)s %(levelname)s %(name)s %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": line},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
            "loggers": {
                name: {"handlers": ["stderr"], "level": level, "propagate": False} for name, level in LOG_LEVELS.items()
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
