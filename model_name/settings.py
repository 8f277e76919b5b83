"""Build a validated job from config files, `--set` pairs and the environment."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import did_you_mean
from model_name.errors import ConfigError
from model_name.io import configs, osvariables
from model_name.io.configs import exists
from model_name.io.osvariables import env
from model_name.jobs.base import Job

__all__ = ["JOBS", "build_job", "env", "exists", "job_class", "json_schema", "load_job", "load_step_config"]

JOBS = {
    "PreparationJob": "preparation",
    "TuningJob": "tuning",
    "TrainingJob": "training",
    "EvaluationsJob": "evaluations",
    "ExplanationsJob": "explanations",
    "PromotionJob": "promotion",
    "ReportJob": "reports",
    "InferenceJob": "inference",
    "KafkaInferenceJob": "kafkainference",
    "NotificationJob": "notification",
}
"""Kinds of jobs and their modules. A module is imported only when needed, because it imports heavy libraries."""


def job_class(name: str) -> type[Job]:
    """Return the class of a kind of job.

    Raises:
        ConfigError: The kind of job does not exist.
    """
    if name not in JOBS:
        raise ConfigError(f"{name} is not a kind of job{did_you_mean(name, list(JOBS))}")
    kind: type[Job] = getattr(importlib.import_module(f"model_name.jobs.{JOBS[name]}"), name)
    return kind


def load_job(
    files: Sequence[str | Path], sets: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Job:
    """Build the job that config files describe.

    Raises:
        ConfigError: A key or value is wrong; the message names file, dotted path, bad value and the nearest valid key.
    """
    return build_job(
        configs.load(files, sets, environment), files=configs.with_shared_files([str(file) for file in files])
    )


def build_job(raw: dict[str, Any], *, files: Sequence[str] = ()) -> Job:
    """Build the job of a config that is already merged into one dictionary.

    Raises:
        ConfigError: A key or value is wrong; the message names file, dotted path, bad value and the nearest valid key.
    """
    source = ", ".join(files) or "the config"
    unknown = [key for key in raw if key != "job"]
    if unknown:
        raise ConfigError(f"{source}: {unknown[0]} is not a key of a config; everything belongs under `job:`")
    job = raw.get("job")
    if not isinstance(job, dict):
        raise ConfigError(f"{source}: has no `job:`", hint="`model-name schema TrainingJob` shows what belongs there")
    if "KIND" not in job:
        raise ConfigError(f"{source}: job.KIND is missing", hint=f"it is one of {', '.join(JOBS)}")
    try:
        kind = job_class(str(job["KIND"]))
        plugins, mlflow = job.get("plugins") or [], job.get("mlflow") or {}
        import_plugins([plugins] if isinstance(plugins, str) else plugins)
        if isinstance(mlflow, dict):  # validation rejects anything else
            job = job | {"mlflow": mlflow | osvariables.job_overrides()["mlflow"]}
        return kind.model_validate(job)
    except ConfigError as err:
        raise ConfigError(f"{source}: {err.message}", hint=err.hint) from err
    except ValidationError as err:
        raise configs.explain(err, raw, files, within="job") from err


def load_step_config(folder: str, step: str, sets: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """Load the merged config of one step of a config folder and list its files; without a file the step has defaults.

    Raises:
        ConfigError: The folder has no `project.yaml`, or a file is wrong.
    """
    shared, own = f"{folder.rstrip('/')}/{configs.SHARED_FILE}", f"{folder.rstrip('/')}/{step}.yaml"
    if not configs.exists(shared):
        raise ConfigError(
            f"{shared}: there is no such file", hint="`model-name init TABLE --target NAME` writes a config folder"
        )
    files = [shared, own] if configs.exists(own) else [shared]
    return configs.load(files, sets), files


def json_schema(kind: str = "") -> dict[str, Any]:
    """Return the JSON schema of a config file, or of one kind of job or model, or of `TableSchema`.

    Raises:
        ConfigError: The kind of job or model does not exist.
    """
    from model_name.core.models import model_kinds

    models = model_kinds()
    if kind in JOBS:
        schema = job_class(kind).model_json_schema(by_alias=True)
    elif kind in models or kind == "TableSchema":
        document: type[BaseModel] = models.get(kind, TableSchema)
        schema = document.model_json_schema(by_alias=True)
    elif kind:
        raise ConfigError(f"{kind} is not a kind{did_you_mean(kind, [*JOBS, *models, 'TableSchema'])}")
    else:
        jobs = {name: job_class(name).model_json_schema(by_alias=True) for name in JOBS}
        definitions = {name: part for job in jobs.values() for name, part in job.pop("$defs", {}).items()}
        schema = {
            "type": "object",
            "required": ["job"],
            "properties": {"job": {"anyOf": list(jobs.values())}},
            "$defs": definitions,
        }
    if "Model" in schema.get("$defs", {}):  # base class of all kinds; plugins add further ones
        schema["$defs"]["Model"] = {"anyOf": [model.model_json_schema() for model in models.values()]}
    return schema


def import_plugins(modules: Sequence[Any]) -> None:
    """Import plugin modules, which define further kinds of models; the working directory is on the path.

    Raises:
        ConfigError: A module cannot be imported.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        try:
            importlib.import_module(str(module))
        except ImportError as err:
            raise ConfigError(f"job.plugins: {module} cannot be imported: {err}") from err
