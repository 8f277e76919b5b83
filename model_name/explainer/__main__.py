"""`python -m model_name.explainer`: the server that explains the predictions of one model, `:explain` of V1.

It serves the directory of a registered model over REST as the predictor does: health, metrics, limits, tokens, drain,
and reload of a new version in the same directory. It has the arguments of `python -m model_name.serving`, but no gRPC.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from model_name.errors import ConfigError
from model_name.io.services import silence_mlflow
from model_name.serving.arguments import DEFAULT_MODEL_DIRECTORY, build_parser, parse_address, parse_limits, run_main
from model_name.serving.assembly import serve_model
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.observer import BatchObserver
from model_name.serving.bundle_signature import make_verifier
from model_name.serving.model_repository import ModelSource
from model_name.serving.rest.endpoints import EXPLAINER
from model_name.serving.runtime.log_config import configure_logging
from model_name.serving.server_metrics import ServerMetrics

MAX_ROWS = 1000  # a few seconds for boosted trees, where a prediction takes milliseconds


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, and return the exit code."""
    parser = build_parser("python -m model_name.explainer", __doc__, has_log=False)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIRECTORY, help="Directory of the model.")
    parser.set_defaults(enable_grpc=False, max_rows=MAX_ROWS)
    return run_main(parser, serve, argv)


def serve(args: Namespace) -> None:
    """Load the model, explain its example and serve until SIGTERM.

    Raises:
        ConfigError: An argument is not supported, such as gRPC, or a port is already in use.
        NotFoundError: The model or its manifest is missing.
        DataError: The model was not made by this project, or the manifest belongs to another model.
    """
    if parse_address(args).grpc_port is not None:  # the Open Inference Protocol has no message for explanations
        raise ConfigError("--enable_grpc: the explainer serves REST alone", hint="leave the option out")
    configure_logging(args)
    silence_mlflow()
    from model_name.explainer.plane import explain_batch, list_files, load_plane

    metrics = ServerMetrics(args.slot)
    # Explanations are slow and gain nothing from batches: each response is sent as soon as it is computed.
    limits = parse_limits(args).model_copy(update={"batch_requests": 1})
    load = partial(load_plane, verifier=make_verifier(args.bundle_public_key))
    source = ModelSource(args.model, load, list_files=list_files)
    batcher = AdaptiveBatcher(source.load(), limits, compute=explain_batch)
    serve_model(
        args,
        batcher,
        metrics,
        source=source,
        observer=BatchObserver(metrics, None),
        role=EXPLAINER,
    )


if __name__ == "__main__":
    sys.exit(main())
