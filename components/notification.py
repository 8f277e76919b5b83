"""Tell how a pipeline ended."""

from kfp.dsl import PipelineTaskFinalStatus

from components.base import component


@component
def notification(config: str, status: PipelineTaskFinalStatus) -> None:
    """Tell people how the pipeline ended, whatever happened.

    Args:
        config: The job's config in JSON.
        status: How it ended.
    """
    from model_name.runner import run_component

    found = {
        "pipeline": status.pipeline_job_resource_name,
        "state": status.state,
        "message": status.error_message or "",
    }
    run_component(config, overrides=found)
