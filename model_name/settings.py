"""The root of a config: files, pairs and environment in, a validated job out."""

import importlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from model_name.core.models import model_kinds
from model_name.core.schemas import Frozen, TableSchema, did_you_mean
from model_name.errors import ConfigError
from model_name.io import configs, osvariables
from model_name.io.configs import exists
from model_name.io.osvariables import env
from model_name.jobs.base import Job
from model_name.jobs.evaluations import EvaluationsJob
from model_name.jobs.explanations import ExplanationsJob
from model_name.jobs.inference import InferenceJob
from model_name.jobs.notification import NotificationJob
from model_name.jobs.preparation import PreparationJob
from model_name.jobs.promotion import PromotionJob
from model_name.jobs.reports import ReportJob
from model_name.jobs.training import TrainingJob
from model_name.jobs.tuning import TuningJob

__all__ = ["KINDS", "Settings", "build_job", "env", "exists", "json_schema", "load_job", "load_raw"]

JobKind = (
    PreparationJob
    | TuningJob
    | TrainingJob
    | EvaluationsJob
    | ExplanationsJob
    | PromotionJob
    | ReportJob
    | InferenceJob
    | NotificationJob
)

KINDS: dict[str, type[Job]] = {kind.model_fields["KIND"].default: kind for kind in JobKind.__args__}


class Settings(Frozen):
    """What a config file holds.

    Attributes:
        job: The job; its KIND decides which.
    """

    job: Annotated[JobKind, Field(discriminator="KIND")]


def load_job(files: Sequence[str | Path], sets: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> Job:
    """The job of some config files.

    Raises:
        ConfigError: Naming file, dotted path, bad value and the nearest right key.
    """
    return build_job(configs.load(files, sets, environment), files=configs.with_shared([str(file) for file in files]))


def build_job(raw: dict[str, Any], *, files: Sequence[str] = ()) -> Job:
    """The job of a plain config.

    Raises:
        ConfigError: Naming file, dotted path, bad value and the nearest right key.
    """
    place = ", ".join(files) or "the config"
    job = raw.get("job")
    if not isinstance(job, dict):
        raise ConfigError(f"{place}: has no `job:`", hint="`model-name schema TrainingJob` shows what belongs there")
    if job.get("KIND") not in KINDS:
        what = f"{job['KIND']} is not a kind of job" if "KIND" in job else "job.KIND is missing"
        raise ConfigError(f"{place}: {what}{did_you_mean(str(job.get('KIND', '')), list(KINDS))}")
    import_plugins(job.get("plugins") or [])
    environment = osvariables.overrides()
    mlflow = (job.get("mlflow") or {}) | environment["mlflow"]
    try:
        return Settings.model_validate(raw | {"job": job | {"mlflow": mlflow}}).job
    except ValidationError as err:
        raise configs.explain(err, raw, files) from err


def load_raw(folder: str, step: str, sets: Sequence[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The plain config of one step of a config folder, and its files; a step without a file has its defaults.

    Raises:
        ConfigError: The folder has no `project.yaml`, or a file is wrong.
    """
    shared, own = f"{folder.rstrip('/')}/{configs.SHARED}", f"{folder.rstrip('/')}/{step}.yaml"
    if not configs.exists(shared):
        raise ConfigError(f"{shared}: there is no such file", hint="`model-name init TABLE --target NAME` writes a config folder")
    files = [shared, own] if configs.exists(own) else [shared]
    return configs.load(files, sets), files


def json_schema(kind: str = "") -> dict[str, Any]:
    """The JSON schema of a config file, or of one kind of job or model, or of `TableSchema`.

    Raises:
        ConfigError: There is no such kind.
    """
    kinds: dict[str, type[BaseModel]] = {"": Settings, "TableSchema": TableSchema, **KINDS, **model_kinds()}
    if kind not in kinds:
        raise ConfigError(f"{kind} is not a kind{did_you_mean(kind, list(kinds)[1:])}")
    schema = kinds[kind].model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    if "Model" in definitions:  # the base of the kinds, which plugins add to
        definitions["Model"] = {"anyOf": [found.model_json_schema() for found in model_kinds().values()]}
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
