"""`python -m benchmarks.servers.kserving`: what people serve by KServe's SDK, its no-op at the one end.

The no-op reads nothing and answers a constant, so it is what KServe itself costs. Neither logs a line a request:
latency logging is off by KServe's own option, and uvicorn's access log has no handler, which is when uvicorn skips it.
"""

from argparse import ArgumentParser
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, logging, model_server


class Echo(Model):  # type: ignore[misc]  # KServe has no types
    """Answers 0 for every row."""

    def __init__(self, name: str) -> None:
        """Be ready at once."""
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """One constant a row."""
        if not isinstance(payload, InferRequest):
            return {"predictions": [0.0] * len(payload["instances"])}
        rows = payload.inputs[0].shape[0]
        return respond(self.name, payload, [0.0] * rows)


def respond(name: str, request: InferRequest, values: list[float]) -> InferResponse:
    """The answer of V2, as the examples of KServe make it."""
    output = InferOutput(name="prediction", shape=[len(values)], datatype="FP64", data=values)
    return InferResponse(response_id=request.id or "1", model_name=name, infer_outputs=[output])


def quiet() -> dict[str, Any]:
    """KServe's log, without a line a request."""
    config: dict[str, Any] = logging.KSERVE_LOG_CONFIG
    silent = {"handlers": [], "level": "WARNING", "propagate": False}
    return config | {"loggers": config["loggers"] | {"uvicorn.access": silent, "kserve.trace": silent}}


def main() -> None:
    """Serve until SIGTERM."""
    args = ArgumentParser(parents=[model_server.parser]).parse_args()
    logging.configure_logging(quiet())
    ModelServer(
        http_port=args.http_port, grpc_port=args.grpc_port, enable_latency_logging=args.enable_latency_logging
    ).start([Echo(args.model_name)])


if __name__ == "__main__":
    main()
