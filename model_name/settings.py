"""The root of a config: files, pairs and environment in, a validated job out."""

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

__all__ = ["JOBS", "build_job", "env", "exists", "job_kind", "json_schema", "load_job", "load_raw"]

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
"""The kinds of job and their modules; one is imported when it is asked for, because they need heavy libraries."""


def job_kind(name: str) -> type[Job]:
    """The class of a kind of job.

    Raises:
        ConfigError: There is no such kind.
    """
    if name not in JOBS:
        raise ConfigError(f"{name} is not a kind of job{did_you_mean(name, list(JOBS))}")
    kind: type[Job] = getattr(importlib.import_module(f"model_name.jobs.{JOBS[name]}"), name)
    return kind


def load_job(
    files: Sequence[str | Path], sets: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> Job:
    """The job of some config files.

    Raises:
        ConfigError: Naming file, dotted path, bad value and the nearest right key.
    """
    return build_job(configs.load(files, sets, environment), files=configs.with_shared_files([str(file) for file in files]))


def build_job(raw: dict[str, Any], *, files: Sequence[str] = ()) -> Job:
    """The job of a plain config.

    Raises:
        ConfigError: Naming file, dotted path, bad value and the nearest right key.
    """
    place = ", ".join(files) or "the config"
    unknown = [key for key in raw if key != "job"]
    if unknown:
        raise ConfigError(f"{place}: {unknown[0]} is not a key of a config; everything belongs under `job:`")
    job = raw.get("job")
    if not isinstance(job, dict):
        raise ConfigError(f"{place}: has no `job:`", hint="`model-name schema TrainingJob` shows what belongs there")
    if "KIND" not in job:
        raise ConfigError(f"{place}: job.KIND is missing", hint=f"it is one of {', '.join(JOBS)}")
    try:
        kind = job_kind(str(job["KIND"]))
        plugins, mlflow = job.get("plugins") or [], job.get("mlflow") or {}
        import_plugins([plugins] if isinstance(plugins, str) else plugins)
        if isinstance(mlflow, dict):  # if it is none, the validation says so
            job = job | {"mlflow": mlflow | osvariables.job_overrides()["mlflow"]}
        return kind.model_validate(job)
    except ConfigError as err:
        raise ConfigError(f"{place}: {err.message}", hint=err.hint) from err
    except ValidationError as err:
        raise configs.explain(err, raw, files, within="job") from err


def load_raw(folder: str, step: str, sets: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The plain config of one step of a config folder, and its files; a step without a file has its defaults.

    Raises:
        ConfigError: The folder has no `project.yaml`, or a file is wrong.
    """
    shared, own = f"{folder.rstrip('/')}/{configs.SHARED}", f"{folder.rstrip('/')}/{step}.yaml"
    if not configs.exists(shared):
        raise ConfigError(
            f"{shared}: there is no such file", hint="`model-name init TABLE --target NAME` writes a config folder"
        )
    files = [shared, own] if configs.exists(own) else [shared]
    return configs.load(files, sets), files


def json_schema(kind: str = "") -> dict[str, Any]:
    """The JSON schema of a config file, or of one kind of job or model, or of `TableSchema`.

    Raises:
        ConfigError: There is no such kind.
    """
    from model_name.core.models import model_kinds

    models = model_kinds()
    if kind in JOBS:
        schema = job_kind(kind).model_json_schema(by_alias=True)
    elif kind in models or kind == "TableSchema":
        found: type[BaseModel] = models.get(kind, TableSchema)
        schema = found.model_json_schema(by_alias=True)
    elif kind:
        raise ConfigError(f"{kind} is not a kind{did_you_mean(kind, [*JOBS, *models, 'TableSchema'])}")
    else:
        jobs = {name: job_kind(name).model_json_schema(by_alias=True) for name in JOBS}
        definitions = {name: found for job in jobs.values() for name, found in job.pop("$defs", {}).items()}
        schema = {
            "type": "object",
            "required": ["job"],
            "properties": {"job": {"anyOf": list(jobs.values())}},
            "$defs": definitions,
        }
    if "Model" in schema.get("$defs", {}):  # the base of the kinds, which plugins add to
        schema["$defs"]["Model"] = {"anyOf": [found.model_json_schema() for found in models.values()]}
    return schema


def import_plugins(modules: Sequence[Any]) -> None:
    """Import the modules that define model kinds of one's own; the working directory counts.

    Raises:
        ConfigError: One cannot be imported.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        try:
            importlib.import_module(str(module))
        except ImportError as err:
            raise ConfigError(f"job.plugins: {module} cannot be imported: {err}") from err
