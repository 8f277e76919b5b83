"""Train a version."""

from kfp.dsl import Metrics, Output

from components.base import component


@component
def training(config: str, table: str, tuned: str, metrics: Output[Metrics]) -> str:
    """Fit a model, evaluate it on held-out rows and register it.

    Args:
        config: Job config in JSON.
        table: Path of the validated table.
        tuned: Config keys that the search determined, in JSON; empty if there was no search.
        metrics: Metrics on the held-out rows.

    Returns:
        Number of the version.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "tuned": tuned}, metrics=metrics).version
