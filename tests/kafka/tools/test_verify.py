"""Three topics of a real broker, with and without what must not be."""

import json
from threading import Timer
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from model_name.errors import DependencyError, NotFoundError
from model_name.kafka.client import Connection
from model_name.kafka.dead_letters import SOURCE as LETTER
from model_name.kafka.records import Source, coordinates
from model_name.kafka.tools.topic_reader import Span, TopicReader
from model_name.scripts import main
from tests.support.kafka_topics import Written, fresh, result, write

pytestmark = pytest.mark.kafka


class Case:
    """A clean input of forty records with its results and dead letters; what to write, by source, may be changed."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.input, self.output, self.dead = fresh(broker, "in", "out", "dead")
        batches = [
            [Written(self.input, number % 2, b"k%d" % (number % 6)) for number in range(start, start + 5)]
            for start in range(0, 50, 5)
        ]
        self.sources = write(broker, batches, aborted=[1, 4])
        self.replies = [self.reply(number, source) for number, source in enumerate(self.sources)]

    def reply(self, number: int, source: Source) -> Written:
        key = b"k%d" % (number % 6)
        if number % 10 == 9:
            return Written(self.dead, source.partition, key, b"{}", coordinates(source, LETTER))
        return result(source, self.output, key=None)

    def answer(self) -> None:
        write(self.broker, [self.replies[start : start + 7] for start in range(0, len(self.replies), 7)])

    def commit(self, group: str, offsets: dict[int, int]) -> None:
        consumer = KafkaConsumer(bootstrap_servers=self.broker.bootstrap, group_id=group, enable_auto_commit=False)
        found = {TopicPartition(self.input, one): OffsetAndMetadata(at, "", -1) for one, at in offsets.items()}
        consumer.commit(found)
        consumer.close()

    def verify(self, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
        topics = ["--input", self.input, "--output", self.output, "--dead-letter", self.dead]
        capsys.readouterr()
        code = main(["kafka", "verify", "--bootstrap-servers", self.broker.bootstrap, *topics, "--json", *more])
        out = capsys.readouterr().out
        return code, json.loads(out) if out else {}


@pytest.fixture
def case(broker: Any) -> Case:
    return Case(broker)


def test_a_clean_topic_is_clean(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.answer()
    code, found = case.verify(capsys)
    assert code == 0
    assert (found["records"], found["results"], found["dead_letters"], found["is_clean"]) == (40, 36, 4, True)
    assert {name for name, of in found.items() if isinstance(of, dict) and of["count"]} == set()


def test_one_lost_one_doubled_and_one_swapped_are_each_found_and_named(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    # Given one record without an answer, one with two, and one whose answer has changed places with the next
    lost, doubled, swapped = (case.sources[number] for number in (12, 20, 24))
    case.replies[24], case.replies[26] = case.replies[26], case.replies[24]
    case.replies.insert(21, case.replies[20])
    del case.replies[12]
    case.answer()
    # When the topics are held against each other
    code, found = case.verify(capsys)
    # Then each of the three is found, and nothing else
    assert code == 4
    assert found["lost"] == {"count": 1, "examples": [str(lost)]}
    assert [example.split(" -> ")[0] for example in found["doubled"]["examples"]] == [str(doubled)]
    assert found["doubled"]["examples"][0].count(f"{case.output}[0]@") == 2
    assert [example.split(" -> ")[0] for example in found["reordered"]["examples"]] == [str(swapped)]
    assert [found[name]["count"] for name in ("unknown", "foreign", "waiting", "expired")] == [0] * 4


def test_a_table_names_them_too_and_the_error_counts_them(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    del case.replies[3]
    case.answer()
    topics = ["--input", case.input, "--output", case.output, "--dead-letter", case.dead]
    code = main(["kafka", "verify", "--bootstrap-servers", case.broker.bootstrap, *topics])
    out, err = capsys.readouterr()
    assert code == 4
    assert str(case.sources[3]) in out
    assert f"{case.input}: 1 lost" in err


def test_what_the_group_has_not_committed_waits(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    del case.replies[30:]
    case.answer()
    offsets = [max(one.offset for one in case.sources[:30] if one.partition == number) + 1 for number in (0, 1)]
    case.commit("s-group-of-" + case.input, dict(enumerate(offsets)))
    code, found = case.verify(capsys, "--group", "s-group-of-" + case.input)
    assert (code, found["waiting"]["count"], found["lost"]["count"]) == (0, 10, 0)
    # while without a group they are missing
    assert case.verify(capsys)[1]["lost"]["count"] == 10


def test_a_transaction_that_is_open_is_waited_for(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a last result whose transaction is committed only while the output is read
    last = case.replies.pop()
    case.answer()
    producer = KafkaProducer(bootstrap_servers=case.broker.bootstrap, transactional_id="s-late-" + case.input)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(last.topic, last.value, last.key, last.headers, last.partition).get(10)
    Timer(1.5, producer.commit_transaction).start()
    # Then nothing is called lost
    code, found = case.verify(capsys)
    assert (code, found["lost"]["count"], found["waiting"]["count"]) == (0, 0, 0)


def test_a_group_that_nobody_knows_is_told_apart_from_one_that_waits(
    case: Case, capsys: pytest.CaptureFixture[str]
) -> None:
    case.answer()
    code, _ = case.verify(capsys, "--group", "s-misspelt")
    assert code == NotFoundError.exit_code


def test_a_topic_that_is_not_there_is_named(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.output = "s-none"
    assert case.verify(capsys) == (5, {})


def test_a_topic_does_not_answer_itself(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.output = case.input
    assert case.verify(capsys) == (2, {})


def test_what_may_have_been_cleaned_away_is_not_called_lost(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    # Given an output of which the first half is gone
    case.answer()
    admin = KafkaAdminClient(bootstrap_servers=case.broker.bootstrap)
    admin.delete_records({TopicPartition(case.output, 0): 12})
    admin.close()
    # Then what it may have answered is only said to be old
    code, found = case.verify(capsys)
    assert (code, found["lost"]["count"]) == (0, 0)
    assert 0 < found["expired"]["count"] < 13


def test_records_that_never_come_are_not_waited_for_for_ever(case: Case) -> None:
    with TopicReader(Connection(case.broker.bootstrap)) as reader:
        partition = TopicPartition(case.input, 0)
        end = reader.spans([partition])[partition].end
        with pytest.raises(DependencyError, match=rf"nothing more comes of {case.input}\[0\] at {end} of {end + 1}"):
            list(reader.read({partition: Span(0, end + 1)}, patience=1))
