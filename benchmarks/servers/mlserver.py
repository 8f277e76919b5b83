"""MLServer with its MLflow runtime, in a virtual environment on top of this one.

MLServer needs an older FastAPI than the other servers. The few packages of `mlserver.txt` therefore have an environment
of their own, which shares all others, PyTorch and MLflow included, with the environment of the benchmark.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.harness import OUTPUT_DIRECTORY
from benchmarks.servers.served_model import DIRECTORY, ServedModel
from benchmarks.servers.server_process import free_ports
from benchmarks.virtualenvs import create_overlay

VENV = OUTPUT_DIRECTORY / "mlserver"
REQUIREMENTS = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class Tuning:
    """Settings that users of MLServer tune.

    Attributes:
        parallel_workers: Number of worker processes beside the server process.
        max_batch_size: Maximum number of requests in an adaptive batch.
        max_batch_time: Seconds for which a request waits for others.
    """

    parallel_workers: int
    max_batch_size: int
    max_batch_time: float

    def __str__(self) -> str:
        """Format the settings for the table."""
        return f"{self.parallel_workers} workers, batches of {self.max_batch_size}, {self.max_batch_time * 1e3:g} ms"


# With 16 connections, batches of 16 fill up and run immediately; larger ones wait for `max_batch_time`.
TUNINGS = (
    Tuning(1, 32, 0.01),
    Tuning(1, 32, 0.001),
    Tuning(1, 16, 0.01),
    Tuning(0, 32, 0.01),
    Tuning(0, 32, 0.001),
    Tuning(0, 16, 0.01),
)


def install() -> bool:
    """Create the environment of MLServer; return whether that succeeded."""
    return create_overlay(VENV.name, REQUIREMENTS) is not None


def start_command(model: ServedModel, tuning: Tuning, http_port: int, grpc_port: int) -> list[str]:
    """Write the settings of MLServer; return the command that starts it."""
    directory = DIRECTORY / "mlserver"
    directory.mkdir(parents=True, exist_ok=True)
    (metrics_port,) = free_ports(1)
    settings = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "metrics_dir": str(directory.absolute()),
        "parallel_workers": tuning.parallel_workers,
        "debug": False,  # True logs a line per request
    }
    model_settings = {
        "name": model.name,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": model.pyfunc},
        **{name: value for name, value in asdict(tuning).items() if name.startswith("max_batch")},
    }
    for name, document in (("settings.json", settings), ("model-settings.json", model_settings)):
        (directory / name).write_text(json.dumps(document, indent=1), encoding="utf-8")
    return [str(VENV / "bin/mlserver"), "start", str(directory)]
