"""A batch of records: a result or a dead letter for each."""

import json
from typing import Any

import pytest

from model_name.core.schemas import Outputs
from model_name.errors import DataError, TooLargeError
from model_name.kafka.dead_letters import DEAD_LETTER_SOURCE_HEADERS as LETTER
from model_name.kafka.dead_letters import parse_headers
from model_name.kafka.records import RESULT_SOURCE_HEADERS, RecordPosition, parse_source
from model_name.kafka.worker.delivery import RoutedRecord, RecordsRejectedError
from model_name.kafka.worker.processor import ProcessedBatch, RecordProcessor, TopicRouter
from model_name.serving.dataplane import DataPlane
from model_name.serving.limits import Limits
from tests.support.kafka_records import Made
from tests.support.manifests import EXAMPLE, manifest_of, plane_of, table_of

POISON = 13.0  # an area that breaks the model


class Fragile(DataPlane):
    """A data plane whose graph breaks on one area; it notes how many rows it is given."""

    def __init__(self) -> None:
        super().__init__(plane_of(manifest_of(table_of())).bundle)
        self.rows: list[int] = []

    def predict_matrix(self, matrix: Any, *, interval: float | None = None) -> Outputs:
        self.rows.append(len(matrix))
        if (matrix[:, 0] == POISON).any():
            raise RuntimeError("the graph broke")
        return super().predict_matrix(matrix, interval=interval)


def record(offset: int, rows: int = 1, **changes: Any) -> Made:
    return Made(json.dumps([EXAMPLE | changes] * rows).encode(), offset=offset)


TOPICS = TopicRouter("out", "dead", 4, {"out": 4, "dead": 4})


@pytest.fixture
def predictor() -> RecordProcessor:
    return RecordProcessor(Fragile(), Limits())


def told(message: RoutedRecord) -> tuple[str, Any]:
    """Where a message goes, and of which offset it is."""
    names = RESULT_SOURCE_HEADERS if message.topic == "out" else LETTER
    found = parse_source(message.message.headers, names)
    return message.topic, found and found.offset


def test_records_are_predicted_at_once_and_answered_in_their_order(predictor: RecordProcessor) -> None:
    predicted = predictor.predict([record(0), record(1, rows=3), record(2)])
    assert predictor.plane.rows == [5]  # type: ignore[attr-defined]
    assert [told(one) for one in predicted.outgoing(TOPICS)] == [("out", 0), ("out", 1), ("out", 2)]
    values = [json.loads(one.message.value or b"")["predictions"] for one in predicted.outgoing(TOPICS)]
    assert list(map(len, values)) == [1, 3, 1]


def test_a_bad_record_costs_only_itself(predictor: RecordProcessor) -> None:
    records = [record(0), record(1, area="wide"), Made(None, offset=2), record(3), Made(b"?", offset=4)]
    predicted = predictor.predict(records)
    assert [told(one) for one in predicted.outgoing(TOPICS)] == [
        ("out", 0), ("dead", 1), ("dead", 2), ("out", 3), ("dead", 4),
    ]  # fmt: skip
    letters = [parse_headers(one.message.headers) for one in predicted.outgoing(TOPICS) if one.topic == "dead"]
    assert [(letter.kind, letter.attempts) for letter in letters] == [("DataError", 1)] * 3
    assert "area" in letters[0].reason


def test_a_record_on_which_the_model_breaks_costs_only_itself_and_is_tried_twice(
    predictor: RecordProcessor, logs: list[str]
) -> None:
    predicted = predictor.predict([record(0), record(1, area=POISON), record(2, area="wide"), record(3)])
    sent = predicted.outgoing(TOPICS)
    assert [told(one) for one in sent] == [("out", 0), ("dead", 1), ("dead", 2), ("out", 3)]
    letters = [parse_headers(one.message.headers) for one in sent[1:3]]
    assert (letters[0].kind, letters[0].reason, letters[0].attempts) == (
        "RuntimeError",
        "RuntimeError: the graph broke",
        2,
    )
    assert letters[0].source == RecordPosition("in", 1, 1)
    assert (letters[1].kind, letters[1].attempts) == ("DataError", 1)
    assert sum(len(group.requests) for group in predicted.groups) == 2
    assert [line for line in logs if "in[1]@1: the model raised RuntimeError" in line]


def test_a_batch_of_which_nothing_can_be_predicted_is_all_dead_letters(predictor: RecordProcessor) -> None:
    predicted = predictor.predict([record(number, area=POISON) for number in range(3)])
    assert [told(one) for one in predicted.outgoing(TOPICS)] == [("dead", number) for number in range(3)]
    assert predicted.groups == []


def test_too_many_rows_are_a_dead_letter() -> None:
    predictor = RecordProcessor(plane_of(manifest_of(table_of())), Limits(rows=2))
    (sent,) = predictor.predict([record(0, rows=3)]).outgoing(TOPICS)
    assert parse_headers(sent.message.headers).kind == "TooLargeError"


# What the broker refuses


def test_a_result_that_is_refused_becomes_a_dead_letter_and_that_a_bare_one(predictor: RecordProcessor) -> None:
    predicted = predictor.predict([record(0), record(1)])
    predicted.refuse(RecordsRejectedError({1: ValueError("too large")}))
    first, second = predicted.outgoing(TOPICS)
    assert (told(first), told(second)) == (("out", 0), ("dead", 1))
    assert parse_headers(second.message.headers).kind == TooLargeError.__name__
    assert second.message.value == record(1).value
    predicted.refuse(RecordsRejectedError({1: ValueError("too large")}))
    bare = predicted.outgoing(TOPICS)[1]
    assert bare.message.value == b""  # without a key, a record needs one
    assert parse_headers(bare.message.headers).dropped == len(record(1).value or b"")


# Partitions


@pytest.mark.parametrize(
    ("inputs", "outputs", "key", "partition"),
    [
        pytest.param(4, 4, b"k", 3, id="as many: the same one, with a key"),
        pytest.param(4, 4, None, 3, id="as many: the same one, without a key"),
        pytest.param(4, 2, None, 1, id="fewer: all of a partition in one"),
        pytest.param(4, 8, None, 3, id="more: all of a partition in one"),
        pytest.param(4, 2, b"k", None, id="fewer: that of the key"),
        pytest.param(4, 8, b"k", None, id="more: that of the key"),
        pytest.param(4, 2, b"", None, id="an empty key is one"),
    ],
)
def test_a_record_is_answered_in_the_partition(inputs: int, outputs: int, key: bytes | None, partition: Any) -> None:
    topics = TopicRouter("out", "dead", inputs, {"out": outputs, "dead": inputs})
    found = Made(b"{}", key=key, partition=3)
    assert topics.partition("out", found) == partition
    assert topics.partition("dead", found) == 3


def test_results_and_dead_letters_have_partitions_of_their_own(predictor: RecordProcessor) -> None:
    predicted: ProcessedBatch = predictor.predict([record(0)._replace(partition=3), Made(b"?", offset=1, partition=3)])
    sent = predicted.outgoing(TopicRouter("out", "dead", 4, {"out": 4, "dead": 1}))
    assert [(one.topic, one.partition) for one in sent] == [("out", 3), ("dead", 0)]
    assert isinstance(predicted.failed[1][0], DataError)
