"""Check the table before anything costly looks at it."""

from components.base import component


@component
def preparation(config: str, table: str) -> str:
    """Hold the table against its schema, and write what is left.

    Args:
        config: The job's config in JSON.
        table: A table to read instead of the config's; empty for the config's.

    Returns:
        Where the checked table is.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table}).table
