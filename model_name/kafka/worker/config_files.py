"""The settings of a worker without a job around them: what needs no table, and none of the libraries that read one."""

from collections.abc import Sequence

from pydantic import ValidationError

from model_name.errors import ConfigError
from model_name.io import configs
from model_name.kafka.worker.worker_config import WorkerSettings

KIND = "KafkaInferenceJob"  # as configs call it


def read_settings(pairs: Sequence[str]) -> WorkerSettings:
    """The settings of `job.KEY=VALUE` pairs and of the environment.

    Raises:
        ConfigError: One is wrong or missing.
    """
    raw = configs.load([], pairs) if pairs else {}
    if strangers := raw.keys() - {"job"}:
        name = min(strangers)
        raise ConfigError(f"--set {name}=...: everything belongs under `job`", hint=f"--set job.{name}=...")
    try:
        return WorkerSettings.model_validate(raw.get("job", {}))
    except ValidationError as err:
        missing = [str(one["loc"][0]) for one in err.errors() if one["type"] == "missing"]
        if missing:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
            hint = "or name a config of KIND KafkaInferenceJob that says it"
            raise ConfigError(f"{options}: missing", hint=hint) from err
        told = configs.explain(err, raw, [], within="job").message.replace(WorkerSettings.__name__, KIND)
        raise ConfigError(told, hint=f"`model-name schema {KIND}` lists the keys") from err
