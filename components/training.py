"""Train a version."""

from kfp.dsl import Metrics, Output

from components.base import component


@component
def training(config: str, table: str, tuned: str, metrics: Output[Metrics]) -> str:
    """Fit a model, measure it on held-out rows and register it.

    Args:
        config: The job's config in JSON.
        table: The checked table.
        tuned: What the search hands on, in JSON; empty where there was none.
        metrics: What it scored.

    Returns:
        The number of the version.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "tuned": tuned}, metrics=metrics).version
