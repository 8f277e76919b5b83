"""`python -m model_name.explainer`: the server that explains the answers of one model, `:explain` of V1.

It serves the folder of a registered model, by the same rules as the predictor: health, metrics, limits, tokens, drain,
and a new version in the same folder takes over. Its arguments are those of `python -m model_name.serving`.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from model_name.io.services import silence_mlflow
from model_name.serving.arguments import DEFAULT_MODEL_DIRECTORY, parse_address, parse_limits, build_parser, run_main
from model_name.serving.batching.batcher import AdaptiveBatcher
from model_name.serving.batching.observer import BatchObserver
from model_name.serving.runtime import log_config
from model_name.serving.server_metrics import ServerMetrics
from model_name.serving.startup import serve_model

MAX_ROWS = 1000  # some seconds of boosted trees, where a prediction takes milliseconds


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, and return the exit code."""
    parser = build_parser("python -m model_name.explainer", __doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL_DIRECTORY, help="The folder of the model.")
    parser.set_defaults(enable_grpc=False, max_rows=MAX_ROWS)
    return run_main(parser, serve, argv)


def serve(args: Namespace) -> None:
    """Load the model, explain its example and serve until SIGTERM.

    Raises:
        ConfigError: An argument asks for what cannot be done, or a port is taken.
        NotFoundError: The model or its manifest is missing.
        DataError: It is a model that this project did not make, or the manifest is of another.
    """
    parse_address(args)
    log_config.configure(args)
    silence_mlflow()
    from model_name.explainer.plane import FILES, explain, load

    metrics = ServerMetrics(args.slot)
    # Explaining takes long, and many rows at once take no less: each request is answered as soon as it is done.
    limits = parse_limits(args).model_copy(update={"batch_requests": 1})
    batcher = AdaptiveBatcher(load(args.model), limits, compute=explain)
    serve_model(
        args,
        batcher,
        metrics,
        directory=args.model,
        load=load,
        watcher=BatchObserver(metrics, None),
        verb="explain",
        files=FILES,
    )


if __name__ == "__main__":
    sys.exit(main())
