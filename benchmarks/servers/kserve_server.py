"""`python -m benchmarks.servers.kserve_server`: a server of KServe's SDK with a no-op model or a pyfunc.

The no-op ignores the values and returns a constant, so that it measures the cost of KServe itself. Neither logs a line
per request: latency logging is off, and uvicorn skips its access log because the logger has no handler.
"""

from argparse import ArgumentParser
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer, logging, model_server


class Echo(Model):  # type: ignore[misc]  # KServe has no types
    """Model that predicts 0 for every row."""

    def __init__(self, name: str) -> None:
        """Create a model that is ready immediately."""
        super().__init__(name)
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Predict a constant for each row."""
        if not isinstance(payload, InferRequest):
            return {"predictions": [0.0] * len(payload["instances"])}
        rows = payload.inputs[0].shape[0]
        return infer_response(self.name, payload, [0.0] * rows)


class Pyfunc(Model):  # type: ignore[misc]
    """Model that predicts with an MLflow pyfunc on a data frame."""

    def __init__(self, name: str, directory: str) -> None:
        """Load the model."""
        import mlflow.pyfunc

        super().__init__(name)
        self.model = mlflow.pyfunc.load_model(directory)
        self.datetimes = [
            column.name for column in self.model.metadata.signature.inputs if column.type.name == "datetime"
        ]
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Predict a V1 or V2 request."""
        import pandas as pd

        is_v2 = isinstance(payload, InferRequest)
        frame = payload.as_dataframe() if is_v2 else pd.DataFrame(payload["instances"])
        for name in self.datetimes:
            frame[name] = pd.to_datetime(frame[name])
        predictions = self.model.predict(frame)["prediction"].tolist()
        return infer_response(self.name, payload, predictions) if is_v2 else {"predictions": predictions}


def infer_response(name: str, request: InferRequest, values: list[float]) -> InferResponse:
    """Build a V2 response as the examples of KServe do."""
    output = InferOutput(name="prediction", shape=[len(values)], datatype="FP64", data=values)
    return InferResponse(response_id=request.id or "1", model_name=name, infer_outputs=[output])


def log_config() -> dict[str, Any]:
    """Return KServe's log configuration without a line per request."""
    config: dict[str, Any] = logging.KSERVE_LOG_CONFIG
    silent = {"handlers": [], "level": "WARNING", "propagate": False}
    return config | {"loggers": config["loggers"] | {"uvicorn.access": silent, "kserve.trace": silent}}


def main() -> None:
    """Serve until SIGTERM."""
    parser = ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--pyfunc", default="", help="Directory of the MLflow model; empty for the no-op.")
    args = parser.parse_args()
    logging.configure_logging(log_config())
    ModelServer(
        http_port=args.http_port, grpc_port=args.grpc_port, enable_latency_logging=args.enable_latency_logging
    ).start([Pyfunc(args.model_name, args.pyfunc) if args.pyfunc else Echo(args.model_name)])


if __name__ == "__main__":
    main()
