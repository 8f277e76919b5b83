"""Measure a version."""

from kfp.dsl import Metrics, Output

from components.base import component


@component
def evaluations(config: str, table: str, version: str, metrics: Output[Metrics]) -> str:
    """Measure a version against thresholds, champion and references, slice by slice.

    Args:
        config: The job's config in JSON.
        table: The checked table.
        version: The number of the version.
        metrics: What it scored.

    Returns:
        The number of the version.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "ref": version}, metrics=metrics).version
