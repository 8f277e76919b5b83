"""Predict from one topic of Kafka to another."""

from typing import Literal

from model_name.jobs.base import Job, Result
from model_name.kafka.worker.worker_config import WorkerSettings


class KafkaInferenceResult(Result):
    """What a worker has done.

    Attributes:
        predicted: Records with a result.
        dead_letters: Records without.
        batches: Delivered, each in one commit.
        failures: Batches that had to be read again.
    """

    predicted: int
    dead_letters: int
    batches: int
    failures: int


class KafkaInferenceJob(WorkerSettings, Job):
    """Answer the records of a topic until SIGTERM; its keys are those of `WorkerSettings`.

    The bundle alone says what is served; of the table nothing is read.
    """

    KIND: Literal["KafkaInferenceJob"] = "KafkaInferenceJob"

    @property
    def needs_mlflow(self) -> bool:
        """It looks at no version."""
        return False

    def run(self) -> KafkaInferenceResult:
        """As of `Job`.

        Raises:
            NotFoundError: The bundle or a topic does not exist.
            DependencyError: The cluster cannot be reached, or refuses.
        """
        from model_name.kafka.worker.startup import run_worker

        done = run_worker(self)
        return KafkaInferenceResult(
            predicted=done.predicted, dead_letters=done.dead_letters, batches=done.batches, failures=done.failures
        )
