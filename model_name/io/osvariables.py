"""What the environment says: addresses and secrets, and nothing else."""

from functools import cache
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Env(BaseSettings):
    """Environment variables, then `.env`, then these defaults; names are case-insensitive, empty ones count as unset.

    Attributes:
        mlflow_tracking_uri: Where runs are recorded; overrides `job.mlflow.tracking_uri`.
        mlflow_registry_uri: Where versions are registered, if elsewhere.
        mlflow_experiment_name: Overrides `job.mlflow.experiment`.
        model_name_alerts_url: Where alerts are posted; it may hold a token, hence a secret.
        model_name_actor: Who is named in the audit trail.
        kf_pipelines_endpoint: The Kubeflow Pipelines host.
        kf_pipelines_token: The bearer token for it.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,  # an unset variable of a compose file or a pod arrives as an empty one
        extra="ignore",
        case_sensitive=False,
    )

    mlflow_tracking_uri: str | None = None
    mlflow_registry_uri: str | None = None
    mlflow_experiment_name: str | None = None
    model_name_alerts_url: SecretStr | None = None
    model_name_actor: str | None = None
    kf_pipelines_endpoint: str | None = None
    kf_pipelines_token: SecretStr | None = None


@cache
def env() -> Env:
    """The one reading of the environment; `env.cache_clear()` forgets it."""
    return Env()


def job_overrides() -> dict[str, Any]:
    """What the environment sets over the config of a job."""
    found = env()
    mlflow = {
        "tracking_uri": found.mlflow_tracking_uri,
        "registry_uri": found.mlflow_registry_uri,
        "experiment": found.mlflow_experiment_name,
    }
    return {"mlflow": {name: value for name, value in mlflow.items() if value is not None}}
