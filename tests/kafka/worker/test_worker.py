"""A worker on a real broker, from the input topic to results and dead letters."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from kafka import TopicPartition
from loguru import logger

from model_name.kafka.dead_letters import ATTEMPTS_HEADER, DEAD_LETTER_SOURCE_HEADERS, REASON_HEADER, parse_headers
from model_name.kafka.records import RESULT_SOURCE_HEADERS, Headers, RecordPosition
from model_name.kafka.worker.delivery import MAX_OVERHEAD_BYTES
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from model_name.serving.protocols.v1 import encode_predictions
from tests.support.flat_bundles import make_bundle
from tests.support.kafka_topics import create_topics, write_transactions
from tests.support.kafka_workers import WorkerHarness, source_positions, wait_until
from tests.support.prediction_logs import lines
from tests.support.tables import FLAT_ROWS, TASKS

pytestmark = pytest.mark.kafka

MakeHarness = Callable[..., WorkerHarness]
GOOD = orjson.dumps(FLAT_ROWS[0])
LISTS = [[*row.values()] for row in FLAT_ROWS]
CORRELATED = {
    "specversion": "1.0",
    "id": "a-1",
    "source": "/flats",
    "type": "flat.offered",
    "subject": "düne",
    "rank": "7",
}
NOT_UTF8 = b"\xff\xfe"
DELIVERIES = ("exactly_once", "at_least_once")


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DataPlane]:
    return {task: DataPlane(make_bundle(task, tmp_path_factory.mktemp(task))) for task in TASKS}


@pytest.fixture
def make_harness(broker: Any, planes: dict[str, DataPlane]) -> MakeHarness:
    """`make_harness(**changes)`: topics of one test and their workers."""

    def make(**changes: Any) -> WorkerHarness:
        return WorkerHarness(broker, **{"plane": planes["regression"]} | changes)

    return make


def offsets(results: Sequence[Any]) -> list[int]:
    """Return the offsets of the records of these results."""
    return [position.offset for position in source_positions(results)]


def attributes(headers: Sequence[tuple[str, bytes]], prefix: str = "ce_") -> dict[str, str]:
    """Parse the attributes of an event in binary mode."""
    return {name[3:]: value.decode() for name, value in headers if name.startswith(prefix)}


def binary_event(prefix: str, **more: str) -> Headers:
    """Build the headers of an event in binary mode."""
    return [(prefix + name, value.encode()) for name, value in (CORRELATED | more).items()]


STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
V1 = {"instances": FLAT_ROWS}
VALID: dict[str, tuple[bytes, Headers, list[Any]]] = {
    "a row": (GOOD, [], FLAT_ROWS[:1]),
    "rows": (orjson.dumps(FLAT_ROWS), [], FLAT_ROWS),
    "a body of V1": (orjson.dumps(V1), [], FLAT_ROWS),
    "a body of V1 with arrays": (orjson.dumps({"instances": LISTS}), [], FLAT_ROWS),
    "JSON text within JSON": (orjson.dumps(GOOD.decode()), [], FLAT_ROWS[:1]),
    "a content type": (GOOD, [("Content-Type", b"application/json; charset=utf-8")], FLAT_ROWS[:1]),
    "a binary event": (GOOD, binary_event("ce_"), FLAT_ROWS[:1]),
    "a binary event of an HTTP bridge": (orjson.dumps(V1), binary_event("ce-"), FLAT_ROWS),
    "a structured event": (orjson.dumps(CORRELATED | {"data": V1}), STRUCTURED, FLAT_ROWS),
    "a structured event with a row": (orjson.dumps(CORRELATED | {"data": FLAT_ROWS[1]}), STRUCTURED, FLAT_ROWS[1:2]),
    "a structured event in Base64": (
        orjson.dumps(CORRELATED | {"data_base64": b64encode(GOOD).decode()}), STRUCTURED, FLAT_ROWS[:1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_result_equals_that_of_the_data_plane(
    make_harness: MakeHarness, planes: dict[str, DataPlane], task: str
) -> None:
    # Given a record of each form
    harness = make_harness(plane=planes[task])
    records = [harness.record(value, headers=headers) for value, headers, _ in VALID.values()]
    # When a worker processes them
    results, dead = harness.write_and_process(*records)
    # Then each result equals that of the data plane for the same rows
    assert not dead
    bodies = [orjson.loads(result.value) for result in results]
    found = [body.get("data", body) for body in bodies]
    expected = [
        json.loads(orjson.dumps(encode_predictions(planes[task].predict_rows(rows)))) for _, _, rows in VALID.values()
    ]
    assert dict(zip(VALID, found, strict=True)) == dict(zip(VALID, expected, strict=True))


def test_intervals_are_predicted_on_request(make_harness: MakeHarness) -> None:
    # Given a record that requests intervals, and another one
    harness = make_harness()
    with_interval = orjson.dumps(V1 | {"parameters": {"interval": 0.9}})
    # When a worker processes them
    results, _ = harness.write_and_process(harness.record(with_interval), harness.record(GOOD))
    # Then only the first result has intervals
    first, second = (orjson.loads(result.value)["predictions"] for result in results)
    assert all(one["lower"] < one["prediction"] < one["upper"] for one in first)
    assert second == harness.plane.predict_rows(FLAT_ROWS[:1]).prediction.tolist()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_results_keep_key_headers_partition_and_order(make_harness: MakeHarness, delivery: str) -> None:
    # Given records with and without keys in three partitions
    harness = make_harness(partitions=3, settings={"delivery": delivery, "max_poll_records": 7})
    kept: Headers = [("trace", b"t-1"), ("trace", b"t-2"), ("raw", NOT_UTF8), ("empty", b"")]
    records = [
        harness.record(GOOD if number % 4 else b"bad", partition=number % 3, key=[None, b"k", b""][number % 5 % 3],
                     headers=kept)
        for number in range(60)
    ]  # fmt: skip
    positions = harness.write(*records)
    # When a worker processes them
    results, dead = harness.process(60)
    # Then each partition has the results of its records, in order, with their keys and headers
    assert (len(results), len(dead)) == (45, 15)
    by_position = dict(zip(positions, records, strict=True))
    for outputs, names in ((results, RESULT_SOURCE_HEADERS), (dead, DEAD_LETTER_SOURCE_HEADERS)):
        for partition in range(3):
            there = [record for record in outputs if record.partition == partition]
            found = [*zip(there, source_positions(there, names), strict=True)]
            assert [position.offset for _, position in found] == sorted(position.offset for _, position in found)
            for record, position in found:
                assert (position.topic, position.partition) == (harness.input, partition)
                assert (record.key, record.headers[:4]) == (by_position[position].key, kept)


def test_different_numbers_of_partitions_keep_the_order_of_a_key(make_harness: MakeHarness) -> None:
    # Given two partitions in and three out
    harness = make_harness()
    (harness.output,) = create_topics(harness.broker, "out", partitions=3)
    keys = [b"a", b"b", b"c", b"d", None]
    records = [
        harness.record(GOOD, partition=len(keys) % (number % 5 + 1) % 2, key=keys[number % 5]) for number in range(50)
    ]
    positions = harness.write(*records)
    # When a worker processes them
    results, _ = harness.process(50)
    # Then the results of a key are in one partition and in order; results without a key follow their partition
    key_of = dict(zip(positions, (record.key for record in records), strict=True))
    for key in keys:
        found = [record for record in results if key_of[source_positions([record])[0]] == key]
        assert len({record.partition for record in found}) == 1
        assert [position.offset for position in source_positions(found)] == sorted(
            position.offset for position in source_positions(found)
        )
        if key is None:
            assert found[0].partition == source_positions(found)[0].partition % 3


def test_the_result_of_a_plain_record_is_an_event(make_harness: MakeHarness) -> None:
    # Given a plain record
    harness = make_harness()
    # When a worker processes it
    (result,), _ = harness.write_and_process(harness.record(GOOD, partition=1))
    # Then its result is an event with a deterministic id
    assert attributes(result.headers) == {
        "specversion": "1.0",
        "source": "io.kserve.inference.regression",
        "type": "io.kserve.inference.response",
        "id": "partition:1/offset:0",
    }
    assert dict(result.headers)["content-type"] == b"application/json"


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        pytest.param("a binary event", "ce_", id="binary"),
        pytest.param("a binary event of an HTTP bridge", "ce-", id="binary, of an HTTP bridge"),
        pytest.param("a structured event", "", id="structured"),
    ],
)
def test_the_result_of_an_event_is_correlated(make_harness: MakeHarness, kind: str, prefix: str) -> None:
    # Given an event
    harness = make_harness()
    value, headers, _ = VALID[kind]
    # When a worker processes it
    (result,), _ = harness.write_and_process(harness.record(value, headers=headers, key=b"k"))
    # Then the result is an event in the same mode, with its id, its extensions, and its source as the requestsource
    found = attributes(result.headers, prefix) if prefix else orjson.loads(result.value)
    expected = {"id": "a-1", "requestsource": "/flats", "subject": "düne", "rank": "7", "modelversion": "7"}
    assert {name: found.get(name) for name in expected} == expected
    assert found["source"] == "io.kserve.inference.regression"
    assert found["type"] == "io.kserve.inference.response"
    assert source_positions([result]) == [RecordPosition(harness.input, 0, 0)]


LONG = orjson.dumps([FLAT_ROWS[0]] * 40)
INVALID: dict[str, tuple[bytes | None, Headers, str]] = {
    "not JSON": (b"{area: 1}", [], "JSON"),
    "not UTF-8": (NOT_UTF8, [], "JSON"),
    "an empty value": (b"", [], "JSON"),
    "a number": (b"7", [], "neither an object"),
    "no rows": (b"[]", [], "no row"),
    "a value above the bound of the schema": (orjson.dumps(FLAT_ROWS[0] | {"area": 900.0}), [], "area: 900"),
    "a missing column": (orjson.dumps({"area": 1.0}), [], "column is missing"),
    "a column twice": (GOOD[:-1] + b',"area":1.0}', [], "area: comes twice"),
    "a value above the limit": (LONG, [], f"{len(LONG)} bytes"),
    "a tombstone": (None, [], "tombstone"),
    "another content type": (GOOD, [("content-type", b"text/csv")], "text/csv is not JSON"),
    "a header that is not UTF-8": (GOOD, [("ce_id", NOT_UTF8)], "ce_id: is not UTF-8"),
    "an event without an id": (
        orjson.dumps({name: value for name, value in CORRELATED.items() if name != "id"} | {"data": V1}),
        STRUCTURED,
        "id: the event has no such attribute",
    ),
    "an event without data": (orjson.dumps(CORRELATED), STRUCTURED, "has no data"),
    "an event with data and Base64": (
        orjson.dumps(CORRELATED | {"data": V1, "data_base64": "e30="}), STRUCTURED, "has data beside it",
    ),
    "a structured event that is an array": (b"[]", STRUCTURED, "not an object"),
    "a binary event without a source": (GOOD, [("ce_id", b"1"), ("ce_specversion", b"1.0")], "source: the event"),
    "an invalid attribute name": (GOOD, binary_event("ce_", **{"Not A Name": "x"}), "is not a name of an attribute"),
}  # fmt: skip


def test_each_invalid_record_becomes_a_dead_letter_between_results(make_harness: MakeHarness) -> None:
    # Given invalid records of all kinds, each after a valid one
    harness = make_harness(settings={"max_record_bytes": 3000})
    records = []
    for value, headers, _ in INVALID.values():
        records += [harness.record(GOOD), harness.record(value, key=b"k", headers=[("trace", b"t"), *headers])]
    # When a worker processes them
    results, dead = harness.write_and_process(*records)
    # Then the valid ones have results
    assert offsets(results) == [*range(0, 2 * len(INVALID), 2)]
    # And the invalid ones are unchanged in the dead-letter topic, with position, reason and attempts
    for number, ((name, (value, headers, reason)), found) in enumerate(zip(INVALID.items(), dead, strict=True)):
        dead_letter = parse_headers(found.headers)
        assert reason in dead_letter.reason, name
        assert dead_letter.source == RecordPosition(harness.input, 0, 2 * number + 1), name
        assert (dead_letter.attempts, dead_letter.dropped_bytes) == (1, None), name
        assert (found.key, found.value) == (b"k", value), name
        assert found.headers[: len(headers) + 1] == [("trace", b"t"), *headers], name


def test_attempts_of_a_replayed_record_are_added_up(make_harness: MakeHarness) -> None:
    # Given a replayed record
    harness = make_harness()
    again: Headers = [(ATTEMPTS_HEADER, b"3"), (REASON_HEADER, b"before"), ("trace", b"t")]
    # When it becomes a dead letter again
    _, (dead,) = harness.write_and_process(harness.record(b"still bad", headers=again))
    # Then its attempts are added up, and its old reason is replaced
    dead_letter = parse_headers(dead.headers)
    assert dead_letter.attempts == 4
    assert "before" not in dead_letter.reason
    assert [name for name, _ in dead.headers].count(REASON_HEADER) == 1


SMALL = 600  # bytes, limit of a topic


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_rejected_result_becomes_a_dead_letter(make_harness: MakeHarness, delivery: str) -> None:
    # Given an output topic for small results, and a record with a large result between two others
    harness = make_harness(settings={"delivery": delivery})
    (harness.output,) = create_topics(harness.broker, "out", config={"max.message.bytes": SMALL})
    value = orjson.dumps([FLAT_ROWS[0]] * 100)
    # When a worker processes them
    results, dead = harness.write_and_process(
        harness.record(GOOD), harness.record(value, key=b"k"), harness.record(GOOD)
    )
    # Then the large one is a dead letter, and the others have results
    assert {*offsets(results)} == {0, 2}
    assert [(record.key, record.value) for record in dead] == [(b"k", value)]
    assert "the result has" in parse_headers(dead[0].headers).reason
    assert delivery == "at_least_once" or len(results) == 2


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_rejected_results_do_not_affect_others(make_harness: MakeHarness, delivery: str) -> None:
    # Given more small results than fit into one batch of the topic, and a few that are too large, in two partitions
    harness = make_harness(settings={"delivery": delivery})
    (harness.output,) = create_topics(harness.broker, "out", config={"max.message.bytes": 4000})
    large, large_at = orjson.dumps([FLAT_ROWS[0]] * 400), {30, 31, 160}
    records = [harness.record(large if number in large_at else GOOD, partition=number // 100) for number in range(200)]
    # When a worker processes them at once
    results, dead = harness.write_and_process(*records)
    # Then the large ones are dead letters, and all others have results, in order and, with exactly_once, once
    assert source_positions(dead, DEAD_LETTER_SOURCE_HEADERS) == [
        RecordPosition(harness.input, number // 100, number % 100) for number in sorted(large_at)
    ]
    for partition in range(2):
        found = [position.offset for position in source_positions(results) if position.partition == partition]
        assert [*dict.fromkeys(found)] == [number for number in range(100) if number + 100 * partition not in large_at]
        assert delivery == "at_least_once" or len({*found}) == len(found)


def test_a_rejected_dead_letter_is_stripped_of_its_value(make_harness: MakeHarness) -> None:
    # Given topics for small records, and large valid and invalid records
    harness = make_harness()
    harness.output, harness.dead = create_topics(harness.broker, "out", "dead", config={"max.message.bytes": SMALL})
    bad, good = b"x" * 2000, orjson.dumps([FLAT_ROWS[0]] * 100)
    # When a worker processes them
    results, dead = harness.write_and_process(
        harness.record(GOOD), harness.record(bad, key=b"k"), harness.record(good), harness.record(GOOD)
    )
    # Then they are dead letters with the size instead of the value, and the others have results
    assert offsets(results) == [0, 3]
    dead_letters = [parse_headers(record.headers) for record in dead]
    assert [dead_letter.dropped_bytes for dead_letter in dead_letters] == [len(bad), len(good)]
    assert [dead_letter.source.offset for dead_letter in dead_letters if dead_letter.source] == [1, 2]
    assert [(record.key, record.value) for record in dead] == [(b"k", None), (None, b"")]


def test_a_value_above_the_request_size_is_a_stripped_dead_letter(make_harness: MakeHarness) -> None:
    # Given a value that exceeds the request size of the worker
    harness = make_harness(settings={"max_record_bytes": 1000})
    value = b"x" * (MAX_OVERHEAD_BYTES + 2000)
    # When a worker processes it
    results, dead = harness.write_and_process(harness.record(value, key=b"k"), harness.record(GOOD))
    # Then it is a dead letter with the size of the value
    assert len(results) == 1
    assert (dead[0].value, parse_headers(dead[0].headers).dropped_bytes) == (None, len(value))


class PoisonedBundle:
    """Bundle whose model raises for one value."""

    def __init__(self, plane: DataPlane, poison: float) -> None:
        self.bundle = plane.bundle
        self.directory, self.manifest = plane.bundle.directory, plane.bundle.manifest
        self.poison = poison

    def scores(self, matrix: Any) -> Any:
        if (matrix == self.poison).any():
            raise RuntimeError("the graph cannot do this")
        return self.bundle.scores(matrix)


def test_a_record_for_which_the_model_raises_fails_alone(
    make_harness: MakeHarness, planes: dict[str, DataPlane]
) -> None:
    # Given a model that raises for one of five records
    harness = make_harness(plane=DataPlane(PoisonedBundle(planes["regression"], 123.0)))
    poison = orjson.dumps(FLAT_ROWS[0] | {"area": 123.0})
    # When a worker processes them
    results, dead = harness.write_and_process(*(harness.record(poison if number == 2 else GOOD) for number in range(5)))
    # Then the others have results, and it is a dead letter after two attempts
    assert offsets(results) == [0, 1, 3, 4]
    dead_letter = parse_headers(dead[0].headers)
    assert (dead_letter.attempts, dead_letter.kind) == (2, "RuntimeError")
    assert "the graph cannot do this" in dead_letter.reason


def test_a_new_group_may_start_at_the_end(make_harness: MakeHarness) -> None:
    # Given records older than the group, and the control record of their transaction
    harness = make_harness(settings={"start": "latest"})
    harness.write(harness.record(GOOD), harness.record(GOOD, partition=1))
    # When a worker of the group has started, and more are written
    with harness.running_worker() as worker:
        wait_until(lambda: harness.committed_offsets(worker) == [2, 2])
        harness.write(harness.record(GOOD))
        wait_until(lambda: worker.stats.predicted == 1)
    # Then only those have results
    assert source_positions(harness.read_output().results) == [RecordPosition(harness.input, 0, 2)]
    # And the next worker processes records that were written meanwhile
    harness.write(harness.record(GOOD, partition=1))
    assert source_positions(harness.process(1).results) == [
        RecordPosition(harness.input, 0, 2),
        RecordPosition(harness.input, 1, 2),
    ]


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_group_whose_committed_offset_is_deleted_continues_with_the_first_remaining_record(
    make_harness: MakeHarness, start: str
) -> None:
    # Given a group that has committed one record, and five more of which retention deletes three
    harness = make_harness(partitions=1, settings={"start": start})
    with harness.running_worker() as worker:
        wait_until(lambda: harness.committed_offsets(worker) == [0])
        harness.write(harness.record(GOOD))
        wait_until(lambda: worker.stats.predicted == 1)
    harness.write(*(harness.record(GOOD) for _ in range(5)))
    end = 1 + 1 + 5  # with the control record of the first transaction
    with harness.broker.admin() as admin:
        admin.delete_records({TopicPartition(harness.input, 0): end - 2})
    # When a worker continues
    results, _ = harness.process(2)
    # Then the remaining ones have results, whatever `start` is
    assert offsets(results) == [0, end - 2, end - 1]


def test_each_delivered_row_is_logged_once(make_harness: MakeHarness, tmp_path: Path) -> None:
    # Given a log, valid and invalid records, one with two rows, and one whose result is rejected
    harness = make_harness()
    (harness.output,) = create_topics(harness.broker, "out", config={"max.message.bytes": SMALL})
    log = PredictionLog(LogSettings(url=str(tmp_path)), slot="blue")
    log.start()
    too_large = orjson.dumps([FLAT_ROWS[0]] * 100)
    harness.write(
        harness.record(GOOD), harness.record(b"bad"), harness.record(orjson.dumps(FLAT_ROWS[:2])),
        harness.record(too_large), harness.record(GOOD, headers=binary_event("ce_")),
    )  # fmt: skip
    # When a worker processes them
    results, dead = harness.process(5, log=log)
    log.close(10)
    # Then each predicted row is logged once, under the id of its record or event
    assert (len(results), len(dead)) == (3, 2)
    logged = lines(tmp_path)
    assert [line["request_id"] for line in logged] == [
        "partition:0/offset:0", "partition:0/offset:2", "partition:0/offset:2", "a-1",
    ]  # fmt: skip
    assert {line["protocol"] for line in logged} == {"kafka"}


def test_a_record_may_have_many_rows(make_harness: MakeHarness) -> None:
    # Given records with many rows, one of them with one row too many
    harness = make_harness(settings={"max_record_bytes": 4 * 2**20, "max_rows": 20_000})
    (harness.input,) = create_topics(harness.broker, "in", config={"max.message.bytes": 8 * 2**20})
    rows = [FLAT_ROWS[number % 3] | {"area": number % 499 + 0.25} for number in range(20_001)]
    # When a worker processes them
    results, dead = harness.write_and_process(
        harness.record(orjson.dumps(rows[:-1])), harness.record(orjson.dumps(rows)), harness.record(GOOD)
    )
    # Then the predictions equal those of the data plane
    assert orjson.loads(results[0].value)["predictions"] == harness.plane.predict_rows(rows[:-1]).prediction.tolist()
    assert offsets(results) == [0, 2]
    assert "20001 rows" in parse_headers(dead[0].headers).reason


def test_records_of_aborted_transactions_are_not_processed(make_harness: MakeHarness) -> None:
    # Given records of which some were aborted
    harness = make_harness(partitions=1)
    batches = [[harness.record(GOOD)] * 3, [harness.record(GOOD)] * 3, [harness.record(GOOD)] * 3]
    positions = write_transactions(harness.broker, batches, aborted=[1])
    # When a worker processes them
    results, _ = harness.process(6)
    # Then only the committed ones have results
    assert source_positions(results) == positions


def test_an_idle_worker_detects_an_outage_and_its_end(make_harness: MakeHarness, broker: Any) -> None:
    with make_harness().running_worker(session_seconds=3) as worker:
        wait_until(lambda: worker.is_ready)
        time.sleep(1)  # to read its offsets
        assert not worker.is_broker_down
        broker.suspend()
        try:
            wait_until(lambda: worker.is_broker_down, seconds=15)
        finally:
            broker.resume()
        wait_until(lambda: not worker.is_broker_down)


def test_warnings_about_dead_letters_are_rate_limited(make_harness: MakeHarness) -> None:
    lines: list[str] = []
    number = logger.add(lines.append, format="{message}", level="WARNING")
    harness = make_harness()
    harness.write(*[harness.record(b"no JSON") for _ in range(400)])
    try:
        harness.process(400, max_poll_records=20)
    finally:
        logger.remove(number)
    records = [line for line in lines if "is a dead letter" in line]
    assert 1 <= len(records) <= 3


@pytest.mark.parametrize(
    ("headers", "value", "reason"),
    [
        pytest.param([], b"", "it is empty", id="an empty value"),
        pytest.param(
            [("content-type", b"application/cloudevents+json")],
            orjson.dumps(CORRELATED | {"specversion": "1.0"}),
            "the event has no data",
            id="an event without data",
        ),
        pytest.param(
            [("content-type", b"application/cloudevents-batch+json")],
            b"[]",
            "a batch of events",
            id="a batch of events",
        ),
    ],
)
def test_an_invalid_event_has_a_reason(make_harness: MakeHarness, headers: Headers, value: bytes, reason: str) -> None:
    harness = make_harness()
    (dead_letter,) = harness.write_and_process(harness.record(value, headers=headers)).dead_letters
    assert reason in parse_headers(dead_letter.headers).reason
