"""Dead letters of a real broker, sent back."""

import json
from collections.abc import Sequence
from threading import Event
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from model_name.errors import DataError, DependencyError, TooLargeError
from model_name.kafka.client import Connection
from model_name.kafka.dead_letters import ATTEMPTS, dead_letter
from model_name.kafka.records import Message
from model_name.kafka.tools import replay as replay_module
from model_name.kafka.tools.replay import Replayed, replay
from model_name.kafka.tools.replay_offsets import Mark
from model_name.kafka.tools.replay_producer import Outbox
from model_name.kafka.worker.delivery import Outgoing
from model_name.scripts import main
from tests.support.kafka_topics import Written, fresh, read_all, write

pytestmark = pytest.mark.kafka

UPSTREAM = [("source-topic", b"before"), ("source-partition", b"3"), ("source-offset", b"9"), ("trace", b"t1")]


class Case:
    """An input, and dead letters of some of its records."""

    def __init__(self, broker: Any, count: int = 12) -> None:
        self.broker = broker
        self.input, self.dead, self.other = fresh(broker, "in", "dead", "other", partitions=3)
        self.group = f"g-{self.input}"
        batch = [
            Written(self.input, number % 3, b"k%d" % number if number % 4 else None, b'{"n": %d}' % number, UPSTREAM)
            for number in range(count)
        ]
        write(broker, [batch[:5], batch[5:]])
        self.records = sorted(read_all(broker, self.input), key=lambda record: json.loads(record.value)["n"])
        self.errors = [
            DataError(f"size: row {number} is odd") if number % 2 else TypeError("a defect") for number in range(count)
        ]

    def bury(self, *, keeps_value: bool = True) -> None:
        """Write the dead letters of all, some in a transaction."""
        letters = []
        for record, error in zip(self.records, self.errors, strict=True):
            message = dead_letter(record, error, 1, keeps_value=keeps_value)
            letters.append(Written(self.dead, record.partition, message.key, message.value, message.headers))
        write(self.broker, [letters[start : start + 2] for start in range(0, len(letters), 2)])

    def replay(self, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
        options = ["--bootstrap-servers", self.broker.bootstrap, "--dead-letter", self.dead, "--group", self.group]
        capsys.readouterr()
        code = main(["kafka", "replay", *options, "--json", *more])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else {}

    def sent_to(self, topic: str) -> list[Any]:
        return [record for record in read_all(self.broker, topic) if ATTEMPTS in dict(record.headers)]


def numbers(records: Sequence[Any]) -> list[int]:
    return sorted(json.loads(record.value)["n"] for record in records)


@pytest.fixture
def case(broker: Any) -> Case:
    return Case(broker)


def test_letters_go_back_as_they_were_and_only_once(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.bury()
    code, found = case.replay(capsys)
    assert (code, found["sent"], found["topics"], found["is_complete"]) == (0, 12, {case.input: 12}, True)
    back = sorted(case.sent_to(case.input), key=lambda record: json.loads(record.value)["n"])
    for before, after in zip(case.records, back, strict=True):
        assert (after.partition, after.key, after.value) == (before.partition, before.key, before.value)
        assert after.headers == [*UPSTREAM, (ATTEMPTS, b"1")]
    # in their order
    for partition in range(3):
        found_order = [json.loads(one.value)["n"] for one in read_all(case.broker, case.input) if one in back]
        assert [n for n in found_order if n % 3 == partition] == [n for n in range(12) if n % 3 == partition]
    # and a second time there is nothing left
    assert case.replay(capsys)[1]["sent"] == 0
    assert len(case.sent_to(case.input)) == 12


def test_letters_that_come_later_are_sent_later(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.bury()
    case.replay(capsys)
    case.records = case.sent_to(case.input)
    case.bury()
    assert case.replay(capsys)[1]["sent"] == 12
    assert sorted(dict(one.headers)[ATTEMPTS] for one in case.sent_to(case.input)) == [b"1"] * 12 + [b"2"] * 12


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        pytest.param(["--kind", "DataError"], [1, 3, 5, 7, 9, 11], id="by kind"),
        pytest.param(["--reason", "row 7 "], [7], id="by a part of the reason"),
        pytest.param(["--kind", "DataError", "--reason", "a defect"], [], id="by both"),
        pytest.param(["--kind", "Data"], [], id="a kind is a whole name"),
    ],
)
def test_what_is_passed_over_is_sent_by_a_later_replay_and_nothing_twice(
    case: Case, capsys: pytest.CaptureFixture[str], options: list[str], chosen: list[int]
) -> None:
    case.bury()
    _, found = case.replay(capsys, *options)
    assert (found["sent"], found["passed_over"]) == (len(chosen), 12 - len(chosen))
    assert numbers(case.sent_to(case.input)) == chosen
    assert case.replay(capsys, *options)[1] | {"topics": {}} == found | {"sent": 0, "topics": {}}
    assert case.replay(capsys)[1]["sent"] == 12 - len(chosen)
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_a_dry_run_counts_and_sends_nothing(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.bury()
    assert case.replay(capsys, "--dry-run", "--kind", "DataError")[1]["sent"] == 6
    assert case.sent_to(case.input) == []
    assert case.replay(capsys)[1]["sent"] == 12


def test_they_may_be_sent_elsewhere(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.bury()
    assert case.replay(capsys, "--to", case.other)[1]["topics"] == {case.other: 12}
    back = case.sent_to(case.other)
    assert numbers(back) == [*range(12)]
    assert {one.partition == json.loads(one.value)["n"] % 3 for one in back if one.key is None} == {True}


@pytest.mark.parametrize(
    ("to", "code"),
    [pytest.param("", 2, id="where they are"), pytest.param("s-none", 5, id="a topic that is not there")],
)
def test_no_letter_is_sent_to(case: Case, capsys: pytest.CaptureFixture[str], to: str, code: int) -> None:
    assert case.replay(capsys, "--to", to or case.dead) == (code, {})


def test_a_value_that_a_letter_could_not_hold_is_fetched(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.errors = [TooLargeError("too large")] * 12
    case.bury(keeps_value=False)
    assert case.replay(capsys)[1]["sent"] == 12
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_a_value_that_is_gone_is_counted_and_not_made_up(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.bury(keeps_value=False)
    admin = KafkaAdminClient(bootstrap_servers=case.broker.bootstrap)
    admin.delete_records({TopicPartition(case.input, number): 2 for number in range(3)})
    admin.close()
    _, found = case.replay(capsys)
    gone = sum(record.offset < 2 for record in case.records)
    assert (found["sent"], found["gone"]) == (12 - gone, gone)


def test_a_topic_that_is_gone_keeps_no_other_letter_from_going_back(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.bury()
    orphan = dead_letter(case.records[0]._replace(topic="s-none"), case.errors[0], 1)
    write(case.broker, [[Written(case.dead, 0, orphan.key, orphan.value, orphan.headers)]])
    _, found = case.replay(capsys)
    assert (found["sent"], found["gone"]) == (12, 1)


def test_what_is_no_dead_letter_is_left_alone(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.bury()
    write(case.broker, [[Written(case.dead, 0, b"k", b"?")]])
    _, found = case.replay(capsys)
    assert (found["sent"], found["foreign"]) == (12, 1)


# Interrupted


def run(case: Case, stop: Event | None = None, report: Any = None) -> Replayed:
    return replay(
        Connection(case.broker.bootstrap),
        dead_letter=case.dead,
        group=case.group,
        stop=stop or Event(),
        report=report or (lambda *_: None),
    )


def test_a_replay_that_is_told_to_stop_ends_between_two_transactions_and_the_next_goes_on(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "BATCH_RECORDS", 3)
    case.bury()
    stop = Event()
    first = run(case, stop, lambda *_: stop.set())
    assert (first.sent, first.is_complete) == (3, False)
    assert run(case).sent == 9
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_what_a_killed_replay_had_not_committed_is_sent_once(case: Case) -> None:
    # Given one that was killed within a transaction
    case.bury()
    name = f"{case.group}-replay"
    producer = KafkaProducer(bootstrap_servers=case.broker.bootstrap, transactional_id=name)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(case.input, b'{"n": 0}', headers=[(ATTEMPTS, b"1")]).get(10)
    # When the next runs
    assert run(case).sent == 12
    # Then who reads what is committed sees each once
    assert numbers(case.sent_to(case.input)) == [*range(12)]


def test_of_two_replays_at_once_the_first_gives_way(case: Case) -> None:
    message = Outgoing(case.other, 0, Message(b"k", b"{}", []))
    connection, partition = Connection(case.broker.bootstrap), TopicPartition(case.dead, 0)
    with Outbox(connection, case.group) as first, Outbox(connection, case.group) as second:
        second.send([message], [0], partition, Mark(1, ""))
        with pytest.raises(DependencyError, match="another replay"):
            first.send([message], [0], partition, Mark(1, ""))
    assert len(read_all(case.broker, case.other)) == 1


def test_a_letter_that_a_topic_refuses_is_told_and_none_of_its_transaction_is_sent(case: Case, broker: Any) -> None:
    (small,) = fresh(broker, "small", config={"max.message.bytes": 1000})
    connection, partition = Connection(broker.bootstrap), TopicPartition(case.dead, 0)
    messages = [Outgoing(small, 0, Message(b"k", value, [])) for value in (b"{}", b"x" * 3000, b"{}")]
    reason = rf"{small}: refuses {case.dead}\[0\]@7, which has 3,001 bytes"
    with Outbox(connection, case.group) as outbox, pytest.raises(DataError, match=reason):
        outbox.send(messages, [5, 7, 8], partition, Mark(1, ""))
    assert read_all(broker, small) == []
