"""Write the report of a version."""

from kfp.dsl import HTML, Output

from components.base import component


@component
def reports(config: str, table: str, version: str, html: Output[HTML]) -> dict:
    """Write the report of a version: summary, metrics, gate, explanations, data, lineage.

    Args:
        config: Job config in JSON.
        table: Path of the validated table.
        version: Number of the version.
        html: Report as an HTML page.

    Returns:
        Summary of the version, and the path of the report.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "ref": version}, html=html).model_dump(mode="json")
