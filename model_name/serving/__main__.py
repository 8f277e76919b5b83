"""`python -m model_name.serving`: the server of one bundle, for V1 and V2 by REST and by gRPC, and for CloudEvents.

Options of KServe's that make no sense for one model in one process are refused. Secrets come from the environment:
MODEL_NAME_TOKEN is the bearer token that clients must show, MODEL_NAME_LOG_KEY the key of the hashes that stand for
sensitive values in the prediction log.
"""

import gc
import os
import socket
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from kserve import ModelRepository, model_server
from kserve.protocol.dataplane import DataPlane as Protocols
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer
from kserve.utils.utils import strtobool

from model_name.errors import ConfigError, ModelNameError
from model_name.serving import logs
from model_name.serving.batching import Batcher
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.front import Application, Front, State
from model_name.serving.limits import Limits
from model_name.serving.predictor import Predictor
from model_name.serving.rpc import SERVICE, Rpc
from model_name.serving.security import Guard
from model_name.serving.server import Address, Server, Tls
from model_name.serving.swaps import Swapper
from model_name.serving.telemetry import Telemetry

MODELS = Path("/mnt/models")  # where KServe's storage initializer puts what `storageUri` names
TOKEN = "MODEL_NAME_TOKEN"  # noqa: S105  its name  # nosec B105
LOG_KEY = "MODEL_NAME_LOG_KEY"
SLOT = "MODEL_NAME_SLOT"


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
    """The command line: KServe's, and ours."""
    parser = ArgumentParser(
        prog="python -m model_name.serving",
        description=__doc__,
        parents=[model_server.parser],
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    limits = Limits()
    add = parser.add_argument_group("this server").add_argument
    add("--bundle", type=Path, default=MODELS, help="The folder of the bundle.")
    add("--host", default="0.0.0.0", help="The interface to listen on.")  # noqa: S104  as KServe does  # nosec B104
    add("--slot", default=os.environ.get(SLOT, ""), help=f"blue or green, for metrics and logs; {SLOT} else.")
    add("--access_log", type=strtobool, default=False, help="Log a line a request.")
    add("--drain_seconds", type=float, default=3.0, help="From SIGTERM until no new work is taken.")
    add("--grace_seconds", type=float, default=30.0, help="From there until what is not answered is dropped.")
    add("--watch_seconds", type=float, default=5.0, help="Between two looks for a new bundle; 0 never looks.")
    add("--ssl_client_ca", type=Path, default=None, help="Clients must show a certificate that it signed (mTLS).")
    add("--max_body_bytes", type=int, default=limits.body_bytes, help="Of one request.")
    add("--max_rows", type=int, default=limits.rows, help="Of one request.")
    add("--max_text_length", type=int, default=limits.text_length, help="Of one text, in characters.")
    add("--max_queued_requests", type=int, default=limits.queued_requests, help="Before 429 is answered.")
    add("--header_seconds", type=float, default=limits.header_seconds, help="For the headers of a request.")
    add("--body_seconds", type=float, default=limits.body_seconds, help="For its body.")
    add("--answer_seconds", type=float, default=limits.answer_seconds, help="For its answer.")
    # The bundle has a name, and what KServe's default of 8 MB refuses is bounded here.
    parser.set_defaults(
        model_name=None,
        enable_latency_logging=False,
        grpc_max_receive_message_length=limits.body_bytes,
        grpc_max_send_message_length=limits.body_bytes,
    )
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
    limits = limits_of(args)
    tls = tls_of(args)
    plane = DataPlane(Bundle.load(args.bundle))
    manifest = plane.bundle.manifest
    logs.configure(args)
    plane.warm_up()
    name = args.model_name or manifest.name
    telemetry = Telemetry(args.slot)
    telemetry.serve(manifest)
    state = State(is_loaded=True)
    batcher = Batcher(plane, limits)
    guard = Guard(os.environ.get(TOKEN, "").encode())
    rest = routes_of_kserve(args, Predictor(name, batcher))
    refusals = logs.Refusals(is_quoting=not any(column.sensitive for column in manifest.table.columns.values()))
    front = Front(name, batcher, state, telemetry=telemetry, guard=guard, limits=limits, refusals=refusals, rest=rest)
    rpc = Rpc(
        name,
        batcher,
        state,
        telemetry=telemetry,
        guard=guard,
        refusals=refusals,
        next_id=front.next_id,
        about=about(),
    )
    swapper = Swapper(args.bundle, batcher, telemetry, seconds=args.watch_seconds, load=Bundle.load)

    async def tick() -> None:
        batcher.expire()
        await swapper.look()

    address = Address(args.host, args.http_port, args.grpc_port if args.enable_grpc else None)
    check_free(address)
    server = Server(
        front,
        state,
        address,
        handler=rpc.handler(),
        service=SERVICE,
        tls=tls,
        args=args,
        header_seconds=limits.header_seconds,
        tick=tick,
    )
    gc.collect()
    gc.freeze()  # what was imported is not looked through again, which would take a tenth of a second
    server.run()
    batcher.close()


def limits_of(args: Namespace) -> Limits:
    """The limits that the arguments set."""
    return Limits(
        body_bytes=args.max_body_bytes,
        rows=args.max_rows,
        text_length=args.max_text_length,
        queued_requests=args.max_queued_requests,
        header_seconds=args.header_seconds,
        body_seconds=args.body_seconds,
        answer_seconds=args.answer_seconds,
    )


def tls_of(args: Namespace) -> Tls | None:
    """The certificates that the arguments name.

    Raises:
        ConfigError: One is named without the other, or cannot be read.
    """
    named = (args.ssl_certfile, args.ssl_keyfile)
    if not any(named) and args.ssl_client_ca is None:
        return None
    if not all(named):
        raise ConfigError("--ssl_certfile and --ssl_keyfile belong together", hint="name both")
    tls = Tls(Path(args.ssl_certfile), Path(args.ssl_keyfile), args.ssl_client_ca)
    try:
        tls.context()
    except OSError as err:  # of which errors of certificates are
        raise ConfigError(f"--ssl_certfile, --ssl_keyfile, --ssl_client_ca: {err}") from err
    return tls


def routes_of_kserve(args: Namespace, model: Predictor) -> Application:
    """KServe's own routes."""
    registry = ModelRepository()
    registry.update(model)
    extension = ModelRepositoryExtension(model_registry=registry)
    server = RESTServer("kserve.model_server:app", Protocols(registry), extension, args.http_port)
    server.create_application()
    return model_server.app  # type: ignore[no-any-return]


def about() -> dict[str, object]:
    """What the server says of itself in V2."""
    return {"name": "kserve", "version": model_server.app.version, "extensions": ["binary_tensor_data"]}


def check_free(address: Address) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
