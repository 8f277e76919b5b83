"""Replay of dead letters on a real broker."""

import json
from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from model_name.errors import DataError, DependencyError, TooLargeError
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.dead_letters import ATTEMPTS_HEADER, to_dead_letter
from model_name.kafka.producers import RoutedRecord
from model_name.kafka.records import OutputRecord
from model_name.kafka.tools import replay as replay_module
from model_name.kafka.tools.replay import ReplayReport, replay_dead_letters
from model_name.kafka.tools.replay_offsets import ReplayCheckpoint
from model_name.kafka.tools.replay_producer import TransactionalReplayProducer
from model_name.scripts import main
from tests.support.kafka_topics import RecordToWrite, create_topics, read_committed, write_transactions

pytestmark = pytest.mark.kafka

UPSTREAM = [("source-topic", b"before"), ("source-partition", b"3"), ("source-offset", b"9"), ("trace", b"t1")]


class Case:
    """An input topic and the dead letters of its records."""

    def __init__(self, broker: Any, count: int = 12) -> None:
        self.broker = broker
        self.input, self.dead, self.other = create_topics(broker, "in", "dead", "other", partitions=3)
        self.group = f"g-{self.input}"
        batch = [
            RecordToWrite(
                self.input, number % 3, b"k%d" % number if number % 4 else None, b'{"n": %d}' % number, UPSTREAM
            )
            for number in range(count)
        ]
        write_transactions(broker, [batch[:5], batch[5:]])
        self.records = sorted(read_committed(broker, self.input), key=lambda record: json.loads(record.value)["n"])
        self.errors = [
            DataError(f"size: row {number} is odd") if number % 2 else TypeError("a defect") for number in range(count)
        ]

    def write_dead_letters(self, *, keeps_value: bool = True) -> None:
        """Write a dead letter for each record, in several transactions."""
        dead_letters = []
        for record, error in zip(self.records, self.errors, strict=True):
            dead_letter = to_dead_letter(record, error, 1, keeps_value=keeps_value)
            dead_letters.append(
                RecordToWrite(self.dead, record.partition, dead_letter.key, dead_letter.value, dead_letter.headers)
            )
        write_transactions(self.broker, [dead_letters[start : start + 2] for start in range(0, len(dead_letters), 2)])

    def replay(self, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
        options = ["--bootstrap-servers", self.broker.bootstrap, "--dead-letter", self.dead, "--group", self.group]
        capsys.readouterr()
        code = main(["kafka", "replay", *options, "--json", *more])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else {}

    def sent_to(self, topic: str) -> list[Any]:
        return [record for record in read_committed(self.broker, topic) if ATTEMPTS_HEADER in dict(record.headers)]


def numbers(records: Sequence[Any]) -> list[int]:
    """Return the numbers in the values of the records, sorted."""
    return sorted(json.loads(record.value)["n"] for record in records)


@pytest.fixture
def case(broker: Any) -> Case:
    return Case(broker)


def test_dead_letters_are_sent_back_unchanged_and_once(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters()
    code, found = case.replay(capsys)
    assert (code, found["sent"], found["topics"], found["is_complete"]) == (0, 12, {case.input: 12}, True)
    back = sorted(case.sent_to(case.input), key=lambda record: json.loads(record.value)["n"])
    for before, after in zip(case.records, back, strict=True):
        assert (after.partition, after.key, after.value) == (before.partition, before.key, before.value)
        assert after.headers == [*UPSTREAM, (ATTEMPTS_HEADER, b"1")]
    # in order
    for partition in range(3):
        found_order = [json.loads(one.value)["n"] for one in read_committed(case.broker, case.input) if one in back]
        assert [n for n in found_order if n % 3 == partition] == [n for n in range(12) if n % 3 == partition]
    # and a second replay sends nothing
    assert case.replay(capsys)[1]["sent"] == 0
    assert len(case.sent_to(case.input)) == 12


def test_later_dead_letters_are_sent_by_a_later_replay(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters()
    case.replay(capsys)
    case.records = case.sent_to(case.input)
    case.write_dead_letters()
    assert case.replay(capsys)[1]["sent"] == 12
    assert sorted(dict(one.headers)[ATTEMPTS_HEADER] for one in case.sent_to(case.input)) == [b"1"] * 12 + [b"2"] * 12


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        pytest.param(["--kind", "DataError"], [1, 3, 5, 7, 9, 11], id="by kind"),
        pytest.param(["--reason", "row 7 "], [7], id="by part of the reason"),
        pytest.param(["--kind", "DataError", "--reason", "a defect"], [], id="by both"),
        pytest.param(["--kind", "Data"], [], id="by part of a kind, which matches nothing"),
    ],
)
def test_filtered_dead_letters_are_sent_by_a_later_replay_and_none_twice(
    case: Case, capsys: pytest.CaptureFixture[str], options: list[str], chosen: list[int]
) -> None:
    case.write_dead_letters()
    _, found = case.replay(capsys, *options)
    assert (found["sent"], found["passed_over"]) == (len(chosen), 12 - len(chosen))
    assert numbers(case.sent_to(case.input)) == chosen
    assert case.replay(capsys, *options)[1] | {"topics": {}} == found | {"sent": 0, "topics": {}}
    assert case.replay(capsys)[1]["sent"] == 12 - len(chosen)
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_a_dry_run_counts_and_sends_nothing(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters()
    assert case.replay(capsys, "--dry-run", "--kind", "DataError")[1]["sent"] == 6
    assert case.sent_to(case.input) == []
    assert case.replay(capsys)[1]["sent"] == 12


def test_dead_letters_can_be_sent_to_another_topic(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters()
    assert case.replay(capsys, "--to", case.other)[1]["topics"] == {case.other: 12}
    back = case.sent_to(case.other)
    assert numbers(back) == [*range(12)]
    assert {one.partition == json.loads(one.value)["n"] % 3 for one in back if one.key is None} == {True}


@pytest.mark.parametrize(
    ("to", "code"),
    [pytest.param("", 2, id="the dead-letter topic"), pytest.param("s-none", 5, id="a topic that does not exist")],
)
def test_a_replay_to_an_invalid_topic_is_rejected(
    case: Case, capsys: pytest.CaptureFixture[str], to: str, code: int
) -> None:
    assert case.replay(capsys, "--to", to or case.dead) == (code, {})


def test_a_dropped_value_is_fetched_from_its_topic(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.errors = [TooLargeError("too large")] * 12
    case.write_dead_letters(keeps_value=False)
    assert case.replay(capsys)[1]["sent"] == 12
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_a_dropped_value_that_is_deleted_is_counted_as_gone(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters(keeps_value=False)
    admin = KafkaAdminClient(bootstrap_servers=case.broker.bootstrap)
    admin.delete_records({TopicPartition(case.input, number): 2 for number in range(3)})
    admin.close()
    _, found = case.replay(capsys)
    gone = sum(record.offset < 2 for record in case.records)
    assert (found["sent"], found["gone"]) == (12 - gone, gone)


def test_a_deleted_topic_does_not_block_other_dead_letters(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters()
    orphan = to_dead_letter(case.records[0]._replace(topic="s-none"), case.errors[0], 1)
    write_transactions(case.broker, [[RecordToWrite(case.dead, 0, orphan.key, orphan.value, orphan.headers)]])
    _, found = case.replay(capsys)
    assert (found["sent"], found["gone"]) == (12, 1)


def test_other_records_are_counted_as_foreign(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_dead_letters()
    write_transactions(case.broker, [[RecordToWrite(case.dead, 0, b"k", b"?")]])
    _, found = case.replay(capsys)
    assert (found["sent"], found["foreign"]) == (12, 1)


# Interrupted replays


def run(case: Case, stop: Event | None = None, report: Any = None) -> ReplayReport:
    """Replay all pending dead letters."""
    return replay_dead_letters(
        KafkaClientFactory(case.broker.bootstrap),
        dead_letter=case.dead,
        group=case.group,
        stop=stop or Event(),
        report=report or (lambda *_: None),
    )


def test_a_stopped_replay_ends_between_transactions_and_the_next_continues(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "BATCH_RECORDS", 3)
    case.write_dead_letters()
    stop = Event()
    first = run(case, stop, lambda *_: stop.set())
    assert (first.sent, first.is_complete) == (3, False)
    assert run(case).sent == 9
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_records_of_a_killed_replay_are_sent_once(case: Case) -> None:
    # Given a replay that was killed within a transaction
    case.write_dead_letters()
    name = f"{case.group}-replay"
    producer = KafkaProducer(bootstrap_servers=case.broker.bootstrap, transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(case.input, b'{"n": 0}', headers=[(ATTEMPTS_HEADER, b"1")]).get(10)
    # When the next one runs
    assert run(case).sent == 12
    # Then each record is committed once
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_a_second_replay_fences_off_the_first(case: Case) -> None:
    record = RoutedRecord(case.other, 0, OutputRecord(b"k", b"{}", []))
    clients, partition = KafkaClientFactory(case.broker.bootstrap), TopicPartition(case.dead, 0)
    with (
        TransactionalReplayProducer(clients, case.group) as first,
        TransactionalReplayProducer(clients, case.group) as second,
    ):
        second.send([record], [0], partition, ReplayCheckpoint(1, ""))
        with pytest.raises(DependencyError, match="another replay"):
            first.send([record], [0], partition, ReplayCheckpoint(1, ""))
    assert len(read_committed(case.broker, case.other)) == 1


def test_a_rejected_record_is_reported_and_its_transaction_aborted(case: Case, broker: Any) -> None:
    (small,) = create_topics(broker, "small", config={"max.message.bytes": 1000})
    clients, partition = KafkaClientFactory(broker.bootstrap), TopicPartition(case.dead, 0)
    records = [RoutedRecord(small, 0, OutputRecord(b"k", value, [])) for value in (b"{}", b"x" * 3000, b"{}")]
    reason = rf"{small}: refuses {case.dead}\[0\]@7, which has 3,001 bytes"
    with TransactionalReplayProducer(clients, case.group) as producer, pytest.raises(DataError, match=reason):
        producer.send(records, [5, 7, 8], partition, ReplayCheckpoint(1, ""))
    assert read_committed(broker, small) == []
