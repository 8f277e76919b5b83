"""`python -m model_name.serving`: server of one bundle, for V1 and V2 over REST, V2 over gRPC, and CloudEvents.

It has the options of KServe's server; those without an effect cause a warning. Secrets come from the environment:
MODEL_NAME_TOKEN is the bearer token that clients must send, MODEL_NAME_LOG_KEY the key of the hashes that replace
sensitive values in the prediction log.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from model_name.serving.arguments import (
    DEFAULT_MODEL_DIRECTORY,
    build_parser,
    build_prediction_log,
    parse_address,
    parse_limits,
    run_main,
)
from model_name.serving.assembly import serve_model
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.observer import BatchObserver
from model_name.serving.bundle import Bundle
from model_name.serving.bundle_signature import SignatureVerifier, make_verifier
from model_name.serving.dataplane import DataPlane
from model_name.serving.model_repository import ModelSource
from model_name.serving.runtime.log_config import configure_logging
from model_name.serving.server_metrics import ServerMetrics


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, and return the exit code."""
    parser = build_parser("python -m model_name.serving", __doc__)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_MODEL_DIRECTORY, help="Directory of the bundle.")
    return run_main(parser, serve, argv)


def serve(args: Namespace) -> None:
    """Load the bundle, predict its example and serve until SIGTERM.

    Raises:
        ConfigError: An argument is not supported, or a port is already in use.
        NotFoundError: A file of the bundle is missing.
        DataError: The bundle is broken, or not signed as required.
    """
    parse_address(args)
    configure_logging(args)
    verifier = make_verifier(args.bundle_public_key)
    source = ModelSource(args.bundle, partial(load_plane, threads=args.forward_threads, verifier=verifier))
    plane = source.load()
    metrics = ServerMetrics(args.slot)
    observer = BatchObserver(metrics, build_prediction_log(args))
    batcher = AdaptiveBatcher(plane, parse_limits(args), observe=observer)
    serve_model(args, batcher, metrics, source=source, observer=observer)


def load_plane(directory: Path, *, threads: int, verifier: SignatureVerifier | None) -> DataPlane:
    """Load a bundle and predict its example, with some threads per forward pass."""
    plane = DataPlane(Bundle.load(directory, threads=threads, verifier=verifier))
    plane.warm_up()
    return plane


if __name__ == "__main__":
    sys.exit(main())
