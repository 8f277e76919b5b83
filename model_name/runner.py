"""Run one job, for the command line or as a step of a pipeline."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import typer

from model_name.errors import ModelNameError
from model_name.io.console import print_result
from model_name.io.datasets import reader_for
from model_name.io.entrypoint import EXIT_REFUSED, configure_process, report_error
from model_name.io.storage import read_bytes
from model_name.jobs.base import Job
from model_name.results import Result
from model_name.settings import build_job

RESULTS_DIR_VARIABLE = "MODEL_NAME_OUTBOX"
"""Environment variable that names a folder; steps write results and errors there for the local pipeline runner."""

ERROR = "error"
"""Name of the document with the error of a failed step."""


def run_job(job: Job, *, as_json: bool) -> None:
    """Run a job with its services and print its result.

    Raises:
        typer.Exit: The gate refused the version; the exit code is 3.
    """
    with job:
        result = job.run()
    fields = result.model_dump(mode="json", exclude=set() if as_json else set(result.DETAILS))
    print_result(f"{job.KIND} of {job.name}", fields, as_json=as_json)
    if not result.accepted:
        raise typer.Exit(EXIT_REFUSED)


def run_component(config: str, *, overrides: dict[str, Any] | None = None, **artifacts: Any) -> Any:
    """Run the job of a config as a step of a pipeline.

    Args:
        config: Job config in JSON, as the compiler put it into the pipeline.
        overrides: Config keys that earlier steps determine, such as the version. `tuned` is the JSON text that tuning
            returns. Empty values are left out.
        artifacts: KFP artifacts by name: `metrics` receives the scores, `html` the report.

    Returns:
        Typed result of the job.

    Raises:
        SystemExit: The job raised an error of the package; its message was printed and its exit code is used.
    """
    configure_process()
    try:
        with build_step_job(config, overrides or {}) as job:
            result = job.run()
    except ModelNameError as error:
        write_result(ERROR, {"type": type(error).__name__, "message": error.message, "hint": error.hint})
        sys.exit(report_error(error))
    write_artifacts(result, artifacts)
    write_result(job.KIND, result.model_dump(mode="json"))
    return result


def build_step_job(config: str, overrides: dict[str, Any]) -> Job:
    """Build the job of a step from its config, overridden by the values of earlier steps."""
    raw = json.loads(config)
    job = raw["job"]
    values = {key: value for key, value in overrides.items() if value != ""}
    if "table" in values:
        values["table"] = table_reader(job, values["table"])
    tuned = json.loads(values.pop("tuned", "{}"))
    return build_job(raw | {"job": job | tuned | values})


def table_reader(job: dict[str, Any], path: str) -> dict[str, Any]:
    """Return the reader config for a path that an earlier step or a parameter of the run has set."""
    if path == job["table"]["path"]:
        return dict(job["table"])
    return reader_for(path).model_dump(exclude_none=True)


def write_artifacts(result: Result, artifacts: dict[str, Any]) -> None:
    """Write the metrics and the report into the artifacts that the Kubeflow UI shows."""
    fields = result.model_dump(mode="json")
    if "metrics" in artifacts:
        for name, value in fields["metrics"].items():
            if value is not None:
                artifacts["metrics"].log_metric(name, value)
    if "html" in artifacts:
        Path(artifacts["html"].path).write_bytes(read_bytes(fields["report"]))


def write_result(name: str, document: dict[str, Any]) -> None:
    """Write a JSON document to the folder of the local pipeline runner; do nothing in a cluster."""
    if folder := os.environ.get(RESULTS_DIR_VARIABLE):
        (Path(folder) / f"{name}.json").write_text(json.dumps(document), encoding="utf-8")
