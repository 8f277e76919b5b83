"""Run a compiled pipeline on this machine: each step is a process, without Docker or a cluster."""

import contextlib
import json
import os
import tempfile
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import psutil
import yaml
from kfp import components, local
from rich.console import Console

from model_name import errors
from model_name.runner import ERROR, RESULTS_DIR_VARIABLE
from pipelines.graphs import RESULTS
from pipelines.steplog import StepLog

LOCAL_ROOT = Path("build") / "local"
TERMINATE_TIMEOUT_SECONDS = 10


def run_pipeline(name: str, package: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a compiled pipeline and return the result of its last job, with the duration in seconds.

    Raises:
        ModelNameError: A step failed; the error is the one that the step raised.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        os.environ[RESULTS_DIR_VARIABLE] = folder
        with _step_log_on_stderr(count_steps(package)), _terminate_children():
            local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(LOCAL_ROOT))
            try:
                components.load_component_from_file(str(package))(**arguments)
            except RuntimeError as err:  # raised by kfp for a failed step
                raise _load_error(Path(folder)) or errors.ModelNameError(f"the pipeline failed: {err}") from err
        result: dict[str, Any] = json.loads((Path(folder) / f"{RESULTS[name]}.json").read_text(encoding="utf-8"))
    return result | {"seconds": round(time.monotonic() - start, 1)}


def _load_error(folder: Path) -> errors.ModelNameError | None:
    """Load the error that a failed step wrote, if any."""
    path = folder / f"{ERROR}.json"
    if not path.exists():
        return None
    error = json.loads(path.read_text(encoding="utf-8"))
    kind: type[errors.ModelNameError] = getattr(errors, error["type"])
    return kind(error["message"], hint=error["hint"])


def count_steps(package: Path) -> int:
    """Count the steps of a compiled pipeline."""
    spec = next(iter(yaml.safe_load_all(package.read_text(encoding="utf-8"))))
    return len(spec["deploymentSpec"]["executors"])


@contextlib.contextmanager
def _step_log_on_stderr(steps: int) -> Generator[None]:
    """Redirect the output of kfp's runner to a step log on stderr, and hide warnings about kfp itself."""
    log = StepLog(Console(stderr=True), steps)
    with contextlib.redirect_stdout(log), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module=r"kfp\.")
        warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"kfp\.")
        yield


@contextlib.contextmanager
def _terminate_children() -> Generator[None]:
    """Terminate the process of a running step when the block ends; kill it if it does not stop."""
    try:
        yield
    finally:
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()
        _, alive = psutil.wait_procs(children, timeout=TERMINATE_TIMEOUT_SECONDS)
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
