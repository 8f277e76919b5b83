"""Specifications of the servers: command, readiness path and endpoints.

Each runs one worker with the same model, rows and environment, and writes its output to a file.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.servers import mlserver, protocols
from benchmarks.servers.served_model import DIRECTORY, ServedModel

# One thread per forward pass of a row is best for the other servers: they share the processors with the load generator.
ENVIRONMENT = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
PREDICTION_LOG = DIRECTORY / "predictions"


@dataclass(frozen=True)
class Endpoint:
    """REST endpoint of a server.

    Attributes:
        path: Path of the URL.
        encode: Encoder of the body for rows.
        decode: Decoder of the predictions in a response.
    """

    path: str
    encode: Callable[[protocols.Rows], str]
    decode: Callable[[bytes], list[float]]


@dataclass(frozen=True)
class ServerSpec:
    """Specification of a server.

    Attributes:
        title: Title in the report.
        command: Function from the ports of REST and gRPC to the command that starts the server.
        ready_path: Path that returns 200 once the server is ready.
        endpoints: REST endpoints by protocol.
        has_grpc: Whether the server supports gRPC.
        has_metrics: Whether the server has Prometheus metrics on the port of REST.
        is_echo: Whether the server predicts a constant.
    """

    title: str
    command: Callable[[int, int], list[str]]
    ready_path: str
    endpoints: Mapping[str, Endpoint]
    has_grpc: bool = False
    has_metrics: bool = False
    is_echo: bool = False

    def supports(self, protocol: str) -> bool:
        """Report whether the server supports a protocol."""
        return self.has_grpc if protocol == "grpc" else protocol in self.endpoints


def all_servers(model: ServedModel) -> dict[str, ServerSpec]:
    """Return all servers by name."""
    return {
        "ours": this_server(model),
        "echo": kserve_sdk_server(model),
        "naive": kserve_sdk_server(model, is_echo=False),
        "mlserver": mlserver_server(model, mlserver.TUNINGS[0]),
        "mlflow": mlflow_server(model),
    }


def this_server(model: ServedModel, *, is_logging: bool = True) -> ServerSpec:
    """Specify the server of this project with its defaults, and with the prediction log if it has one."""
    log = ["--prediction_log", str(PREDICTION_LOG)] if is_logging and has_prediction_log() else []
    command = [sys.executable, "-m", "model_name.serving", "--bundle", model.bundle, *log]
    return kserve_style_server("this server", model, command)


@cache
def has_prediction_log() -> bool:
    """Report whether the server has a prediction log."""
    command = [sys.executable, "-m", "model_name.serving", "--help"]
    return "--prediction_log" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def kserve_sdk_server(model: ServedModel, *, is_echo: bool = True) -> ServerSpec:
    """Specify the server of KServe's SDK with a no-op model, or with the pyfunc on a data frame."""
    module = [sys.executable, "-m", "benchmarks.servers.kserve_server", "--model_name", model.name]
    quiet = ["--enable_latency_logging", "false"]
    if is_echo:
        return kserve_style_server("KServe, no-op", model, [*module, *quiet], is_echo=True)
    return kserve_style_server("KServe, pandas and pyfunc", model, [*module, *quiet, "--pyfunc", model.pyfunc])


def mlserver_server(model: ServedModel, tuning: mlserver.Tuning) -> ServerSpec:
    """Specify MLServer, which batches V2 only: its figures for V1 are those of V2."""
    return ServerSpec(
        title=f"MLServer, V2 ({tuning})",
        command=lambda http, grpc: mlserver.start_command(model, tuning, http, grpc),
        ready_path=f"/v2/models/{model.name}/ready",
        endpoints={"v1": v2_endpoint(model)},
        has_grpc=True,
    )


def mlflow_server(model: ServedModel) -> ServerSpec:
    """Specify MLflow's scoring server, which has a protocol of its own."""
    executable = str(Path(sys.executable).with_name("mlflow"))
    command = [executable, "models", "serve", "--env-manager", "local", "--workers", "1", "--host", "127.0.0.1"]
    return ServerSpec(
        title="mlflow models serve, /invocations",
        command=lambda http, _: [*command, "--model-uri", model.pyfunc, "--port", str(http)],
        ready_path="/ping",
        endpoints={"v1": Endpoint("/invocations", protocols.encode_mlflow, protocols.decode_v1)},
    )


def kserve_style_server(title: str, model: ServedModel, command: Sequence[str], *, is_echo: bool = False) -> ServerSpec:
    """Specify a server with the options and routes of KServe."""
    return ServerSpec(
        title=title,
        command=lambda http, grpc: [*command, "--http_port", str(http), "--grpc_port", str(grpc)],
        ready_path=f"/v2/models/{model.name}/ready",
        endpoints={
            "v1": Endpoint(f"/v1/models/{model.name}:predict", protocols.encode_v1, protocols.decode_v1),
            "v2": v2_endpoint(model),
        },
        has_grpc=True,
        has_metrics=True,
        is_echo=is_echo,
    )


def v2_endpoint(model: ServedModel) -> Endpoint:
    """Specify the V2 endpoint, which is the same for every server of the Open Inference Protocol."""
    path = f"/v2/models/{model.name}/infer"
    return Endpoint(path, lambda rows: protocols.encode_v2(rows, model.datatypes), protocols.decode_v2)
