"""`python -m benchmarks.servers.kserving`: what KServe's SDK serves, a no-op or, as its users write it, a pyfunc.

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


class Pyfunc(Model):  # type: ignore[misc]
    """Answers from MLflow's model, by way of a data frame."""

    def __init__(self, name: str, folder: str) -> None:
        """Load the model."""
        import mlflow.pyfunc

        super().__init__(name)
        self.model = mlflow.pyfunc.load_model(folder)
        self.datetimes = [one.name for one in self.model.metadata.signature.inputs if one.type.name == "datetime"]
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """The predictions for a request of V1 or V2."""
        import pandas as pd

        is_v2 = isinstance(payload, InferRequest)
        frame = payload.as_dataframe() if is_v2 else pd.DataFrame(payload["instances"])
        for name in self.datetimes:
            frame[name] = pd.to_datetime(frame[name])
        predictions = self.model.predict(frame)["prediction"].tolist()
        return respond(self.name, payload, predictions) if is_v2 else {"predictions": predictions}


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
    parser = ArgumentParser(parents=[model_server.parser])
    parser.add_argument("--pyfunc", default="", help="The folder of MLflow's model; none for the no-op.")
    args = parser.parse_args()
    logging.configure_logging(quiet())
    ModelServer(
        http_port=args.http_port, grpc_port=args.grpc_port, enable_latency_logging=args.enable_latency_logging
    ).start([Pyfunc(args.model_name, args.pyfunc) if args.pyfunc else Echo(args.model_name)])


if __name__ == "__main__":
    main()
