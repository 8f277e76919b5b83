"""Put a version through the gate."""

from components.base import component


@component
def promotion(config: str, version: str) -> bool:
    """Promote a version if it is good enough; a refusal is recorded and is no failure.

    Args:
        config: The job's config in JSON.
        version: The number of the version.

    Returns:
        Whether it was promoted.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"ref": version}).accepted
