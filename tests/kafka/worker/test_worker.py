"""Records in, results and dead letters out, through a real broker."""

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

from model_name.kafka.dead_letters import ATTEMPTS, REASON, SOURCE
from model_name.kafka.dead_letters import read as read_letter
from model_name.kafka.records import RESULT, Headers, Source
from model_name.kafka.worker.delivery import ROOM_BYTES
from model_name.serving.dataplane import DataPlane
from model_name.serving.prediction_log.log import LogSettings, PredictionLog
from model_name.serving.protocols.v1 import predictions
from tests.support.flat_tables import ROWS, TASKS, make_bundle
from tests.support.kafka_topics import fresh, write
from tests.support.kafka_workers import Bench, sources, wait_until

pytestmark = pytest.mark.kafka

MakeBench = Callable[..., Bench]
GOOD = orjson.dumps(ROWS[0])
LISTS = [[*row.values()] for row in ROWS]
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
def make_bench(broker: Any, planes: dict[str, DataPlane]) -> MakeBench:
    """`make_bench(**changes)`: topics of the test's own."""

    def make(**changes: Any) -> Bench:
        return Bench(broker, **{"plane": planes["regression"]} | changes)

    return make


def offsets(results: Sequence[Any]) -> list[int]:
    """Of the records that these are the results of."""
    return [place.offset for place in sources(results)]


def attributes(headers: Sequence[tuple[str, bytes]], prefix: str = "ce_") -> dict[str, str]:
    """The attributes of an event in binary mode."""
    return {name[3:]: value.decode() for name, value in headers if name.startswith(prefix)}


def binary(prefix: str, **more: str) -> Headers:
    """An event in binary mode."""
    return [(prefix + name, value.encode()) for name, value in (CORRELATED | more).items()]


STRUCTURED: Headers = [("content-type", b"application/cloudevents+json; charset=utf-8")]
V1 = {"instances": ROWS}
KINDS: dict[str, tuple[bytes, Headers, list[Any]]] = {
    "a row": (GOOD, [], ROWS[:1]),
    "rows": (orjson.dumps(ROWS), [], ROWS),
    "a body of V1": (orjson.dumps(V1), [], ROWS),
    "a body of V1 with arrays": (orjson.dumps({"instances": LISTS}), [], ROWS),
    "JSON within JSON": (orjson.dumps(GOOD.decode()), [], ROWS[:1]),
    "a content type": (GOOD, [("Content-Type", b"application/json; charset=utf-8")], ROWS[:1]),
    "a binary event": (GOOD, binary("ce_"), ROWS[:1]),
    "a binary event of a bridge": (orjson.dumps(V1), binary("ce-"), ROWS),
    "a structured event": (orjson.dumps(CORRELATED | {"data": V1}), STRUCTURED, ROWS),
    "a structured event with a row": (orjson.dumps(CORRELATED | {"data": ROWS[1]}), STRUCTURED, ROWS[1:2]),
    "a structured event in Base64": (
        orjson.dumps(CORRELATED | {"data_base64": b64encode(GOOD).decode()}), STRUCTURED, ROWS[:1],
    ),
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_a_result_is_what_the_data_plane_answers(
    make_bench: MakeBench, planes: dict[str, DataPlane], task: str
) -> None:
    # Given a record of each kind
    bench = make_bench(plane=planes[task])
    records = [bench.record(value, headers=headers) for value, headers, _ in KINDS.values()]
    # When a worker answers them
    results, dead = bench.answer(*records)
    # Then each result says what the data plane does of the same rows
    assert not dead
    found = [orjson.loads(result.value) for result in results]
    answers = [answer.get("data", answer) for answer in found]
    expected = [json.loads(orjson.dumps(predictions(planes[task].predict_rows(rows)))) for _, _, rows in KINDS.values()]
    assert dict(zip(KINDS, answers, strict=True)) == dict(zip(KINDS, expected, strict=True))


def test_intervals_are_answered_where_they_are_asked_for(make_bench: MakeBench) -> None:
    # Given records of which one asks for intervals, beside another
    bench = make_bench()
    asking = orjson.dumps(V1 | {"parameters": {"interval": 0.9}})
    # When a worker answers them
    results, _ = bench.answer(bench.record(asking), bench.record(GOOD))
    # Then it has them, and the other has not
    first, second = (orjson.loads(result.value)["predictions"] for result in results)
    assert all(one["lower"] < one["prediction"] < one["upper"] for one in first)
    assert second == bench.plane.predict_rows(ROWS[:1]).prediction.tolist()


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_result_keeps_key_headers_partition_and_order(make_bench: MakeBench, delivery: str) -> None:
    # Given records with and without keys, in each of three partitions
    bench = make_bench(partitions=3, settings={"delivery": delivery, "max_poll_records": 7})
    kept: Headers = [("trace", b"t-1"), ("trace", b"t-2"), ("raw", NOT_UTF8), ("empty", b"")]
    told = [
        bench.record(GOOD if number % 4 else b"bad", partition=number % 3, key=[None, b"k", b""][number % 5 % 3],
                     headers=kept)
        for number in range(60)
    ]  # fmt: skip
    places = bench.write(*told)
    # When a worker answers them
    results, dead = bench.work(60)
    # Then each partition has the answers to its records, in their order and with their keys and headers
    assert (len(results), len(dead)) == (45, 15)
    by_place = dict(zip(places, told, strict=True))
    for answers, names in ((results, RESULT), (dead, SOURCE)):
        for partition in range(3):
            there = [record for record in answers if record.partition == partition]
            found = [*zip(there, sources(there, names), strict=True)]
            assert [place.offset for _, place in found] == sorted(place.offset for _, place in found)
            for record, place in found:
                assert (place.topic, place.partition) == (bench.input, partition)
                assert (record.key, record.headers[:4]) == (by_place[place].key, kept)


def test_between_other_numbers_of_partitions_the_order_of_a_key_is_kept(make_bench: MakeBench) -> None:
    # Given two partitions in and three out
    bench = make_bench()
    (bench.output,) = fresh(bench.broker, "out", partitions=3)
    keys = [b"a", b"b", b"c", b"d", None]
    told = [
        bench.record(GOOD, partition=len(keys) % (number % 5 + 1) % 2, key=keys[number % 5]) for number in range(50)
    ]
    places = bench.write(*told)
    # When a worker answers
    results, _ = bench.work(50)
    # Then the results of a key lie in one partition and in order; those without a key follow their partition
    key_of = dict(zip(places, (record.key for record in told), strict=True))
    for key in keys:
        found = [record for record in results if key_of[sources([record])[0]] == key]
        assert len({record.partition for record in found}) == 1
        assert [place.offset for place in sources(found)] == sorted(place.offset for place in sources(found))
        if key is None:
            assert found[0].partition == sources(found)[0].partition % 3


def test_a_plain_record_gets_an_event(make_bench: MakeBench) -> None:
    # Given a record that is no event
    bench = make_bench()
    # When a worker answers it
    (result,), _ = bench.answer(bench.record(GOOD, partition=1))
    # Then its result is one, of the same id whenever it is answered
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
        pytest.param("a binary event of a bridge", "ce-", id="binary, as a bridge leaves it"),
        pytest.param("a structured event", "", id="structured"),
    ],
)
def test_the_answer_to_an_event_is_correlated(make_bench: MakeBench, kind: str, prefix: str) -> None:
    # Given an event
    bench = make_bench()
    value, headers, _ = KINDS[kind]
    # When a worker answers it
    (result,), _ = bench.answer(bench.record(value, headers=headers, key=b"k"))
    # Then the answer is one in the same mode, with its id, its extensions, and its source as the requestsource
    found = attributes(result.headers, prefix) if prefix else orjson.loads(result.value)
    expected = {"id": "a-1", "requestsource": "/flats", "subject": "düne", "rank": "7", "modelversion": "7"}
    assert {name: found.get(name) for name in expected} == expected
    assert found["source"] == "io.kserve.inference.regression"
    assert found["type"] == "io.kserve.inference.response"
    assert sources([result]) == [Source(bench.input, 0, 0)]


LONG = orjson.dumps([ROWS[0]] * 40)
BAD: dict[str, tuple[bytes | None, Headers, str]] = {
    "no JSON": (b"{area: 1}", [], "JSON"),
    "no UTF-8": (NOT_UTF8, [], "JSON"),
    "an empty value": (b"", [], "JSON"),
    "a number": (b"7", [], "neither an object"),
    "no rows": (b"[]", [], "no row"),
    "not of the schema": (orjson.dumps(ROWS[0] | {"area": 900.0}), [], "area: 900"),
    "a column too few": (orjson.dumps({"area": 1.0}), [], "column is missing"),
    "a column twice": (GOOD[:-1] + b',"area":1.0}', [], "area: comes twice"),
    "too long a value": (LONG, [], f"{len(LONG)} bytes"),
    "a tombstone": (None, [], "tombstone"),
    "another content type": (GOOD, [("content-type", b"text/csv")], "text/csv is not JSON"),
    "a header that is no UTF-8": (GOOD, [("ce_id", NOT_UTF8)], "ce_id: is not UTF-8"),
    "an event without an id": (
        orjson.dumps({name: value for name, value in CORRELATED.items() if name != "id"} | {"data": V1}),
        STRUCTURED,
        "id: the event has no such attribute",
    ),
    "an event without data": (orjson.dumps(CORRELATED), STRUCTURED, "has no data"),
    "an event of data and Base64": (
        orjson.dumps(CORRELATED | {"data": V1, "data_base64": "e30="}), STRUCTURED, "has data beside it",
    ),
    "an array for an event": (b"[]", STRUCTURED, "not an object"),
    "a binary event without a source": (GOOD, [("ce_id", b"1"), ("ce_specversion", b"1.0")], "source: the event"),
    "a name that is none": (GOOD, binary("ce_", **{"Not A Name": "x"}), "is not a name of an attribute"),
}  # fmt: skip


def test_each_bad_record_becomes_a_dead_letter_and_its_neighbours_get_results(make_bench: MakeBench) -> None:
    # Given bad records of all kinds, each between good ones
    bench = make_bench(settings={"max_record_bytes": 3000})
    told = []
    for value, headers, _ in BAD.values():
        told += [bench.record(GOOD), bench.record(value, key=b"k", headers=[("trace", b"t"), *headers])]
    # When a worker answers them
    results, dead = bench.answer(*told)
    # Then the good ones have results
    assert offsets(results) == [*range(0, 2 * len(BAD), 2)]
    # And the bad ones lie in the dead letter topic as they were, with where and why and how often
    for number, ((name, (value, headers, reason)), found) in enumerate(zip(BAD.items(), dead, strict=True)):
        letter = read_letter(found.headers)
        assert reason in letter.reason, name
        assert letter.source == Source(bench.input, 0, 2 * number + 1), name
        assert (letter.attempts, letter.dropped) == (1, None), name
        assert (found.key, found.value) == (b"k", value), name
        assert found.headers[: len(headers) + 1] == [("trace", b"t"), *headers], name


def test_the_attempts_of_a_record_that_was_sent_back_are_added_up(make_bench: MakeBench) -> None:
    # Given a record that was a dead letter before
    bench = make_bench()
    again: Headers = [(ATTEMPTS, b"3"), (REASON, b"before"), ("trace", b"t")]
    # When it is one again
    _, (dead,) = bench.answer(bench.record(b"still bad", headers=again))
    # Then its attempts are added up, and the words of before are gone
    letter = read_letter(dead.headers)
    assert letter.attempts == 4
    assert "before" not in letter.reason
    assert [name for name, _ in dead.headers].count(REASON) == 1


SMALL = 600  # bytes that a topic takes


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_result_that_the_broker_refuses_becomes_a_dead_letter(make_bench: MakeBench, delivery: str) -> None:
    # Given an output that takes small results only, and a record with a large one between two others
    bench = make_bench(settings={"delivery": delivery})
    (bench.output,) = fresh(bench.broker, "out", config={"max.message.bytes": SMALL})
    value = orjson.dumps([ROWS[0]] * 100)
    # When a worker answers
    results, dead = bench.answer(bench.record(GOOD), bench.record(value, key=b"k"), bench.record(GOOD))
    # Then it is a dead letter, and the others have results
    assert {*offsets(results)} == {0, 2}
    assert [(record.key, record.value) for record in dead] == [(b"k", value)]
    assert "the result has" in read_letter(dead[0].headers).reason
    assert delivery == "at_least_once" or len(results) == 2


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_what_the_broker_refuses_costs_no_neighbour_its_result(make_bench: MakeBench, delivery: str) -> None:
    # Given more small results than the output takes at once, with a few that it never takes, in two partitions
    bench = make_bench(settings={"delivery": delivery})
    (bench.output,) = fresh(bench.broker, "out", config={"max.message.bytes": 4000})
    large, those = orjson.dumps([ROWS[0]] * 400), {30, 31, 160}
    told = [bench.record(large if number in those else GOOD, partition=number // 100) for number in range(200)]
    # When a worker answers them at once
    results, dead = bench.answer(*told)
    # Then those few are dead letters, and all others have results, in their order and, if asked for, once
    assert sources(dead, SOURCE) == [Source(bench.input, number // 100, number % 100) for number in sorted(those)]
    for partition in range(2):
        found = [place.offset for place in sources(results) if place.partition == partition]
        assert [*dict.fromkeys(found)] == [number for number in range(100) if number + 100 * partition not in those]
        assert delivery == "at_least_once" or len({*found}) == len(found)


def test_a_dead_letter_that_the_broker_refuses_goes_without_its_value(make_bench: MakeBench) -> None:
    # Given topics that take small records only, and bad and good records that are large
    bench = make_bench()
    bench.output, bench.dead = fresh(bench.broker, "out", "dead", config={"max.message.bytes": SMALL})
    bad, good = b"x" * 2000, orjson.dumps([ROWS[0]] * 100)
    # When a worker answers them
    results, dead = bench.answer(
        bench.record(GOOD), bench.record(bad, key=b"k"), bench.record(good), bench.record(GOOD)
    )
    # Then they are dead letters without a value that say how long it was, and the others have results
    assert offsets(results) == [0, 3]
    letters = [read_letter(record.headers) for record in dead]
    assert [letter.dropped for letter in letters] == [len(bad), len(good)]
    assert [letter.source.offset for letter in letters if letter.source] == [1, 2]
    assert [(record.key, record.value) for record in dead] == [(b"k", None), (None, b"")]


def test_a_value_longer_than_a_request_to_the_broker_is_a_bare_dead_letter(make_bench: MakeBench) -> None:
    # Given a value that no producer of this worker may send
    bench = make_bench(settings={"max_record_bytes": 1000})
    value = b"x" * (ROOM_BYTES + 2000)
    # When a worker answers it
    results, dead = bench.answer(bench.record(value, key=b"k"), bench.record(GOOD))
    # Then it is a dead letter that says how long it was
    assert len(results) == 1
    assert (dead[0].value, read_letter(dead[0].headers).dropped) == (None, len(value))


class Poisoned:
    """A bundle whose graph cannot stand one row."""

    def __init__(self, plane: DataPlane, poison: float) -> None:
        self.bundle = plane.bundle
        self.directory, self.manifest = plane.bundle.directory, plane.bundle.manifest
        self.poison = poison

    def scores(self, matrix: Any) -> Any:
        if (matrix == self.poison).any():
            raise RuntimeError("the graph cannot do this")
        return self.bundle.scores(matrix)


def test_a_row_that_the_model_raises_for_costs_only_its_record(
    make_bench: MakeBench, planes: dict[str, DataPlane]
) -> None:
    # Given a model that raises for one of five records
    bench = make_bench(plane=DataPlane(Poisoned(planes["regression"], 123.0)))
    poison = orjson.dumps(ROWS[0] | {"area": 123.0})
    # When a worker answers them
    results, dead = bench.answer(*(bench.record(poison if number == 2 else GOOD) for number in range(5)))
    # Then the others have results, and it is a dead letter of two attempts
    assert offsets(results) == [0, 1, 3, 4]
    letter = read_letter(dead[0].headers)
    assert (letter.attempts, letter.kind) == (2, "RuntimeError")
    assert "the graph cannot do this" in letter.reason


def test_a_group_without_offsets_may_start_at_the_end(make_bench: MakeBench) -> None:
    # Given records that were there before the group, with the mark of their transaction
    bench = make_bench(settings={"start": "latest"})
    bench.write(bench.record(GOOD), bench.record(GOOD, partition=1))
    # When a worker of the group has begun, and more come
    with bench.working() as worker:
        wait_until(lambda: bench.committed(worker) == [2, 2])
        bench.write(bench.record(GOOD))
        wait_until(lambda: worker.totals.predicted == 1)
    # Then those alone have results
    assert sources(bench.replies().results) == [Source(bench.input, 0, 2)]
    # And what comes while no worker is there is not left out by the next one
    bench.write(bench.record(GOOD, partition=1))
    assert sources(bench.work(1).results) == [Source(bench.input, 0, 2), Source(bench.input, 1, 2)]


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_where_the_committed_records_are_deleted_it_goes_on_with_what_is_left(
    make_bench: MakeBench, start: str
) -> None:
    # Given a group that has read a record, and five more of which the retention takes three
    bench = make_bench(partitions=1, settings={"start": start})
    with bench.working() as worker:
        wait_until(lambda: bench.committed(worker) == [0])
        bench.write(bench.record(GOOD))
        wait_until(lambda: worker.totals.predicted == 1)
    bench.write(*(bench.record(GOOD) for _ in range(5)))
    end = 1 + 1 + 5  # with the mark of the first transaction
    with bench.broker.admin() as admin:
        admin.delete_records({TopicPartition(bench.input, 0): end - 2})
    # When a worker goes on
    results, _ = bench.work(2)
    # Then what is left has results, whatever the group begins with
    assert offsets(results) == [0, end - 2, end - 1]


def test_each_delivered_record_is_in_the_prediction_log_once(make_bench: MakeBench, tmp_path: Path) -> None:
    # Given a log, good records, bad ones, one of two rows, and one whose result is refused
    bench = make_bench()
    (bench.output,) = fresh(bench.broker, "out", config={"max.message.bytes": SMALL})
    log = PredictionLog(LogSettings(url=str(tmp_path)), slot="blue")
    log.start()
    refused = orjson.dumps([ROWS[0]] * 100)
    bench.write(
        bench.record(GOOD), bench.record(b"bad"), bench.record(orjson.dumps(ROWS[:2])), bench.record(refused),
        bench.record(GOOD, headers=binary("ce_")),
    )  # fmt: skip
    # When a worker answers them
    results, dead = bench.work(5, log=log)
    log.close(10)
    # Then each row that was answered is in the log once, under the name of its record or event
    assert (len(results), len(dead)) == (3, 2)
    lines = [json.loads(line) for file in tmp_path.rglob("*.jsonl") for line in file.read_text().splitlines()]
    assert [line["request_id"] for line in lines] == [
        "partition:0/offset:0", "partition:0/offset:2", "partition:0/offset:2", "a-1",
    ]  # fmt: skip
    assert {line["protocol"] for line in lines} == {"kafka"}


def test_a_record_may_be_a_large_batch_of_rows(make_bench: MakeBench) -> None:
    # Given records of many rows, one of them of one row too many
    bench = make_bench(settings={"max_record_bytes": 4 * 2**20, "max_rows": 20_000})
    (bench.input,) = fresh(bench.broker, "in", config={"max.message.bytes": 8 * 2**20})
    rows = [ROWS[number % 3] | {"area": number % 499 + 0.25} for number in range(20_001)]
    # When a worker answers them
    results, dead = bench.answer(
        bench.record(orjson.dumps(rows[:-1])), bench.record(orjson.dumps(rows)), bench.record(GOOD)
    )
    # Then it has as many predictions as rows, which are what the data plane says
    assert orjson.loads(results[0].value)["predictions"] == bench.plane.predict_rows(rows[:-1]).prediction.tolist()
    assert offsets(results) == [0, 2]
    assert "20001 rows" in read_letter(dead[0].headers).reason


def test_records_of_aborted_transactions_are_not_answered(make_bench: MakeBench) -> None:
    # Given records of which some were never committed
    bench = make_bench(partitions=1)
    batches = [[bench.record(GOOD)] * 3, [bench.record(GOOD)] * 3, [bench.record(GOOD)] * 3]
    places = write(bench.broker, batches, aborted=[1])
    # When a worker answers
    results, _ = bench.work(6)
    # Then only those that were have results
    assert sources(results) == places


def test_an_idle_worker_notices_that_its_broker_is_away_and_back(make_bench: MakeBench, broker: Any) -> None:
    with make_bench().working(session_seconds=3) as worker:
        wait_until(lambda: worker.is_ready)
        time.sleep(1)  # in which it reads its offsets
        assert not worker.is_cut_off
        broker.suspend()
        try:
            wait_until(lambda: worker.is_cut_off, seconds=15)
        finally:
            broker.resume()
        wait_until(lambda: not worker.is_cut_off)


def test_many_dead_letters_are_a_few_lines_of_the_log(make_bench: MakeBench) -> None:
    lines: list[str] = []
    number = logger.add(lines.append, format="{message}", level="WARNING")
    bench = make_bench()
    bench.write(*[bench.record(b"no JSON") for _ in range(400)])
    try:
        bench.work(400, max_poll_records=20)
    finally:
        logger.remove(number)
    told = [line for line in lines if "is a dead letter" in line]
    assert 1 <= len(told) <= 3


@pytest.mark.parametrize(
    ("headers", "value", "reason"),
    [
        pytest.param([], b"", "it is empty", id="no byte"),
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
def test_an_event_that_is_none_says_why(make_bench: MakeBench, headers: Headers, value: bytes, reason: str) -> None:
    bench = make_bench()
    (letter,) = bench.answer(bench.record(value, headers=headers)).dead_letters
    assert reason in read_letter(letter.headers).reason
