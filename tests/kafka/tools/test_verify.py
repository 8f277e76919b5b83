"""Verification of three topics of a real broker, with and without violations."""

import json
from threading import Timer
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition

from model_name.errors import DependencyError, NotFoundError
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.dead_letters import DEAD_LETTER_SOURCE_HEADERS
from model_name.kafka.records import RecordPosition, source_headers
from model_name.kafka.tools.topic_reader import OffsetRange, TopicReader
from model_name.scripts import main
from tests.support.kafka_topics import RecordToWrite, create_topics, result_record, write_transactions

pytestmark = pytest.mark.kafka


class Case:
    """Forty records, and the results and dead letters to write, which tests may change."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.input, self.output, self.dead = create_topics(broker, "in", "out", "dead")
        batches = [
            [RecordToWrite(self.input, number % 2, b"k%d" % (number % 6)) for number in range(start, start + 5)]
            for start in range(0, 50, 5)
        ]
        self.sources = write_transactions(broker, batches, aborted=[1, 4])
        self.outputs = [self.output_of(number, source) for number, source in enumerate(self.sources)]

    def output_of(self, number: int, source: RecordPosition) -> RecordToWrite:
        key = b"k%d" % (number % 6)
        if number % 10 == 9:
            return RecordToWrite(
                self.dead, source.partition, key, b"{}", source_headers(source, DEAD_LETTER_SOURCE_HEADERS)
            )
        return result_record(source, self.output, key=None)

    def write_outputs(self) -> None:
        write_transactions(self.broker, [self.outputs[start : start + 7] for start in range(0, len(self.outputs), 7)])

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


def test_a_complete_output_is_clean(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_outputs()
    code, found = case.verify(capsys)
    assert code == 0
    assert (found["records"], found["results"], found["dead_letters"], found["is_clean"]) == (40, 36, 4, True)
    assert {name for name, value in found.items() if isinstance(value, dict) and value["count"]} == set()


def test_a_lost_a_doubled_and_a_reordered_record_are_found(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a record without a result, one with two results, and two results in the wrong order
    lost, doubled, swapped = (case.sources[number] for number in (12, 20, 24))
    case.outputs[24], case.outputs[26] = case.outputs[26], case.outputs[24]
    case.outputs.insert(21, case.outputs[20])
    del case.outputs[12]
    case.write_outputs()
    # When the topics are verified
    code, found = case.verify(capsys)
    # Then exactly these three are found
    assert code == 4
    assert found["lost"] == {"count": 1, "examples": [str(lost)]}
    assert [example.split(" -> ")[0] for example in found["doubled"]["examples"]] == [str(doubled)]
    assert found["doubled"]["examples"][0].count(f"{case.output}[0]@") == 2
    assert [example.split(" -> ")[0] for example in found["reordered"]["examples"]] == [str(swapped)]
    assert [found[name]["count"] for name in ("unknown", "foreign", "waiting", "expired")] == [0] * 4


def test_the_table_lists_examples_and_the_error_counts_them(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    del case.outputs[3]
    case.write_outputs()
    topics = ["--input", case.input, "--output", case.output, "--dead-letter", case.dead]
    code = main(["kafka", "verify", "--bootstrap-servers", case.broker.bootstrap, *topics])
    out, err = capsys.readouterr()
    assert code == 4
    assert str(case.sources[3]) in out
    assert f"{case.input}: 1 lost" in err


def test_uncommitted_records_are_waiting(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    del case.outputs[30:]
    case.write_outputs()
    offsets = [max(one.offset for one in case.sources[:30] if one.partition == number) + 1 for number in (0, 1)]
    case.commit("s-group-of-" + case.input, dict(enumerate(offsets)))
    code, found = case.verify(capsys, "--group", "s-group-of-" + case.input)
    assert (code, found["waiting"]["count"], found["lost"]["count"]) == (0, 10, 0)
    # without a group they are lost
    assert case.verify(capsys)[1]["lost"]["count"] == 10


def test_verification_waits_for_an_open_transaction(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a last result whose transaction is committed while the output is read
    last = case.outputs.pop()
    case.write_outputs()
    producer = KafkaProducer(bootstrap_servers=case.broker.bootstrap, transactional_id="s-late-" + case.input)
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(last.topic, last.value, last.key, last.headers, last.partition).get(10)
    Timer(1.5, producer.commit_transaction).start()
    # Then no record is lost
    code, found = case.verify(capsys)
    assert (code, found["lost"]["count"], found["waiting"]["count"]) == (0, 0, 0)


def test_an_unknown_group_is_an_error(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.write_outputs()
    code, _ = case.verify(capsys, "--group", "s-misspelt")
    assert code == NotFoundError.exit_code


def test_a_missing_topic_is_an_error(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.output = "s-none"
    assert case.verify(capsys) == (5, {})


def test_the_topics_must_differ(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    case.output = case.input
    assert case.verify(capsys) == (2, {})


def test_records_whose_result_may_be_deleted_are_expired(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    # Given an output whose first half is deleted
    case.write_outputs()
    admin = KafkaAdminClient(bootstrap_servers=case.broker.bootstrap)
    admin.delete_records({TopicPartition(case.output, 0): 12})
    admin.close()
    # Then its records are expired, not lost
    code, found = case.verify(capsys)
    assert (code, found["lost"]["count"]) == (0, 0)
    assert 0 < found["expired"]["count"] < 13


def test_reading_without_progress_ends_with_an_error(case: Case) -> None:
    with TopicReader(KafkaClientFactory(case.broker.bootstrap)) as reader:
        partition = TopicPartition(case.input, 0)
        end = reader.offset_ranges([partition])[partition].end
        with pytest.raises(DependencyError, match=rf"nothing more comes of {case.input}\[0\] at {end} of {end + 1}"):
            list(reader.read({partition: OffsetRange(0, end + 1)}, stall_timeout_seconds=1))
