"""How a step of a pipeline runs a job: config and overrides in, artifacts and one value out."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from model_name.errors import ModelNameError
from model_name.io.entrypoint import configure_process, report_error
from model_name.jobs.base import Job, Result

OUTBOX = "MODEL_NAME_OUTBOX"
"""Names a folder where the steps leave results and errors for whoever runs the pipeline on this machine."""

ERROR = "error"


def run_component(config: str, *, overrides: dict[str, Any] | None = None, **artifacts: Any) -> Any:
    """Run the job of a config as the step of a pipeline.

    Args:
        config: The config in JSON, as the compiler put it into the pipeline.
        overrides: Keys that earlier steps decide, such as the version, and `tuned`, what tuning hands on in JSON; empty
            ones are left out.
        artifacts: KFP artifacts by name: `metrics` is filled with the scores, `html` with the report.

    Returns:
        The job's typed result.

    Raises:
        SystemExit: With the error's exit code, after its message was printed.
    """
    configure_process()
    try:
        with configured(config, overrides or {}) as job:
            result = job.run()
    except ModelNameError as error:
        leave(ERROR, {"type": type(error).__name__, "message": error.message, "hint": error.hint})
        sys.exit(report_error(error))
    fill(result, artifacts)
    leave(job.KIND, result.model_dump(mode="json"))
    return result


def configured(config: str, overrides: dict[str, Any]) -> Job:
    """The job of a config, with what earlier steps decided laid over it."""
    from model_name.settings import build_job

    raw = json.loads(config)
    job = raw["job"]
    given = {key: value for key, value in overrides.items() if value != ""}
    if "table" in given:
        given["table"] = table_of(job, given["table"])
    tuned = json.loads(given.pop("tuned", "{}"))
    return build_job(raw | {"job": job | tuned | given})


def table_of(job: dict[str, Any], path: str) -> dict[str, Any]:
    """The reader of a table that an earlier step, or the run's parameter, names."""
    from model_name.io.datasets import reader_for

    if path == job["table"]["path"]:
        return dict(job["table"])
    return reader_for(path).model_dump(exclude_none=True)


def fill(result: Result, artifacts: dict[str, Any]) -> None:
    """Put into the artifacts what the Kubeflow UI shows."""
    found = result.model_dump(mode="json")
    if "metrics" in artifacts:
        for name, value in found["metrics"].items():
            if value is not None:
                artifacts["metrics"].log_metric(name, value)
    if "html" in artifacts:
        Path(artifacts["html"].path).write_bytes(read(found["report"]))


def read(place: str) -> bytes:
    """A small file, local or behind an fsspec URL."""
    import fsspec

    with fsspec.open(place, "rb") as file:
        return bytes(file.read())


def leave(name: str, found: dict[str, Any]) -> None:
    """Leave a document where the runner on this machine looks for it."""
    if folder := os.environ.get(OUTBOX):
        (Path(folder) / f"{name}.json").write_text(json.dumps(found), encoding="utf-8")
