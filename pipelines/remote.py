"""Submit a compiled pipeline to a Kubeflow host, once or on a schedule."""

from pathlib import Path
from typing import Any

import kfp
import requests
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import HTTPError

from model_name.errors import ConfigError, DependencyError
from model_name.settings import env

HEALTH_PATH = "/apis/v2beta1/healthz"
HEALTH_TIMEOUT_SECONDS = 10


def create_client(host: str, namespace: str) -> kfp.Client:
    """Create a client of a Kubeflow host; the token comes from KF_PIPELINES_TOKEN.

    Raises:
        ConfigError: No host is configured.
        DependencyError: The host cannot be reached, or rejects the token.
    """
    variables = env()
    url = host or variables.kf_pipelines_endpoint
    if not url:
        raise ConfigError("no Kubeflow host is named", hint="--host URL, or set KF_PIPELINES_ENDPOINT")
    token = variables.kf_pipelines_token.get_secret_value() if variables.kf_pipelines_token else None
    check_reachable(url, token)
    try:
        return kfp.Client(host=url, namespace=namespace, existing_token=token)
    except (ApiException, HTTPError, OSError) as err:
        raise submit_error(url, err) from err


def check_reachable(host: str, token: str | None) -> None:
    """Check the health endpoint of the host once; kfp's client retries five times and reports less.

    Raises:
        DependencyError: The host cannot be reached, or rejects the token.
    """
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        response = requests.get(f"{host.rstrip('/')}{HEALTH_PATH}", headers=headers, timeout=HEALTH_TIMEOUT_SECONDS)
    except requests.RequestException as err:
        raise DependencyError(
            f"Kubeflow at {host} cannot be reached: {type(err).__name__}", hint="check --host"
        ) from err
    if not response.ok:
        raise DependencyError(
            f"Kubeflow at {host}: {response.status_code} {response.reason}",
            hint="check --host, KF_PIPELINES_TOKEN and --namespace",
        )


def submit(package: Path, arguments: dict[str, Any], *, host: str, namespace: str, experiment: str) -> dict[str, Any]:
    """Start a run on the host and return its id.

    Raises:
        DependencyError: The host cannot be reached, or rejects the request.
    """
    kubeflow = create_client(host, namespace)
    try:
        run = kubeflow.create_run_from_pipeline_package(
            str(package), arguments=arguments, experiment_name=experiment, namespace=namespace, enable_caching=False
        )
    except (ApiException, HTTPError, OSError) as err:
        raise submit_error(host, err) from err
    return {"run": run.run_id, "experiment": experiment}


def schedule(
    package: Path, arguments: dict[str, Any], *, host: str, namespace: str, experiment: str, name: str, cron: str
) -> dict[str, Any]:
    """Schedule the pipeline on the host; a schedule of the same name is replaced.

    Raises:
        DependencyError: The host cannot be reached, or rejects the request.
    """
    kubeflow = create_client(host, namespace)
    try:
        target = kubeflow.create_experiment(experiment, namespace=namespace)
        for old in kubeflow.list_recurring_runs(experiment_id=target.experiment_id, page_size=100).recurring_runs or []:
            if old.display_name == name:
                kubeflow.delete_recurring_run(old.recurring_run_id)
        created = kubeflow.create_recurring_run(
            experiment_id=target.experiment_id,
            job_name=name,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            params=arguments,
            pipeline_package_path=str(package),
            enable_caching=False,
        )
    except (ApiException, HTTPError, OSError) as err:
        raise submit_error(host, err) from err
    return {"schedule": created.recurring_run_id, "name": name, "cron": cron, "experiment": experiment}


def submit_error(host: str, err: Exception) -> DependencyError:
    """Create the error for a request that the host rejected."""
    reason = f"{err.status} {err.reason}" if isinstance(err, ApiException) else str(err)
    return DependencyError(f"Kubeflow at {host}: {reason}", hint="check --host, KF_PIPELINES_TOKEN and --namespace")
