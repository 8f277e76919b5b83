"""Write the page about a version."""

from kfp.dsl import HTML, Output

from components.base import component


@component
def reports(config: str, table: str, version: str, html: Output[HTML]) -> dict:
    """Write the page about a version: verdict, metrics, gate, explanations, data, lineage.

    Args:
        config: The job's config in JSON.
        table: The checked table.
        version: The number of the version.
        html: The page.

    Returns:
        The version in one document.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table, "ref": version}, html=html).model_dump(mode="json")
