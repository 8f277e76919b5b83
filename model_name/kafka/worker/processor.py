"""A batch of records, answered: a result or a dead letter for each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic

from loguru import logger

from model_name.errors import ModelNameError, TooLargeError
from model_name.kafka.dead_letters import to_dead_letter
from model_name.kafka.records import OutputRecord, ConsumerRecord, KafkaRequest
from model_name.kafka.worker.delivery import RoutedRecord, RecordsRejectedError
from model_name.serving.batching.requests import BatchResult, PredictedGroup, InferenceRequest, infer_batch
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits

MAX_STRIP_LEVEL = 2
Failure = tuple[BaseException, int]
"""Why there is no result, and how often it was tried."""


@dataclass(frozen=True, slots=True)
class TopicRouter:
    """Where results go.

    Attributes:
        output: The topic of the results.
        dead_letter: That of the records without.
        inputs: How many partitions the input has.
        partitions: How many each of these topics has.
    """

    output: str
    dead_letter: str
    inputs: int
    partitions: dict[str, int]

    def partition(self, topic: str, record: ConsumerRecord) -> int | None:
        """The partition of a topic in which a record is answered; None leaves it to the record's key.

        Records of one partition stay in one, and so in their order, unless the topics have different numbers of
        partitions and the records have keys: then those of one key do.
        """
        count = self.partitions[topic]
        if count == self.inputs or record.key is None:
            return record.partition % count
        return None


@dataclass(slots=True)
class ProcessedBatch:
    """What became of a batch.

    Attributes:
        requests: The records.
        results: Of those that have one, by position.
        failed: Of those that have none, by position, with the error and the number of attempts.
        groups: What was predicted together, for the prediction log.
        bare: How often a dead letter was refused, by position: it goes without its value then, and without its headers.
        seconds: That it took.
    """

    requests: Sequence[KafkaRequest]
    results: dict[int, OutputRecord]
    failed: dict[int, Failure]
    groups: Sequence[PredictedGroup]
    seconds: float
    bare: Counter[int] = field(default_factory=Counter)

    def outgoing(self, topics: TopicRouter) -> list[RoutedRecord]:
        """The messages, in the order of the records."""
        return [self._message(position, topics) for position in range(len(self.requests))]

    def _message(self, position: int, topics: TopicRouter) -> RoutedRecord:
        record = self.requests[position].record
        if position not in self.failed:
            return RoutedRecord(topics.output, topics.partition(topics.output, record), self.results[position])
        error, attempts = self.failed[position]
        bare = self.bare[position]
        message = to_dead_letter(record, error, attempts, keeps_value=bare < 1, keeps_headers=bare < 2)
        return RoutedRecord(topics.dead_letter, topics.partition(topics.dead_letter, record), message)

    def refuse(self, error: RecordsRejectedError) -> None:
        """Make dead letters of what the broker refused, and ever barer ones of dead letters that it refused.

        Raises:
            RefusedError: Not even one that says only where the record lies is taken.
        """
        for position, reason in error.positions.items():
            if position in self.failed:
                self.bare[position] += 1
                if self.bare[position] > MAX_STRIP_LEVEL:
                    raise error
            else:
                size = len(self.results.pop(position).value or b"")
                told = TooLargeError(f"the result has {size} bytes, which the broker refuses: {reason}")
                self.failed[position] = (told, 1)
                self.groups = [*chain.from_iterable(remove_request(self.requests[position], one) for one in self.groups)]


def remove_request(request: InferenceRequest, group: PredictedGroup) -> list[PredictedGroup]:
    """What was predicted together, less one of the requests: each of the others by itself, if it was one of these."""
    if not any(one is request for one in group.requests):
        return [group]
    return [group.select(number) for number, one in enumerate(group.requests) if one is not request]


class RecordProcessor:
    """Answers batches from a bundle."""

    def __init__(self, plane: DataPlane, limits: Limits) -> None:
        """Serve a bundle."""
        self.plane = plane
        self.limits = limits

    def predict(self, records: Sequence[ConsumerRecord]) -> ProcessedBatch:
        """Answer records together; where the model raises, each alone, so that one costs only itself."""
        name, started = self.plane.bundle.manifest.name, monotonic()
        requests = [KafkaRequest(record, name=name) for record in records]
        failed: dict[int, Failure] = {}
        try:
            answered = infer_batch(self.plane, requests, self.limits)
        except Exception as err:  # noqa: BLE001  the loop around a model: whatever it raises costs one record at most
            logger.warning("the model raised {} for {} records; each is tried alone", type(err).__name__, len(records))
            answered, failed = self._each(requests)
        results: dict[int, OutputRecord] = {}
        for position, reply in enumerate(answered.responses):
            if isinstance(reply, ModelNameError):
                failed[position] = (reply, 1)
            elif position not in failed:
                results[position] = reply
        return ProcessedBatch(requests, results, failed, answered.groups, monotonic() - started)

    def _each(self, requests: Sequence[KafkaRequest]) -> tuple[BatchResult, dict[int, Failure]]:
        """Answer each alone, for the second time."""
        whole = BatchResult([])
        failed: dict[int, Failure] = {}
        for position, request in enumerate(requests):
            try:
                alone = infer_batch(self.plane, [request], self.limits)
                whole.responses += alone.responses
                whole.groups += alone.groups
            except Exception as err:  # noqa: BLE001  as above
                logger.error("{}: the model raised {}: {}", request.source, type(err).__name__, err)
                whole.responses.append(None)
                failed[position] = (err, 2)
        return whole, failed
