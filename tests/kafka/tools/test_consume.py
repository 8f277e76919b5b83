"""Records as JSON lines and as tables."""

import json
import os
import signal
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_name.errors import ConfigError, DataError
from model_name.kafka.tools.consume import record_to_json_line, to_rows, to_table, write_records
from model_name.scripts import main
from tests.support.kafka_cluster import send_values
from tests.support.kafka_records import FakeRecord
from tests.support.kafka_topics import RecordToWrite, create_topics, write_transactions

RESULT = [
    ("source-topic", b"in"),
    ("source-partition", b"2"),
    ("source-offset", b"7"),
    ("model-semver", b"1.2.3"),
    ("ce_id", b"e-1"),
]


def no_report(*_: Any) -> None:
    """Ignore the progress."""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        pytest.param(b'{"a": [1, null]}', {"value": {"a": [1, None]}}, id="JSON"),
        pytest.param(b"hello", {"value": "hello"}, id="text"),
        pytest.param(b"{broken", {"value": "{broken"}, id="broken JSON"),
        pytest.param(b"", {"value": ""}, id="an empty text"),
        pytest.param(b"\xff\x00", {"value_base64": "/wA="}, id="bytes"),
        pytest.param(None, {"value": None}, id="a tombstone"),
        pytest.param(b"[" * 600 + b"]" * 600, {"value": "[" * 600 + "]" * 600}, id="nested too deep to be encoded"),
        pytest.param(b'{"a":\n 1}', {"value": {"a": 1}}, id="multi-line JSON"),
    ],
)
def test_a_record_is_encoded_as_one_line(value: bytes | None, found: dict[str, Any]) -> None:
    line = record_to_json_line(FakeRecord(value, key=b"k"))
    position = {"partition": 1, "offset": 5, "timestamp": "2023-11-14T22:13:20.123+00:00", "key": "k"}
    assert json.loads(line) == position | found
    assert "\n" not in line


def test_headers_are_optional() -> None:
    record = FakeRecord(headers=[("a", b"1"), ("b", b"\xff"), ("c", None), ("a", b"2")])
    assert json.loads(record_to_json_line(record, with_headers=True))["headers"] == {
        "a": ["1", "2"],
        "b_base64": "/w==",
        "c": None,
    }
    assert "headers" not in json.loads(record_to_json_line(record))


def parse_bytes(found: dict[str, Any], name: str) -> bytes | None:
    """Parse the bytes of a field of a JSON line."""
    if f"{name}_base64" in found:
        return b64decode(found[f"{name}_base64"])
    return found[name].encode() if isinstance(found[name], str) else None


@given(
    value=st.none() | st.binary() | st.text().map(str.encode),
    key=st.none() | st.binary(),
    headers=st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.none() | st.binary())),
    timestamp=st.integers(-(2**63), 2**63 - 1),
)
def test_any_record_is_one_line_without_loss(
    value: bytes | None, key: bytes | None, headers: Any, timestamp: int
) -> None:
    found = json.loads(record_to_json_line(FakeRecord(value, headers, key, timestamp=timestamp), with_headers=True))
    assert parse_bytes(found, "key") == key
    assert parse_bytes(found, "value") == value or json.loads(value or b"") == found["value"]
    list(to_rows(FakeRecord(value, headers, key)))


# Tables

SHARED = {"source_topic": "in", "source_partition": 2, "source_offset": 7, "key": "k", "semver": "1.2.3"}


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        pytest.param({"predictions": [1.5]}, [{"prediction": 1.5}], id="a number"),
        pytest.param({"predictions": [1.5, 2.5]}, [{"prediction": 1.5}, {"prediction": 2.5}], id="two rows"),
        pytest.param(
            {"predictions": [{"prediction": 1.0, "lower": 0.0, "upper": 2.0}]},
            [{"prediction": 1.0, "lower": 0.0, "upper": 2.0}],
            id="an interval",
        ),
        pytest.param(
            {"predictions": ["a"], "probabilities": [{"a": 0.75, "b": 0.25}]},
            [{"prediction": "a", "probability_a": 0.75, "probability_b": 0.25}],
            id="a label and its probabilities",
        ),
        pytest.param(
            {"specversion": "1.0", "id": "1", "data": {"predictions": [True]}}, [{"prediction": True}], id="an event"
        ),
        pytest.param({"predictions": 5}, [], id="no list"),
        pytest.param({"a": 5}, [], id="a row"),
        pytest.param([1], [], id="a list"),
    ],
)
def test_a_result_has_one_row_per_prediction(body: Any, rows: list[dict[str, Any]]) -> None:
    found = [*to_rows(FakeRecord(json.dumps(body).encode(), RESULT, b"k"))]
    assert found == [SHARED | {"row": number} | row for number, row in enumerate(rows)]


def test_other_records_are_counted_and_have_no_row() -> None:
    table, others = to_table(
        [FakeRecord(b'{"predictions": [1]}', RESULT), FakeRecord(b"?"), FakeRecord(b'{"predictions": [2.5]}')]
    )
    assert (table["prediction"].to_pylist(), others) == ([1.0, 2.5], 1)
    assert table["source_offset"].to_pylist() == [7, None]


def test_predictions_of_different_models_are_rejected() -> None:
    with pytest.raises(DataError, match="make no table"):
        to_table([FakeRecord(b'{"predictions": [1]}'), FakeRecord(b'{"predictions": ["a"]}')])


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_written_table_can_be_read(tmp_path: Path, ending: str) -> None:
    path = str(tmp_path / f"all{ending}")
    records = [FakeRecord(b'{"predictions": [%d.5]}' % number, RESULT, b"k") for number in range(5)]
    written = write_records([*records, FakeRecord()], path, with_headers=False, report=no_report)
    assert (written.records, written.rows, written.others) == (6, 5, 1)
    frame = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
    assert frame["prediction"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert frame["semver"].tolist() == ["1.2.3"] * 5


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_no_records_make_an_empty_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"all{ending}"
    assert write_records([], str(path), with_headers=False, report=no_report).rows == 0
    assert path.exists()


def test_written_lines_equal_printed_lines(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    records = [FakeRecord(b'{"a":1}', RESULT), FakeRecord(None)]
    write_records(records, str(path), with_headers=True, report=no_report)
    assert path.read_text().splitlines() == [record_to_json_line(record, with_headers=True) for record in records]


def test_an_unknown_extension_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ends with neither"):
        write_records([], str(tmp_path / "all.txt"), with_headers=False, report=no_report)


# With a broker


@pytest.fixture(scope="module")
def topic(broker: Any) -> str:
    """Topic with nine committed and three aborted records."""
    (name,) = create_topics(broker, "out")
    batch = [RecordToWrite(name, number % 2, b"k", b'{"predictions":[%d]}' % number, RESULT) for number in range(9)]
    write_transactions(broker, [batch[:4], batch[:3], batch[4:]], aborted=[1])
    return name


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("options", "count"),
    [
        pytest.param([], 9, id="all"),
        pytest.param(["--max", "4"], 4, id="some"),
        pytest.param(["--from", "latest"], 0, id="from the end"),
    ],
)
def test_committed_records_are_printed(
    broker: Any, topic: str, capsys: pytest.CaptureFixture[str], options: list[str], count: int
) -> None:
    assert main(["kafka", "consume", topic, "--bootstrap-servers", broker.bootstrap, *options]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == count
    for partition in (0, 1):
        values = [line["value"]["predictions"][0] for line in lines if line["partition"] == partition]
        assert values == sorted(values)
        assert values == [*range(partition, 9, 2)][: len(values)]


@pytest.mark.kafka
def test_committed_records_are_written_to_a_table(
    broker: Any, topic: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "all.parquet")
    assert main(["kafka", "consume", topic, "--bootstrap-servers", broker.bootstrap, "--out", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"records": 9, "rows": 9, "others": 0, "file": path}
    assert sorted(pd.read_parquet(path)["prediction"]) == [*range(9)]


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("topic_", "options", "code"),
    [
        pytest.param("s-none", [], 5, id="a missing topic"),
        pytest.param("", ["--out", "all.txt"], 2, id="an unknown extension"),
        pytest.param("", ["--from", "middle"], 2, id="an unknown position"),
    ],
)
def test_invalid_arguments_are_errors(broker: Any, topic: str, topic_: str, options: list[str], code: int) -> None:
    assert main(["kafka", "consume", topic_ or topic, "--bootstrap-servers", broker.bootstrap, *options]) == code


@pytest.mark.kafka
def test_a_table_without_predictions_is_an_error(
    broker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (other,) = create_topics(broker, "other")
    send_values(broker.client_options(), other, [b"{}", b"x"])
    path = str(tmp_path / "all.csv")
    assert main(["kafka", "consume", other, "--bootstrap-servers", broker.bootstrap, "--out", path]) == 4
    assert "none of its 2 records holds predictions" in capsys.readouterr().err


def start_consumer(broker: Any, topic: str, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "model_name.scripts", "kafka", "consume", topic]
    servers = ["--bootstrap-servers", broker.bootstrap]
    return subprocess.Popen(
        [*command, *servers, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ
    )


@pytest.mark.kafka
def test_a_closed_pipe_ends_the_command_without_an_error(broker: Any, topic: str) -> None:
    with start_consumer(broker, topic) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == b""


@pytest.mark.kafka
def test_follow_waits_for_more_records_until_ctrl_c(broker: Any) -> None:
    (name,) = create_topics(broker, "out")
    with start_consumer(broker, name, "--follow") as process:
        assert process.stdout is not None
        for number in range(2):
            write_transactions(broker, [[RecordToWrite(name, 0, None, b"%d" % number)]])
            assert json.loads(process.stdout.readline())["value"] == number
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
