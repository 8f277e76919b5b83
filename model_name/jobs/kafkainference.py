"""Predict from one Kafka topic to another."""

from typing import Literal

from typing_extensions import override

from model_name.jobs.base import Job, Result
from model_name.kafka.worker.worker_settings import WorkerSettings


class KafkaInferenceResult(Result):
    """Totals of a worker.

    Attributes:
        predicted: Records with a result.
        dead_letters: Records without a result.
        batches: Batches that were delivered, each in one commit.
        failures: Batches that failed and were polled again.
    """

    predicted: int
    dead_letters: int
    batches: int
    failures: int


class KafkaInferenceJob(WorkerSettings, Job):
    """Predict the records of a topic until SIGTERM; its keys are those of `WorkerSettings`.

    The bundle determines the model; no table is read.
    """

    KIND: Literal["KafkaInferenceJob"] = "KafkaInferenceJob"

    @property
    @override
    def needs_mlflow(self) -> bool:
        """False: the job reads no model version."""
        return False

    @override
    def run(self) -> KafkaInferenceResult:
        """Run a worker.

        Raises:
            NotFoundError: The bundle or a topic does not exist.
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        from model_name.kafka.worker.worker_process import run_worker

        stats = run_worker(self)
        return KafkaInferenceResult(
            predicted=stats.predicted, dead_letters=stats.dead_letters, batches=stats.batches, failures=stats.failures
        )
