"""Put a version through the gate."""

from components.base import component


@component
def promotion(config: str, version: str) -> bool:
    """Promote a version if it passes the gate; a refusal is recorded and is not a failure.

    Args:
        config: Job config in JSON.
        version: Number of the version.

    Returns:
        Whether the version was promoted.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"ref": version}).accepted
