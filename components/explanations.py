"""Explain a version."""

from components.base import component


@component
def explanations(config: str, table: str, version: str) -> str:
    """Say what a version looks at, over all rows and row by row.

    Args:
        config: The job's config in JSON.
        table: The checked table.
        version: The number of the version.

    Returns:
        The number of the version.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "ref": version}).version
