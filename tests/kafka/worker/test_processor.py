"""Processing of a batch: a result or a dead letter for each record."""

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from model_name.core.schemas import Outputs
from model_name.errors import DataError, TooLargeError
from model_name.kafka.dead_letters import DEAD_LETTER_SOURCE_HEADERS, parse_headers
from model_name.kafka.producers import RecordsRejectedError, RoutedRecord
from model_name.kafka.records import RESULT_SOURCE_HEADERS, RecordPosition, parse_source
from model_name.kafka.worker.processor import ProcessedBatch, RecordProcessor, TopicRouter
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from model_name.serving.tracing import Tracing
from tests.support.kafka_records import FakeRecord
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

POISON = 13.0  # an area for which the model raises


class FragilePlane(DataPlane):
    """Data plane whose model raises for one area, and which records the sizes of its batches."""

    def __init__(self) -> None:
        super().__init__(plane_of(manifest_of(table_of())).bundle)
        self.rows: list[int] = []

    def predict_matrix(self, matrix: Any, *, interval: float | None = None) -> Outputs:
        self.rows.append(len(matrix))
        if (matrix[:, 0] == POISON).any():
            raise RuntimeError("the graph broke")
        return super().predict_matrix(matrix, interval=interval)


def record(offset: int, rows: int = 1, **changes: Any) -> FakeRecord:
    return FakeRecord(json.dumps([EXAMPLE | changes] * rows).encode(), offset=offset)


ROUTER = TopicRouter("out", "dead", 4, {"out": 4, "dead": 4})


@pytest.fixture
def processor() -> RecordProcessor:
    return RecordProcessor(FragilePlane(), Limits())


def target_and_offset(routed: RoutedRecord) -> tuple[str, Any]:
    """Topic of a record, and the offset of its source."""
    names = RESULT_SOURCE_HEADERS if routed.topic == "out" else DEAD_LETTER_SOURCE_HEADERS
    found = parse_source(routed.record.headers, names)
    return routed.topic, found and found.offset


def test_records_are_predicted_together_and_keep_their_order(processor: RecordProcessor) -> None:
    processed = processor.process([record(0), record(1, rows=3), record(2)])
    assert processor.plane.rows == [5]  # type: ignore[attr-defined]
    assert [target_and_offset(one) for one in processed.to_output_records(ROUTER)] == [
        ("out", 0),
        ("out", 1),
        ("out", 2),
    ]
    values = [json.loads(one.record.value or b"")["predictions"] for one in processed.to_output_records(ROUTER)]
    assert list(map(len, values)) == [1, 3, 1]


def test_an_invalid_record_fails_alone(processor: RecordProcessor) -> None:
    records = [record(0), record(1, area="wide"), FakeRecord(None, offset=2), record(3), FakeRecord(b"?", offset=4)]
    processed = processor.process(records)
    assert [target_and_offset(one) for one in processed.to_output_records(ROUTER)] == [
        ("out", 0), ("dead", 1), ("dead", 2), ("out", 3), ("dead", 4),
    ]  # fmt: skip
    sent = [one for one in processed.to_output_records(ROUTER) if one.topic == "dead"]
    dead_letters = [parse_headers(one.record.headers) for one in sent]
    assert [(dead_letter.kind, dead_letter.attempts) for dead_letter in dead_letters] == [("DataError", 1)] * 3
    assert "area" in dead_letters[0].reason


def test_a_record_for_which_the_model_raises_fails_alone_after_two_attempts(
    processor: RecordProcessor, logs: list[str]
) -> None:
    processed = processor.process([record(0), record(1, area=POISON), record(2, area="wide"), record(3)])
    sent = processed.to_output_records(ROUTER)
    assert [target_and_offset(one) for one in sent] == [("out", 0), ("dead", 1), ("dead", 2), ("out", 3)]
    dead_letters = [parse_headers(one.record.headers) for one in sent[1:3]]
    assert (dead_letters[0].kind, dead_letters[0].reason, dead_letters[0].attempts) == (
        "RuntimeError",
        "RuntimeError: the graph broke",
        2,
    )
    assert dead_letters[0].source == RecordPosition("in", 1, 1)
    assert (dead_letters[1].kind, dead_letters[1].attempts) == ("DataError", 1)
    assert sum(len(group.requests) for group in processed.groups) == 2
    assert [line for line in logs if "in[1]@1: the model raised RuntimeError" in line]


def test_a_batch_without_results_is_all_dead_letters(processor: RecordProcessor) -> None:
    processed = processor.process([record(number, area=POISON) for number in range(3)])
    assert [target_and_offset(one) for one in processed.to_output_records(ROUTER)] == [
        ("dead", number) for number in range(3)
    ]
    assert processed.groups == []


def test_too_many_rows_are_a_dead_letter() -> None:
    processor = RecordProcessor(plane_of(manifest_of(table_of())), Limits(rows=2))
    (sent,) = processor.process([record(0, rows=3)]).to_output_records(ROUTER)
    assert parse_headers(sent.record.headers).kind == "TooLargeError"


# Rejected records


def test_a_rejected_result_becomes_a_dead_letter_and_that_is_stripped(processor: RecordProcessor) -> None:
    processed = processor.process([record(0), record(1)])
    processed.mark_rejected(RecordsRejectedError({1: ValueError("too large")}))
    first, second = processed.to_output_records(ROUTER)
    assert (target_and_offset(first), target_and_offset(second)) == (("out", 0), ("dead", 1))
    assert parse_headers(second.record.headers).kind == TooLargeError.__name__
    assert second.record.value == record(1).value
    processed.mark_rejected(RecordsRejectedError({1: ValueError("too large")}))
    stripped = processed.to_output_records(ROUTER)[1]
    assert stripped.record.value == b""  # without a key, a record needs one
    assert parse_headers(stripped.record.headers).dropped_bytes == len(record(1).value or b"")


# Partitions


@pytest.mark.parametrize(
    ("inputs", "outputs", "key", "partition"),
    [
        pytest.param(4, 4, b"k", 3, id="as many: the same, with a key"),
        pytest.param(4, 4, None, 3, id="as many: the same, without a key"),
        pytest.param(4, 2, None, 1, id="fewer: all of a partition in one"),
        pytest.param(4, 8, None, 3, id="more: all of a partition in one"),
        pytest.param(4, 2, b"k", None, id="fewer: that of the key"),
        pytest.param(4, 8, b"k", None, id="more: that of the key"),
        pytest.param(4, 2, b"", None, id="an empty key is a key"),
    ],
)
def test_a_result_is_routed_by_partition_or_key(inputs: int, outputs: int, key: bytes | None, partition: Any) -> None:
    router = TopicRouter("out", "dead", inputs, {"out": outputs, "dead": inputs})
    found = FakeRecord(b"{}", key=key, partition=3)
    assert router.partition("out", found) == partition
    assert router.partition("dead", found) == 3


def test_results_and_dead_letters_are_routed_by_the_partitions_of_their_topics(processor: RecordProcessor) -> None:
    processed: ProcessedBatch = processor.process(
        [record(0)._replace(partition=3), FakeRecord(b"?", offset=1, partition=3)]
    )
    sent = processed.to_output_records(TopicRouter("out", "dead", 4, {"out": 4, "dead": 1}))
    assert [(one.topic, one.partition) for one in sent] == [("out", 3), ("dead", 0)]
    assert isinstance(processed.failed[1][0], DataError)


# Tracing

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01".encode()


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced_processor(exporter: InMemorySpanExporter) -> RecordProcessor:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return RecordProcessor(FragilePlane(), Limits(), Tracing(provider, TraceContextTextMapPropagator()))


@pytest.mark.parametrize(
    ("value", "expected", "phases"),
    [
        pytest.param(EXAMPLE, "", ["queue", "decode", "compute", "encode"], id="a good row"),
        pytest.param(EXAMPLE | {"area": "wide"}, "DataError", ["queue", "decode", "compute"], id="a bad row"),
        pytest.param("?", "DataError", ["queue", "decode"], id="no row"),
        pytest.param(EXAMPLE | {"area": POISON}, "RuntimeError", ["queue", "decode", "compute"], id="a failing model"),
    ],
)
@pytest.mark.parametrize("header", ["traceparent", "ce_traceparent"])
def test_a_record_that_belongs_to_a_trace_has_a_span_which_its_result_names(
    traced_processor: RecordProcessor,
    exporter: InMemorySpanExporter,
    header: str,
    value: Any,
    expected: str,
    phases: list[str],
) -> None:
    # given
    event = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/here", "ce_type": "flat"}
    headers = [(name, text.encode()) for name, text in event.items()] if header.startswith("ce_") else []
    traced = FakeRecord(json.dumps(value).encode(), [*headers, (header, TRACEPARENT)], offset=7)
    # when
    processed = traced_processor.process([record(0), traced])
    # then
    *children, span = sorted(exporter.get_finished_spans(), key=lambda found: found.name == "process rows")
    assert span.parent
    assert (span.kind, span.context.trace_id, span.parent.span_id) == (
        SpanKind.CONSUMER,
        int(TRACE_ID, 16),
        0xB7AD6B7169203331,
    )
    assert span.attributes
    assert span.attributes["messaging.kafka.offset"] == 7
    assert span.attributes.get("error.type", "") == expected
    assert span.status.is_ok is not bool(expected)
    assert sorted(child.name for child in children) == sorted(phases)
    plain, result = (dict(one.record.headers) for one in processed.to_output_records(ROUTER))
    assert "traceparent" not in plain
    own = f"00-{TRACE_ID}-{span.context.span_id:016x}-01".encode()
    assert result[header] == (TRACEPARENT if expected else own)
    assert processed.requests[1].trace_id == TRACE_ID
