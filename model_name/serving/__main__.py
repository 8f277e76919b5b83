"""`python -m model_name.serving`: the server of one bundle, for V1 and V2 by REST and by gRPC, and for CloudEvents.

Options of KServe's that make no sense for one model in one process are refused. Secrets come from the environment:
MODEL_NAME_TOKEN is the bearer token that clients must show, MODEL_NAME_LOG_KEY the key of the hashes that stand for
sensitive values in the prediction log.
"""

from model_name.serving.runtime import kserve_imports

if __name__ == "__main__":
    kserve_imports.slim_down()

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from model_name.serving.arguments import DEFAULT_MODEL_DIRECTORY, parse_address, parse_limits, build_prediction_log, build_parser, run_main
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.observer import BatchObserver
from model_name.serving.bundle import Bundle
from model_name.serving.dataplane import DataPlane
from model_name.serving.runtime import log_config
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.startup import serve_model


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, and return the exit code."""
    parser = build_parser("python -m model_name.serving", __doc__)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_MODEL_DIRECTORY, help="The folder of the bundle.")
    return run_main(parser, serve, argv)


def serve(args: Namespace) -> None:
    """Load the bundle, answer its example and serve until SIGTERM.

    Raises:
        ConfigError: An argument asks for what cannot be done, or a port is taken.
        NotFoundError: A file of the bundle is missing.
        DataError: The bundle is broken.
    """
    parse_address(args)
    log_config.configure(args)
    load = partial(load_plane, threads=args.forward_threads)
    plane = load(args.bundle)
    metrics = ServerMetrics(args.slot)
    watcher = BatchObserver(metrics, build_prediction_log(args))
    batcher = AdaptiveBatcher(plane, parse_limits(args), observe=watcher)
    serve_model(args, batcher, metrics, directory=args.bundle, load=load, watcher=watcher)


def load_plane(directory: Path, *, threads: int) -> DataPlane:
    """A bundle that has answered its own example."""
    plane = DataPlane(Bundle.load(directory, threads=threads))
    plane.warm_up()
    return plane


if __name__ == "__main__":
    sys.exit(main())
