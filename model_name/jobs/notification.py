"""Tell people how a pipeline ended."""

from typing import Literal

from loguru import logger

from model_name.jobs.base import Job, Result


class NotificationJob(Job):
    """Tell how a pipeline ended; the last step, whatever happened.

    Attributes:
        pipeline: Its name.
        state: SUCCEEDED, FAILED or CANCELLED.
        message: What went wrong.
    """

    KIND: Literal["NotificationJob"] = "NotificationJob"
    pipeline: str = ""
    state: str = ""
    message: str = ""

    @property
    def needs_mlflow(self) -> bool:
        """It looks at no version."""
        return False

    def run(self) -> Result:
        """As of `Job`."""
        words = f"the pipeline {self.pipeline} of {self.name} ended: {self.state}"
        self.alerts.notify("pipeline", f"{words}. {self.message}".strip())
        if self.state != "SUCCEEDED":
            logger.warning(words)
        return Result()
