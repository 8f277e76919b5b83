"""Send an alert at the end of a pipeline."""

from typing import Literal

from loguru import logger
from typing_extensions import override

from model_name.jobs.base import Job
from model_name.results import Result


class NotificationJob(Job):
    """Send an alert at the end of a pipeline; the job is its last step, also after a failure.

    Attributes:
        pipeline: Name of the pipeline.
        state: State of the pipeline: SUCCEEDED, FAILED or CANCELLED.
        message: Error message of a failed pipeline.
    """

    KIND: Literal["NotificationJob"] = "NotificationJob"
    pipeline: str = ""
    state: str = ""
    message: str = ""

    @property
    @override
    def needs_mlflow(self) -> bool:
        return False

    @override
    def run(self) -> Result:
        summary = f"the pipeline {self.pipeline} of {self.name} ended: {self.state}"
        self.alerts.notify("pipeline", f"{summary}. {self.message}".strip())
        if self.state != "SUCCEEDED":
            logger.warning(summary)
        return Result()
