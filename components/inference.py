"""Predict a table."""

from components.base import component


@component
def inference(config: str, table: str) -> dict:
    """Predict every row of a table with the bundle of a version.

    Args:
        config: Job config in JSON.
        table: Path of a table to read instead of the configured one; empty for the configured one.

    Returns:
        Result of the inference: path of the predictions, version, number of rows.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table}).model_dump(mode="json")
