"""Command line of a server, and the objects that its arguments describe."""

import logging
import os
import socket
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError
from typing_extensions import override

from model_name.errors import ConfigError, ModelNameError
from model_name.serving.bundle_signature import PUBLIC_KEY_ENV
from model_name.serving.identifiers import check_option
from model_name.serving.limits import Limits
from model_name.serving.prediction_log.log import LOG_KEY_ENV, LogSettings, PredictionLog
from model_name.serving.rest.cors import CorsPolicy
from model_name.serving.runtime.tls import TlsConfig

logger = logging.getLogger("model_name.serving")

DEFAULT_MODEL_DIRECTORY = Path("/mnt/models")  # into which KServe's storage initializer downloads `storageUri`
SLOT_ENV = "MODEL_NAME_SLOT"
CERTIFICATE_ENV, KEY_ENV = "KSERVE_TLS_CERT_FILE", "KSERVE_TLS_KEY_FILE"  # as in KServe
LIMIT_OPTIONS = {
    "body_bytes": "max_body_bytes",
    "rows": "max_rows",
    "text_length": "max_text_length",
    "queued_requests": "max_queued_requests",
    "queued_bytes": "max_queued_bytes",
    "header_seconds": "header_seconds",
    "body_seconds": "body_seconds",
    "answer_seconds": "answer_seconds",
}
"""Options that set limits, by the name of the limit."""
TRUE, FALSE = frozenset({"y", "yes", "t", "true", "on", "1"}), frozenset({"n", "no", "f", "false", "off", "0"})


def boolean(text: str) -> bool:
    """Parse a truth value, as KServe's server does.

    Raises:
        ValueError: The text is not a truth value.
    """
    if text.lower() not in TRUE | FALSE:
        raise ValueError(f"invalid truth value {text!r}")
    return text.lower() in TRUE


def positive_number(text: str) -> int:
    """Parse a whole number above 0.

    Raises:
        ArgumentTypeError: The text is not a whole number above 0.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number <= 0:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return number


LOG_OPTIONS: dict[str, dict[str, Any]] = {
    "--prediction_log": {"default": "", "metavar": "URL", "help": "Folder of the prediction log, or any fsspec URL."},
    "--log_sampling": {"type": float, "default": 1.0, "help": "Probability with which a request is logged."},
    "--log_text_ids": {"type": boolean, "default": False, "help": "Log text-id columns."},
    "--log_flush_seconds": {
        "type": float,
        "default": 30.0,
        "help": "Time at the end of the server to write what is still to be logged.",
    },
}
"""Options of the prediction log, as arguments of argparse."""
NO_LOG = "explanations are not logged"
NO_TRANSFORMER = "this server is a predictor, not a transformer that calls one"
UNUSED_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "--max_threads": ("gRPC runs on the event loop", {"type": int, "default": 4}),
    "--max_asyncio_workers": ("only few tasks run in threads", {"type": int, "default": None}),
    "--enable_latency_logging": ("latencies are metrics", {"type": boolean, "default": False}),
    "--access_log_format": ("--access_log and --log_config_file configure the access log", {"default": None}),
    "--predictor_host": (NO_TRANSFORMER, {"default": None}),
    "--protocol": (NO_TRANSFORMER, {"choices": ("v1", "v2", "grpc-v2"), "default": "v1"}),
    "--predictor_protocol": (NO_TRANSFORMER, {"choices": ("v1", "v2", "grpc-v2"), "default": "v1"}),
    "--predictor_use_ssl": (NO_TRANSFORMER, {"type": boolean, "default": False}),
    "--predictor_request_timeout_seconds": (NO_TRANSFORMER, {"type": int, "default": 600}),
    "--predictor_request_retries": (NO_TRANSFORMER, {"type": int, "default": 0}),
    "--enable_predictor_health_check": (NO_TRANSFORMER, {"nargs": 0, "default": False}),
}
"""Options of KServe's server without an effect here: the reason, and how argparse parses them."""


class UnusedOption(Action):
    """Option of KServe's server without an effect here; its use is recorded for a warning."""

    @override
    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: Any, option_string: str | None = None
    ) -> None:
        setattr(namespace, self.dest, True if self.nargs == 0 else values)
        namespace.unused_options = (*namespace.unused_options, self.option_strings[0])


def build_parser(prog: str, description: str | None, *, has_log: bool = True) -> ArgumentParser:
    """Build the command line of a server: the options of KServe's server, and those of this one.

    Args:
        prog: Name of the program.
        description: Description of the program.
        has_log: Whether the server has a prediction log; without one, its options only cause a warning.
    """
    parser = ArgumentParser(prog=prog, description=description, formatter_class=ArgumentDefaultsHelpFormatter)
    _add_kserve_options(parser)
    _add_unused_options(parser)
    _add_server_options(parser)
    _add_log_options(parser, has_log=has_log)
    return parser


def _add_kserve_options(parser: ArgumentParser) -> None:
    max_bytes = Limits().body_bytes  # gRPC must not reject what `max_body_bytes` allows; KServe's default is 8 MB
    add = parser.add_argument_group("KServe", "Options of KServe's server.").add_argument
    add("--http_port", type=int, default=8080, help="Port of REST.")
    add("--grpc_port", type=int, default=8081, help="Port of gRPC.")
    add("--workers", type=int, default=1, help="Number of processes; a server of one bundle is one process.")
    add("--enable_grpc", type=boolean, default=True, help="Serve gRPC.")
    add("--enable_docs_url", type=boolean, default=False, help="Show Swagger UI at /docs.")
    add("--configure_logging", type=boolean, default=True, help="Configure the loggers of the server and of uvicorn.")
    add("--log_config_file", default=None, help="Logging configuration: a file in YAML, JSON or Python's format.")
    add(
        "--event-loop",
        choices=["auto", "asyncio", "uvloop"],
        default="auto",
        help="Event loop of the server; auto is uvloop.",
    )
    add(
        "--timeout-keep-alive",
        type=int,
        default=65,
        help="Seconds for which an idle connection stays open; should be longer than the idle timeout of a proxy.",
    )
    add("--model_name", default=None, help="Name of the model in paths; the name of the bundle by default.")
    add("--grpc_max_send_message_length", type=int, default=max_bytes, help="Maximum bytes of a gRPC response.")
    add("--grpc_max_receive_message_length", type=int, default=max_bytes, help="Maximum bytes of a gRPC request.")
    certificate, key = os.environ.get(CERTIFICATE_ENV), os.environ.get(KEY_ENV)
    add("--ssl_certfile", default=certificate, help=f"TLS certificate in PEM; by default ${CERTIFICATE_ENV}.")
    add("--ssl_keyfile", default=key, help=f"Private key of the certificate in PEM; by default ${KEY_ENV}.")


def _add_unused_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("KServe, without effect", "Options of KServe's server that only cause a warning.")
    for option, (reason, settings) in UNUSED_OPTIONS.items():
        group.add_argument(option, action=UnusedOption, help=f"No effect: {reason}.", **settings)
    parser.set_defaults(unused_options=())


def _add_server_options(parser: ArgumentParser) -> None:
    limits = Limits()
    add = parser.add_argument_group("this server").add_argument
    add("--host", default="0.0.0.0", help="Address of the interface to listen on.")  # noqa: S104  as KServe's server  # nosec B104
    slot = os.environ.get(SLOT_ENV, "")
    add("--slot", default=slot, help=f"Blue-green slot, blue or green, in metrics and logs; by default ${SLOT_ENV}.")
    add("--access_log", type=boolean, default=False, help="Log a line per request.")
    add("--forward_threads", type=int, default=1, help="Threads of a forward pass; 0 uses all processors.")
    add("--drain_seconds", type=float, default=3.0, help="Time from SIGTERM until new requests are rejected.")
    add("--grace_seconds", type=float, default=30.0, help="Time after that until pending requests are dropped.")
    add("--watch_seconds", type=float, default=5.0, help="Interval of checks for a new bundle; 0 disables them.")
    add("--ssl_client_ca", type=Path, default=None, help="Authority of the certificates that clients must have (mTLS).")
    add("--max_body_bytes", type=int, default=limits.body_bytes, help="Maximum bytes of a request.")
    add("--max_rows", type=int, default=limits.rows, help="Maximum rows of a request.")
    add("--max_text_length", type=int, default=limits.text_length, help="Maximum characters of a text.")
    add("--max_queued_requests", type=int, default=limits.queued_requests, help="Queue length above which 429 is sent.")
    add(
        "--max_queued_bytes",
        type=int,
        default=limits.queued_bytes,
        help="Bytes of all requests and unread responses above which 429 is sent.",
    )
    add("--header_seconds", type=float, default=limits.header_seconds, help="Time limit for the headers of a request.")
    add("--body_seconds", type=float, default=limits.body_seconds, help="Time limit for the body of a request.")
    add(
        "--answer_seconds",
        type=float,
        default=limits.answer_seconds,
        help="Time limit for a response, and for its reading.",
    )
    add(
        "--max_connections",
        type=positive_number,
        default=4096,
        help="Maximum number of REST connections; beyond it, probes are answered and others get 503.",
    )
    add(
        "--cors_origins",
        default="",
        metavar="ORIGINS",
        help="Origins of web pages that may use REST, separated by commas, or *; none by default.",
    )
    add(
        "--bundle_public_key",
        default=os.environ.get(PUBLIC_KEY_ENV, ""),
        metavar="FILE",
        help=f"Ed25519 public keys in PEM, one of which must have signed the bundle; by default ${PUBLIC_KEY_ENV}.",
    )
    add("--model_repository", type=boolean, default=False, help="Let clients load and unload the model.")
    add(
        "--tracing",
        type=boolean,
        default=None,
        help="Trace requests by OpenTelemetry; by default if a variable such as OTEL_EXPORTER_OTLP_ENDPOINT is set.",
    )
    _add_grpc_options(parser)


def _add_grpc_options(parser: ArgumentParser) -> None:
    """Add the options of gRPC; those of keepalive have the names and the meaning of Triton's."""
    add = parser.add_argument_group("gRPC", "Options of gRPC beside those of KServe's server.").add_argument
    add(
        "--grpc_max_concurrent_calls",
        type=positive_number,
        default=2048,
        help="Calls at once, beyond which they are refused.",
    )
    add("--enable_grpc_reflection", type=boolean, default=True, help="Describe the services to tools such as grpcurl.")
    add("--grpc_max_connections", type=positive_number, default=2048, help="Connections, beyond which they are closed.")
    add(
        "--grpc_keepalive_time_ms",
        type=positive_number,
        default=120_000,
        help="Time after which an idle client is pinged.",
    )
    add(
        "--grpc_keepalive_timeout_ms",
        type=positive_number,
        default=20_000,
        help="Time limit for the response to a ping.",
    )
    add("--grpc_keepalive_permit_without_calls", type=boolean, default=True, help="Ping clients without a call.")
    add(
        "--grpc_min_recv_ping_interval_without_data_ms",
        type=positive_number,
        default=300_000,
        help="Minimum time between two pings of a client without a call; a faster one gets strikes.",
    )
    add("--grpc_max_ping_strikes", type=int, default=2, help="Strikes above which a connection is closed; 0 for any.")
    add("--grpc_max_connection_age_ms", type=int, default=0, help="Age at which a connection is closed; 0 for any.")
    add("--grpc_max_connection_age_grace_ms", type=int, default=0, help="Time for its calls after that; 0 for any.")


def _add_log_options(parser: ArgumentParser, *, has_log: bool) -> None:
    group = parser.add_argument_group("prediction log")
    for option, settings in LOG_OPTIONS.items():
        if has_log:
            group.add_argument(option, **settings)
        else:
            group.add_argument(option, action=UnusedOption, **settings | {"help": f"No effect: {NO_LOG}."})


def run_main(parser: ArgumentParser, serve: Callable[[Namespace], None], argv: Sequence[str] | None) -> int:
    """Parse the command line, serve until a signal, and return the exit code."""
    args = parser.parse_args(argv)
    try:
        check_option("--slot", args.slot)
        check_option("--model_name", args.model_name or "", is_name=True)
        serve(args)
    except ModelNameError as err:
        sys.stderr.write(f"error: {err}\n")
        return err.exit_code
    return 0


def warn_of_unused_options(args: Namespace) -> None:
    """Log a warning for each given option that has no effect."""
    for option in args.unused_options:
        reason = UNUSED_OPTIONS[option][0] if option in UNUSED_OPTIONS else NO_LOG
        logger.warning("%s has no effect: %s", option, reason)


def parse_limits(args: Namespace) -> Limits:
    """Read the limits from the arguments.

    Raises:
        ConfigError: A limit is not above 0.
    """
    given = {field: getattr(args, option) for field, option in LIMIT_OPTIONS.items()}
    try:
        return Limits(**given)
    except ValidationError as err:
        first = err.errors()[0]
        raise ConfigError(f"--{LIMIT_OPTIONS[str(first['loc'][0])]}: {first['msg']}") from err


def parse_cors(args: Namespace) -> CorsPolicy:
    """Read the CORS policy from the arguments.

    Raises:
        ConfigError: An origin is invalid.
    """
    return CorsPolicy([origin.strip() for origin in args.cors_origins.split(",") if origin.strip()])


def build_prediction_log(args: Namespace) -> PredictionLog | None:
    """Build the prediction log that the arguments describe, and check that it can be written; none by default.

    Raises:
        ConfigError: The URL or the sampling is invalid, or the folder cannot be written.
        DependencyError: The package for the scheme of the URL is missing.
    """
    if not args.prediction_log:
        return None
    try:
        settings = LogSettings(url=args.prediction_log, sampling=args.log_sampling, text_ids=bool(args.log_text_ids))
    except ValidationError as err:
        first = err.errors()[0]
        raise ConfigError(f"--log_{first['loc'][0]}: {first['msg']}") from err
    if not args.log_flush_seconds >= 0:  # NaN, too
        raise ConfigError("--log_flush_seconds: must be 0 or more")
    log = PredictionLog(settings, slot=args.slot, key=os.environ.get(LOG_KEY_ENV, "").encode())
    log.check_writable()
    return log


def parse_tls(args: Namespace) -> TlsConfig | None:
    """Read the TLS configuration from the arguments, and load its files once; none by default.

    Raises:
        ConfigError: One file is given without the other, or cannot be loaded.
    """
    files = (args.ssl_certfile, args.ssl_keyfile)
    if not any(files) and args.ssl_client_ca is None:
        return None
    if not all(files):
        raise ConfigError("--ssl_certfile and --ssl_keyfile belong together", hint="name both")
    tls = TlsConfig(Path(args.ssl_certfile), Path(args.ssl_keyfile), args.ssl_client_ca)
    try:
        tls.ssl_context()
    except OSError as err:  # `ssl.SSLError` is an OSError
        raise ConfigError(f"--ssl_certfile, --ssl_keyfile, --ssl_client_ca: {err}") from err
    return tls


class ListenAddress(NamedTuple):
    """Address of a server.

    Attributes:
        host: Address of the interface.
        http_port: Port of REST.
        grpc_port: Port of gRPC; None if gRPC is not served.
    """

    host: str
    http_port: int
    grpc_port: int | None


def parse_address(args: Namespace) -> ListenAddress:
    """Read the address from the arguments.

    Raises:
        ConfigError: `--workers` is not 1.
    """
    if args.workers != 1:
        raise ConfigError("--workers: a server is one process", hint="add replicas instead")
    return ListenAddress(args.host, args.http_port, args.grpc_port if args.enable_grpc else None)


def check_ports_free(address: ListenAddress) -> None:
    """Check that the ports are free, to report a port in use under the name of its option.

    Raises:
        ConfigError: A port cannot be listened on.
    """
    for flag, port in (("--http_port", address.http_port), ("--grpc_port", address.grpc_port)):
        if port is None:
            continue
        try:
            socket.create_server((address.host, port)).close()
        except OSError as err:
            raise ConfigError(f"{flag} {port}: {err.strerror}", hint="name another port") from err
