"""Evaluate a version."""

from kfp.dsl import Metrics, Output

from components.base import component


@component
def evaluations(config: str, table: str, version: str, metrics: Output[Metrics]) -> str:
    """Evaluate a version against thresholds, champion and reference models, also by slice.

    Args:
        config: Job config in JSON.
        table: Path of the validated table.
        version: Number of the version.
        metrics: Metrics of the version.

    Returns:
        Number of the version.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "ref": version}, metrics=metrics).version
