"""Environment variables: addresses and secrets."""

from functools import cache
from typing import Any

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Env(BaseSettings):
    """Environment variables, then `.env`, then these defaults; names are case-insensitive, empty ones count as unset.

    Attributes:
        mlflow_tracking_uri: URI of the store of runs; overrides `job.mlflow.tracking_uri`.
        mlflow_registry_uri: URI of the model registry, if it is another store.
        mlflow_experiment_name: Name of the experiment; overrides `job.mlflow.experiment`.
        model_name_alerts_url: URL of the webhook for alerts; secret, because it may hold a token.
        model_name_bundle_private_key: Ed25519 key in PEM that signs bundles; secret.
        model_name_bundle_private_key_file: File of that key, instead.
        model_name_actor: Actor in the entries of the audit trail.
        kf_pipelines_endpoint: URL of the Kubeflow Pipelines host.
        kf_pipelines_token: Bearer token for that host.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8",
        env_ignore_empty=True,  # compose files and pods pass an unset variable as an empty one
        extra="ignore",
        case_sensitive=False,
    )

    mlflow_tracking_uri: str | None = None
    mlflow_registry_uri: str | None = None
    mlflow_experiment_name: str | None = None
    model_name_alerts_url: SecretStr | None = None
    model_name_bundle_private_key: SecretStr | None = None
    model_name_bundle_private_key_file: str | None = None
    model_name_actor: str | None = None
    kf_pipelines_endpoint: str | None = None
    kf_pipelines_token: SecretStr | None = None


@cache
def env() -> Env:
    """Read the environment once; `env.cache_clear()` makes the next call read it again."""
    return Env()


def job_overrides() -> dict[str, Any]:
    """Return the config keys that the environment overrides in every job."""
    variables = env()
    mlflow = {
        "tracking_uri": variables.mlflow_tracking_uri,
        "registry_uri": variables.mlflow_registry_uri,
        "experiment": variables.mlflow_experiment_name,
    }
    return {"mlflow": {name: value for name, value in mlflow.items() if value is not None}}
