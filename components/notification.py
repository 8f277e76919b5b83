"""Send an alert at the end of a pipeline."""

from kfp.dsl import PipelineTaskFinalStatus

from components.base import component


@component
def notification(config: str, status: PipelineTaskFinalStatus) -> None:
    """Send an alert at the end of the pipeline, also after a failure.

    Args:
        config: Job config in JSON.
        status: Final status of the pipeline.
    """
    from model_name.runner import run_component

    overrides = {
        "pipeline": status.pipeline_job_resource_name,
        "state": status.state,
        "message": status.error_message or "",
    }
    run_component(config, overrides=overrides)
