"""Search the hyperparameters."""

from components.base import component


@component
def tuning(config: str, table: str) -> str:
    """Search the hyperparameters on folds of the training part.

    Args:
        config: The job's config in JSON.
        table: The checked table.

    Returns:
        The best hyperparameters and the run that found them, in JSON.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table}).training_overrides
