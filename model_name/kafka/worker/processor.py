"""Process a batch of records: predict them together and build a result or a dead letter for each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic, perf_counter
from typing import NamedTuple

from loguru import logger

from model_name.errors import ModelNameError, TooLargeError
from model_name.kafka.dead_letters import to_dead_letter
from model_name.kafka.producers import RecordsRejectedError, RoutedRecord
from model_name.kafka.records import ATTRIBUTE_PREFIXES, ConsumerRecord, KafkaRequest, OutputRecord
from model_name.serving.batching.batcher import InferBatch
from model_name.serving.batching.request_trace import TRACEPARENT
from model_name.serving.batching.requests import BatchResult, InferenceRequest, PredictedGroup, infer_batch
from model_name.serving.batching.traced_batch import trace_batches
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.tracing import RequestSpan, SpanEnd, SpanStart, Tracing

TRACE_HEADERS = frozenset({TRACEPARENT, *(prefix + TRACEPARENT for prefix in ATTRIBUTE_PREFIXES)})
"""Headers of a record that belongs to a trace."""
MAX_STRIP_LEVEL = 2  # a dead letter without its value and without its headers


class Failure(NamedTuple):
    """Reason why a record has no result.

    Attributes:
        error: Error of the last attempt.
        attempts: Number of attempts to predict the record.
    """

    error: BaseException
    attempts: int


@dataclass(frozen=True, slots=True)
class TopicRouter:
    """Chooses the partition of a result or dead letter.

    Attributes:
        output: Topic of the results.
        dead_letter: Topic of the dead letters.
        input_partitions: Number of partitions of the input topic.
        partitions: Number of partitions of each output topic.
    """

    output: str
    dead_letter: str
    input_partitions: int
    partitions: dict[str, int]

    def partition(self, topic: str, record: ConsumerRecord) -> int | None:
        """Choose the partition of a topic for the result of a record; None leaves it to the key of the record.

        Results of one partition stay in one partition and so in their order. If the topics differ in their number of
        partitions, records with a key are partitioned by it, which keeps the order of each key.
        """
        count = self.partitions[topic]
        if count == self.input_partitions or record.key is None:
            return record.partition % count
        return None


@dataclass(slots=True)
class ProcessedBatch:
    """Results and failures of a batch.

    Attributes:
        requests: Records of the batch.
        results: Result of each predicted record, by position.
        failed: Failure of each other record, by position.
        groups: Rows that were predicted together, for the prediction log.
        seconds: Duration of the processing.
        strip_levels: Number of times that the broker rejected a dead letter, by position. From the first on it is sent
            without its value, from the second on without its headers as well.
    """

    requests: Sequence[KafkaRequest]
    results: dict[int, OutputRecord]
    failed: dict[int, Failure]
    groups: Sequence[PredictedGroup]
    seconds: float
    strip_levels: Counter[int] = field(default_factory=Counter)

    def to_output_records(self, router: TopicRouter) -> list[RoutedRecord]:
        """Build the result or dead letter of each record, in the order of the batch."""
        return [self._output_record(position, router) for position in range(len(self.requests))]

    def _output_record(self, position: int, router: TopicRouter) -> RoutedRecord:
        record = self.requests[position].record
        if position not in self.failed:
            return RoutedRecord(router.output, router.partition(router.output, record), self.results[position])
        error, attempts = self.failed[position]
        level = self.strip_levels[position]
        dead_letter = to_dead_letter(record, error, attempts, keeps_value=level < 1, keeps_headers=level < 2)
        return RoutedRecord(router.dead_letter, router.partition(router.dead_letter, record), dead_letter)

    def mark_rejected(self, error: RecordsRejectedError) -> None:
        """Turn rejected results into dead letters, and strip rejected dead letters of their value or headers.

        Raises:
            RecordsRejectedError: The broker rejects a dead letter that is already stripped of both.
        """
        for position, reason in error.positions.items():
            if position in self.failed:
                self.strip_levels[position] += 1
                if self.strip_levels[position] > MAX_STRIP_LEVEL:
                    raise error
            else:
                size = len(self.results.pop(position).value or b"")
                cause = TooLargeError(f"the result has {size} bytes, which the broker refuses: {reason}")
                self.failed[position] = Failure(cause, 1)
                request = self.requests[position]
                self.groups = [*chain.from_iterable(remove_request(request, group) for group in self.groups)]


def remove_request(request: InferenceRequest, group: PredictedGroup) -> list[PredictedGroup]:
    """Split a group that contains a request into a group for each of its other requests."""
    if not any(member is request for member in group.requests):
        return [group]
    return [group.select(number) for number, member in enumerate(group.requests) if member is not request]


def start_spans(tracing: Tracing, requests: Sequence[KafkaRequest]) -> dict[int, RequestSpan]:
    """Start a span for each record whose headers name a trace, by its position; the others start no trace."""
    now = perf_counter()
    spans = {}
    for position, request in enumerate(requests):
        record = request.record
        headers = [(name, value or b"") for name, value in record.headers]
        if not any(name in TRACE_HEADERS for name, _ in headers):
            continue
        attributes: dict[str, str | int] = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
        }
        start = SpanStart(f"process {record.topic}", attributes, is_event=True, is_message=True)
        spans[position] = tracing.start(start, headers, now)
        spans[position].attach(request)
    return spans


class RecordProcessor:
    """Predicts batches of records with a data plane.

    Attributes:
        plane: Data plane that predicts.
        limits: Limits of one record.
        tracing: Tracing of records that belong to a trace; None if it is off.
    """

    def __init__(self, plane: DataPlane, limits: Limits, tracing: Tracing | None = None) -> None:
        """Create a processor for a data plane.

        Args:
            plane: Data plane that predicts.
            limits: Limits of one record.
            tracing: Tracing of records that belong to a trace; None if it is off.
        """
        self.plane = plane
        self.limits = limits
        self.tracing = tracing
        self._infer: InferBatch = infer_batch if tracing is None else trace_batches(infer_batch)

    def process(self, records: Sequence[ConsumerRecord]) -> ProcessedBatch:
        """Predict records together; if the model raises, predict each alone, so that only the culprit fails."""
        name, started = self.plane.bundle.manifest.name, monotonic()
        requests = [KafkaRequest(record, name=name) for record in records]
        failed: dict[int, Failure] = {}
        spans = {} if self.tracing is None else start_spans(self.tracing, requests)
        try:
            result = self._infer(self.plane, requests, self.limits)
        except Exception as err:  # noqa: BLE001  any error of a model costs one record at most
            logger.warning(
                "the model raised {} for a batch of {} records; predicting each alone", type(err).__name__, len(records)
            )
            result, failed = self._process_each(requests)
        results: dict[int, OutputRecord] = {}
        for position, response in enumerate(result.responses):
            if isinstance(response, ModelNameError):
                failed[position] = Failure(response, 1)
            elif position not in failed:
                results[position] = response
        for position, span in spans.items():
            failure = failed.get(position)
            error_type = type(failure.error).__name__ if failure else ""
            span.end(SpanEnd({}, bool(failure), error_type), requests[position].id, self.plane.bundle.manifest)
        return ProcessedBatch(requests, results, failed, result.groups, monotonic() - started)

    def _process_each(self, requests: Sequence[KafkaRequest]) -> tuple[BatchResult, dict[int, Failure]]:
        """Predict each record alone, which is the second attempt."""
        merged = BatchResult([])
        failed: dict[int, Failure] = {}
        for position, request in enumerate(requests):
            try:
                result = self._infer(self.plane, [request], self.limits)
                merged.responses += result.responses
                merged.groups += result.groups
            except Exception as err:  # noqa: BLE001  as in `process`
                logger.error("{}: the model raised {}: {}", request.source, type(err).__name__, err)
                merged.responses.append(None)
                failed[position] = Failure(err, 2)
        return merged, failed
