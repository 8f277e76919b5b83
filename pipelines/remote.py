"""Hand a compiled pipeline to a Kubeflow host, once or on a schedule."""

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
    """A client of a Kubeflow host; the token comes from KF_PIPELINES_TOKEN.

    Raises:
        ConfigError: No host is named.
        DependencyError: It cannot be reached, or refuses the token.
    """
    found = env()
    place = host or found.kf_pipelines_endpoint
    if not place:
        raise ConfigError("no Kubeflow host is named", hint="--host URL, or set KF_PIPELINES_ENDPOINT")
    token = found.kf_pipelines_token.get_secret_value() if found.kf_pipelines_token else None
    check_reachable(place, token)
    try:
        return kfp.Client(host=place, namespace=namespace, existing_token=token)
    except (ApiException, HTTPError, OSError) as err:
        raise submit_error(place, err) from err


def check_reachable(host: str, token: str | None) -> None:
    """Ask the host whether it is there, once: kfp's own client asks five times, and says less.

    Raises:
        DependencyError: It cannot be reached, or refuses the token.
    """
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        answer = requests.get(f"{host.rstrip('/')}{HEALTH_PATH}", headers=headers, timeout=HEALTH_TIMEOUT_SECONDS)
    except requests.RequestException as err:
        raise DependencyError(
            f"Kubeflow at {host} cannot be reached: {type(err).__name__}", hint="check --host"
        ) from err
    if not answer.ok:
        raise DependencyError(
            f"Kubeflow at {host}: {answer.status_code} {answer.reason}",
            hint="check --host, KF_PIPELINES_TOKEN and --namespace",
        )


def submit(package: Path, arguments: dict[str, Any], *, host: str, namespace: str, experiment: str) -> dict[str, Any]:
    """Start a run on the host and return its id.

    Raises:
        DependencyError: The host cannot be reached or refuses it.
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
    """Have the host run it again and again; a schedule of the same name is replaced.

    Raises:
        DependencyError: The host cannot be reached or refuses it.
    """
    kubeflow = create_client(host, namespace)
    try:
        place = kubeflow.create_experiment(experiment, namespace=namespace)
        for old in kubeflow.list_recurring_runs(experiment_id=place.experiment_id, page_size=100).recurring_runs or []:
            if old.display_name == name:
                kubeflow.delete_recurring_run(old.recurring_run_id)
        made = kubeflow.create_recurring_run(
            experiment_id=place.experiment_id,
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
    return {"schedule": made.recurring_run_id, "name": name, "cron": cron, "experiment": experiment}


def submit_error(host: str, err: Exception) -> DependencyError:
    """Say that the host did not do it."""
    reason = f"{err.status} {err.reason}" if isinstance(err, ApiException) else str(err)
    return DependencyError(f"Kubeflow at {host}: {reason}", hint="check --host, KF_PIPELINES_TOKEN and --namespace")
