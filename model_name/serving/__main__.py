"""`python -m model_name.serving`: the predictor of one bundle on KServe's server, for V1 and V2 by REST and gRPC.

KServe binds REST to 0.0.0.0 and gRPC to [::], in plain text and without authentication, and has no option for it: what
may reach the ports is for the network to say.
"""

import logging
import socket
import struct
import sys
import warnings
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from kserve import InferRequest, ModelServer, model_server
from kserve.errors import InferenceError, InvalidInput
from kserve.logging import configure_logging
from kserve.protocol.dataplane import DataPlane as Protocols
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, ModelNameError
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.predictor import Predictor, UnservedError

MODELS = Path("/mnt/models")  # where KServe's storage initializer puts what `storageUri` names
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, struct.error, InferenceError)
MAX_REASON = 500  # characters of it in the log


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, and return the exit code."""
    args = parse(argv)
    try:
        serve(args)
    except ModelNameError as err:
        sys.stderr.write(f"error: {err}\n")
        return err.exit_code
    return 0


def parse(argv: Sequence[str] | None = None) -> Namespace:
    """The command line: KServe's, and the bundle."""
    parser = ArgumentParser(
        prog="python -m model_name.serving",
        description=__doc__,
        parents=[model_server.parser],
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=MODELS, help="The folder of the bundle.")
    # The bundle has a name, and one line a request is enough.
    parser.set_defaults(model_name=None, enable_latency_logging=False)
    return parser.parse_args(argv)


def serve(args: Namespace) -> None:
    """Load the bundle, answer its example and serve until SIGTERM.

    Raises:
        ConfigError: An argument asks for what cannot be done, or a port is taken.
        NotFoundError: A file of the bundle is missing.
        DataError: The bundle is broken.
    """
    if args.workers != 1:
        raise ConfigError("--workers: a server is one process", hint="add replicas instead")
    bundle = Bundle.load(args.bundle)
    log(args, bundle.manifest.table)
    predictor = Predictor(args.model_name or bundle.manifest.name, DataPlane(bundle))
    predictor.load()
    server = build_server(args)
    check_free("--http_port", server.http_port)
    if server.enable_grpc:
        check_free("--grpc_port", server.grpc_port)
    server.start([predictor])


def check_free(flag: str, port: int) -> None:
    """Find a taken port before the servers do: they exit with a trace, or with the code of a refused gate.

    Raises:
        ConfigError: It cannot be listened on.
    """
    try:
        socket.create_server(("", port)).close()
    except OSError as err:
        raise ConfigError(f"{flag} {port}: {err.strerror}", hint="name another port") from err


def build_server(args: Namespace) -> ModelServer:
    """KServe's server, with what it leaves open closed."""
    model_server.args = args  # its gRPC server reads the limits from there, and there are those of `sys.argv`
    model_server.app.add_exception_handler(RequestValidationError, refuse_malformed)
    server = ModelServer(
        http_port=args.http_port,
        grpc_port=args.grpc_port,
        max_threads=args.max_threads,
        max_asyncio_workers=args.max_asyncio_workers,
        enable_grpc=args.enable_grpc,
        enable_latency_logging=args.enable_latency_logging,
        access_log_format=args.access_log_format,
        event_loop=args.event_loop,
        timeout_keep_alive=args.timeout_keep_alive,
        ssl_certfile=args.ssl_certfile,
        ssl_keyfile=args.ssl_keyfile,
    )
    server.dataplane = StrictProtocols(server.registered_models)
    server.model_repository_extension = FixedModels(server.registered_models)
    return server


class StrictProtocols(Protocols):
    """KServe's decoding, that answers 400 where a malformed binary body would be its 500."""

    def decode(self, body: Any, headers: Any, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """As of KServe.

        Raises:
            InvalidInput: The body is malformed.
        """
        try:
            request, attributes = super().decode(body, headers, *args, **kwargs)
            if isinstance(request, InferRequest):
                _ = request.use_binary_outputs  # reads parameters that nobody has looked at before
        except InvalidInput:
            raise
        except MALFORMED as err:
            raise InvalidInput(f"the body is malformed: {type(err).__name__}: {err}") from err
        return request, attributes

    def metadata(self) -> dict[str, Any]:
        """As of KServe, less the repository that `FixedModels` refuses."""
        return {**super().metadata(), "extensions": []}


class FixedModels(ModelRepositoryExtension):
    """Refuses to load and unload: KServe would let anyone do it who reaches the port."""

    async def load(self, model_name: str) -> None:
        """Refuse.

        Raises:
            UnservedError: Always.
        """
        raise UnservedError("models are loaded at the start, and by nobody else")

    async def unload(self, model_name: str) -> None:
        """Refuse.

        Raises:
            UnservedError: Always.
        """
        raise UnservedError("models are unloaded at the end, and by nobody else")


async def refuse_malformed(_: Request, err: RequestValidationError) -> JSONResponse:
    """Answer a body that is not one of V2 in the shape of every other refusal, with the tensor named."""
    return JSONResponse({"error": malformation(err.errors()[0], err.body)}, status_code=400)


def malformation(first: Mapping[str, Any], body: Any) -> str:
    """What is wrong with a body, in the words of pydantic."""
    if first["type"] == "json_invalid":
        return f"the body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}"
    place = [part for part in first["loc"] if part not in ("body", "InferenceRequest")]
    match place, body:
        case ["inputs", int() as position, field, *_], {"inputs": list() as inputs}:
            match inputs[position]:
                case {"name": str() as name}:
                    return f"{name}: {field}: {first['msg']}"
    return f"{'.'.join(['the body', *map(str, place)])}: {first['msg']}"


def log(args: Namespace, schema: TableSchema) -> None:
    """Configure the log: one line a request, on stderr."""
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # by kserve
    if not args.configure_logging:
        return
    if args.log_config_file is not None:
        configure_logging(args.log_config_file)
        return
    line = {"format": "%(asctime)s %(levelname)s %(name)s %(message)s", "datefmt": "%Y-%m-%dT%H:%M:%S%z"}
    is_quoting = not any(column.sensitive for column in schema.columns.values())
    configure_logging(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": line},
            "filters": {"refusals": {"()": Refusals, "is_quoting": is_quoting}},
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["refusals"]}},
            "loggers": {
                name: {"handlers": ["stderr"], "level": level, "propagate": False}
                for name, level in {
                    "kserve": "INFO",
                    "kserve.trace": "INFO" if args.enable_latency_logging else "WARNING",
                    "uvicorn": "INFO",
                }.items()
            },
        }
    )


class Refusals(logging.Filter):
    """Makes one line of the trace that KServe logs for a request that was refused."""

    def __init__(self, *, is_quoting: bool) -> None:
        """Leave the reason out where it may quote a value that must not be in a log."""
        super().__init__()
        self.is_quoting = is_quoting

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the line of a refusal, and let all lines through."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, InvalidInput | UnservedError):
            reason = " ".join(str(error).split())[:MAX_REASON] if self.is_quoting else "the client was told why"
            record.msg, record.args, record.exc_info = f"refused: {reason}", (), None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


if __name__ == "__main__":
    sys.exit(main())
