"""MLServer with its MLflow runtime, in a virtual environment of its own over this one.

It wants an older FastAPI than this project's other servers. So the few packages of `mlserver.txt` are laid over the
environment that runs the benchmark, and all else, PyTorch and MLflow included, is shared.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.measuring import BUILD
from benchmarks.overlays import lay_over
from benchmarks.servers.running import free_ports
from benchmarks.servers.subject import FOLDER, Subject

VENV = BUILD / "mlserver"
PINS = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class Tuning:
    """What its users tune.

    Attributes:
        parallel_workers: Processes beside the one that takes the requests, or 0 for none.
        max_batch_size: Of adaptive batching.
        max_batch_time: For which a request waits for others, in seconds.
    """

    parallel_workers: int
    max_batch_size: int
    max_batch_time: float

    def __str__(self) -> str:
        """For the table."""
        return f"{self.parallel_workers} workers, batches of {self.max_batch_size}, {self.max_batch_time * 1e3:g} ms"


# With 16 connections batches of 16 fill up and go at once, and larger ones wait for their time.
TUNINGS = (
    Tuning(1, 32, 0.01),
    Tuning(1, 32, 0.001),
    Tuning(1, 16, 0.01),
    Tuning(0, 32, 0.01),
    Tuning(0, 32, 0.001),
    Tuning(0, 16, 0.01),
)


def install() -> bool:
    """Set up its environment, or say why it is left out."""
    return lay_over(VENV.name, PINS) is not None


def command(subject: Subject, tuning: Tuning, http_port: int, grpc_port: int) -> list[str]:
    """Write its settings, and the command that serves by them."""
    folder = FOLDER / "mlserver"
    folder.mkdir(parents=True, exist_ok=True)
    (metrics_port,) = free_ports(1)
    settings = {
        "host": "127.0.0.1",
        "http_port": http_port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        "metrics_dir": str(folder.absolute()),
        "parallel_workers": tuning.parallel_workers,
        "debug": False,  # which would log a line a request
    }
    model = {
        "name": subject.name,
        "implementation": "mlserver_mlflow.MLflowRuntime",
        "parameters": {"uri": subject.pyfunc},
        **{name: value for name, value in asdict(tuning).items() if name.startswith("max_batch")},
    }
    for name, document in (("settings.json", settings), ("model-settings.json", model)):
        (folder / name).write_text(json.dumps(document, indent=1), encoding="utf-8")
    return [str(VENV / "bin/mlserver"), "start", str(folder)]
