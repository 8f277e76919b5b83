"""Validate the table before any expensive step."""

from components.base import component


@component
def preparation(config: str, table: str) -> str:
    """Validate the table against its schema, and write the rows that are left.

    Args:
        config: Job config in JSON.
        table: Path of a table to read instead of the configured one; empty for the configured one.

    Returns:
        Path of the validated table.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table}).table
