"""The servers: how each is started, what says that it is ready, and where it takes which request.

One worker each, the same model and rows, the same environment, output to a file.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.servers import mlserver, protocols
from benchmarks.servers.subject import FOLDER, Subject

# One thread for a forward pass of one row is what serves the peers best: they share the processors with the load.
ENVIRONMENT = {"PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
LOG = FOLDER / "predictions"


@dataclass(frozen=True)
class Endpoint:
    """Where a server takes a REST request, and in which words.

    Attributes:
        path: Of the URL.
        write: The body for rows.
        read: The predictions in a reply.
    """

    path: str
    write: Callable[[protocols.Rows], str]
    read: Callable[[bytes], list[float]]


@dataclass(frozen=True)
class Server:
    """A server.

    Attributes:
        title: For people.
        command: The process to start for ports of REST and gRPC.
        ready: The path that answers 200 as soon as it is ready.
        endpoints: Of REST, by protocol.
        has_grpc: Whether it takes gRPC.
        has_metrics: Whether it tells Prometheus what it counts, on the port of REST.
        is_echo: It answers a constant.
    """

    title: str
    command: Callable[[int, int], list[str]]
    ready: str
    endpoints: Mapping[str, Endpoint]
    has_grpc: bool = False
    has_metrics: bool = False
    is_echo: bool = False

    def takes(self, protocol: str) -> bool:
        """Whether it speaks a protocol."""
        return self.has_grpc if protocol == "grpc" else protocol in self.endpoints


def servers(subject: Subject) -> dict[str, Server]:
    """All servers by name."""
    return {
        "ours": ours(subject),
        "echo": kserving(subject),
        "naive": kserving(subject, is_echo=False),
        "mlserver": mlserver_like(subject, mlserver.TUNINGS[0]),
        "mlflow": mlflow(subject),
    }


def ours(subject: Subject, *, is_logging: bool = True) -> Server:
    """This project's, as it is by default, with the prediction log where it has one."""
    log = ["--prediction_log", str(LOG)] if is_logging and has_log() else []
    command = [sys.executable, "-m", "model_name.serving", "--bundle", subject.bundle, *log]
    return kserve_like("this server", subject, command)


@cache
def has_log() -> bool:
    """Whether the server can log predictions."""
    command = [sys.executable, "-m", "model_name.serving", "--help"]
    return "--prediction_log" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def kserving(subject: Subject, *, is_echo: bool = True) -> Server:
    """KServe's server with a model that does nothing, or with the pyfunc behind pandas."""
    module = [sys.executable, "-m", "benchmarks.servers.kserving", "--model_name", subject.name]
    quiet = ["--enable_latency_logging", "false"]
    if is_echo:
        return kserve_like("KServe, no-op", subject, [*module, *quiet], is_echo=True)
    return kserve_like("KServe, pandas and pyfunc", subject, [*module, *quiet, "--pyfunc", subject.pyfunc])


def mlserver_like(subject: Subject, tuning: mlserver.Tuning) -> Server:
    """MLServer, which batches V2 alone: its figures for V1 are those of V2."""
    return Server(
        title=f"MLServer, V2 ({tuning})",
        command=lambda http, grpc: mlserver.command(subject, tuning, http, grpc),
        ready=f"/v2/models/{subject.name}/ready",
        endpoints={"v1": v2_endpoint(subject)},
        has_grpc=True,
    )


def mlflow(subject: Subject) -> Server:
    """MLflow's own scoring server, which has one protocol, its own."""
    executable = str(Path(sys.executable).with_name("mlflow"))
    command = [executable, "models", "serve", "--env-manager", "local", "--workers", "1", "--host", "127.0.0.1"]
    return Server(
        title="mlflow models serve, /invocations",
        command=lambda http, _: [*command, "--model-uri", subject.pyfunc, "--port", str(http)],
        ready="/ping",
        endpoints={"v1": Endpoint("/invocations", protocols.mlflow_split, protocols.read_v1)},
    )


def kserve_like(title: str, subject: Subject, command: Sequence[str], *, is_echo: bool = False) -> Server:
    """A server with KServe's options and routes."""
    return Server(
        title=title,
        command=lambda http, grpc: [*command, "--http_port", str(http), "--grpc_port", str(grpc)],
        ready=f"/v2/models/{subject.name}/ready",
        endpoints={
            "v1": Endpoint(f"/v1/models/{subject.name}:predict", protocols.v1, protocols.read_v1),
            "v2": v2_endpoint(subject),
        },
        has_grpc=True,
        has_metrics=True,
        is_echo=is_echo,
    )


def v2_endpoint(subject: Subject) -> Endpoint:
    """Where every server of the Open Inference Protocol takes V2."""
    path = f"/v2/models/{subject.name}/infer"
    return Endpoint(path, lambda rows: protocols.v2(rows, subject.datatypes), protocols.read_v2)
