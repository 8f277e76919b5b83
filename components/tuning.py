"""Search the hyperparameters."""

from components.base import component


@component
def tuning(config: str, table: str) -> str:
    """Search the hyperparameters on folds of the training part.

    Args:
        config: Job config in JSON.
        table: Path of the validated table.

    Returns:
        Best hyperparameters and ID of the search run, in JSON.
    """
    from model_name.runner import run_component

    return run_component(config, overrides={"table": table}).training_overrides
