"""Explain a version."""

from components.base import component


@component
def explanations(config: str, table: str, version: str) -> str:
    """Compute feature importances of a version, and the contributions of single rows.

    Args:
        config: Job config in JSON.
        table: Path of the validated table.
        version: Number of the version.

    Returns:
        Number of the version.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "ref": version}).version
