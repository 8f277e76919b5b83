"""Predict a table."""

from components.base import component


@component
def inference(config: str, table: str) -> dict:
    """Predict every row of a table with the bundle of a version.

    Args:
        config: The job's config in JSON.
        table: A table to read instead of the config's; empty for the config's.

    Returns:
        Where the predictions are, by which version, and how many.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table}).model_dump(mode="json")
