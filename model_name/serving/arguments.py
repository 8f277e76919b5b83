"""The command line of a server, and what it stands for."""

import os
import socket
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from kserve import model_server
from kserve.utils.utils import strtobool
from pydantic import ValidationError

from model_name.errors import ConfigError, ModelNameError
from model_name.serving.limits import Limits
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from model_name.serving.runtime.server import ListenAddress, TlsConfig

DEFAULT_MODEL_DIRECTORY = Path("/mnt/models")  # where KServe's storage initializer puts what `storageUri` names
SLOT_ENV = "MODEL_NAME_SLOT"
LOG_KEY_ENV = "MODEL_NAME_LOG_KEY"
LIMIT_OPTIONS = {
    "body_bytes": "max_body_bytes",
    "rows": "max_rows",
    "text_length": "max_text_length",
    "queued_requests": "max_queued_requests",
    "header_seconds": "header_seconds",
    "body_seconds": "body_seconds",
    "answer_seconds": "answer_seconds",
}
"""The arguments that set them."""


def build_parser(prog: str, description: str | None) -> ArgumentParser:
    """The command line: KServe's, and ours."""
    parser = ArgumentParser(
        prog=prog,
        description=description,
        parents=[model_server.parser],
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    limits = Limits()
    add = parser.add_argument_group("this server").add_argument
    add("--host", default="0.0.0.0", help="The interface to listen on.")  # noqa: S104  as KServe does  # nosec B104
    add("--slot", default=os.environ.get(SLOT_ENV, ""), help=f"blue or green, for metrics and logs; {SLOT_ENV} else.")
    add("--access_log", type=strtobool, default=False, help="Log a line a request.")
    add("--forward_threads", type=int, default=1, help="Of one forward pass; 0 takes all processors of the machine.")
    add("--drain_seconds", type=float, default=3.0, help="From SIGTERM until no new work is taken.")
    add("--grace_seconds", type=float, default=30.0, help="From there until what is not answered is dropped.")
    add("--watch_seconds", type=float, default=5.0, help="Between two looks for a new bundle; 0 never looks.")
    add("--ssl_client_ca", type=Path, default=None, help="Clients must show a certificate that it signed (mTLS).")
    add("--prediction_log", default="", metavar="URL", help="A folder, or any fsspec URL; there is no log else.")
    add("--log_sampling", type=float, default=1.0, help="The share of requests in the log.")
    add("--log_text_ids", type=strtobool, default=False, help="Whether text-id columns are in the log.")
    add("--max_body_bytes", type=int, default=limits.body_bytes, help="Of one request.")
    add("--max_rows", type=int, default=limits.rows, help="Of one request.")
    add("--max_text_length", type=int, default=limits.text_length, help="Of one text, in characters.")
    add("--max_queued_requests", type=int, default=limits.queued_requests, help="Before 429 is answered.")
    add("--header_seconds", type=float, default=limits.header_seconds, help="For the headers of a request.")
    add("--body_seconds", type=float, default=limits.body_seconds, help="For its body.")
    add("--answer_seconds", type=float, default=limits.answer_seconds, help="For its answer.")
    add("--model_repository", type=strtobool, default=False, help="Clients may load and unload the model.")
    # The bundle has a name, and what KServe's default of 8 MB refuses is bounded here.
    parser.set_defaults(
        model_name=None,
        enable_latency_logging=False,
        grpc_max_receive_message_length=limits.body_bytes,
        grpc_max_send_message_length=limits.body_bytes,
    )
    return parser


def run_main(parser: ArgumentParser, serve: Callable[[Namespace], None], argv: Sequence[str] | None) -> int:
    """Parse and serve until a signal, and return the exit code."""
    args = parser.parse_args(argv)
    try:
        serve(args)
    except ModelNameError as err:
        sys.stderr.write(f"error: {err}\n")
        return err.exit_code
    return 0


def parse_limits(args: Namespace) -> Limits:
    """The limits that the arguments set.

    Raises:
        ConfigError: One of them is not above 0.
    """
    given = {field: getattr(args, argument) for field, argument in LIMIT_OPTIONS.items()}
    try:
        return Limits(**given)
    except ValidationError as err:
        first = err.errors()[0]
        raise ConfigError(f"--{LIMIT_OPTIONS[str(first['loc'][0])]}: {first['msg']}") from err


def build_prediction_log(args: Namespace) -> PredictionLog | None:
    """The prediction log that the arguments ask for.

    Raises:
        ConfigError: It cannot be one.
        DependencyError: The package for its URL is missing.
    """
    if not args.prediction_log:
        return None
    try:
        settings = LogSettings(url=args.prediction_log, sampling=args.log_sampling, text_ids=bool(args.log_text_ids))
    except ValidationError as err:
        first = err.errors()[0]
        raise ConfigError(f"--log_{first['loc'][0]}: {first['msg']}") from err
    return PredictionLog(settings, slot=args.slot, key=os.environ.get(LOG_KEY_ENV, "").encode())


def parse_tls(args: Namespace) -> TlsConfig | None:
    """The certificates that the arguments name.

    Raises:
        ConfigError: One is named without the other, or cannot be read.
    """
    named = (args.ssl_certfile, args.ssl_keyfile)
    if not any(named) and args.ssl_client_ca is None:
        return None
    if not all(named):
        raise ConfigError("--ssl_certfile and --ssl_keyfile belong together", hint="name both")
    tls = TlsConfig(Path(args.ssl_certfile), Path(args.ssl_keyfile), args.ssl_client_ca)
    try:
        tls.context()
    except OSError as err:  # of which errors of certificates are
        raise ConfigError(f"--ssl_certfile, --ssl_keyfile, --ssl_client_ca: {err}") from err
    return tls


def parse_address(args: Namespace) -> ListenAddress:
    """Where the arguments say to listen.

    Raises:
        ConfigError: They ask for several processes.
    """
    if args.workers != 1:
        raise ConfigError("--workers: a server is one process", hint="add replicas instead")
    return ListenAddress(args.host, args.http_port, args.grpc_port if args.enable_grpc else None)


def check_ports_free(address: ListenAddress) -> None:
    """Find a taken port before the servers do, and say so.

    Raises:
        ConfigError: It cannot be listened on.
    """
    for flag, port in (("--http_port", address.http_port), ("--grpc_port", address.grpc_port)):
        if port is None:
            continue
        try:
            socket.create_server((address.host, port)).close()
        except OSError as err:
            raise ConfigError(f"{flag} {port}: {err.strerror}", hint="name another port") from err
