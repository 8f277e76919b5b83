"""Rows of a table as records."""

import json
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_name.errors import ConfigError, DataError
from model_name.io.datasets import Reader, reader_for
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.tools.produce import encode_rows, produce_rows, record_key, to_event_headers, to_request_table
from model_name.scripts import main
from tests.support.kafka_topics import create_topics, read_committed


def table_of(folder: Path, **columns: Any) -> Reader:
    path = folder / "rows of all.parquet"
    pq.write_table(pa.table(columns), path)
    return reader_for(str(path))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        pytest.param(pa.array([1.5, None, float("nan")]), "[1.5,null,null]", id="missing values"),
        pytest.param(pa.array([2**62, None]), f"[{2**62},null]", id="a large integer"),
        pytest.param(pa.array([True, None]), "[true,null]", id="a boolean"),
        pytest.param(pa.array(["a", None, ""]), '["a",null,""]', id="a text"),
        pytest.param(pa.array(["a", "b", "a"]).dictionary_encode(), '["a","b","a"]', id="a category"),
        pytest.param(
            pa.array([datetime(2024, 1, 2, 3, 4, 5), None], pa.timestamp("ns")),
            '["2024-01-02T03:04:05",null]',
            id="a datetime",
        ),
        pytest.param(
            pa.array([datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)], pa.timestamp("ns", "UTC")),
            '["2024-01-02T03:04:05+00:00"]',
            id="a datetime with a time zone",
        ),
        pytest.param(pa.array([date(2024, 1, 2)]), '["2024-01-02"]', id="a date"),
        pytest.param(pa.array([Decimal("1.25")]), "[1.25]", id="a decimal"),
    ],
)
def test_values_are_encoded_as_json(tmp_path: Path, values: pa.Array, text: str) -> None:
    rows = [json.loads(row.value) for row in encode_rows(table_of(tmp_path, x=values))]
    assert json.dumps([row["x"] for row in rows], separators=(",", ":")) == text


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param(pa.array([1.0, float("inf")]), "x has an infinite value", id="infinity"),
        pytest.param(pa.array([b"a"]), "row 0: Type is not JSON serializable: bytes", id="bytes"),
    ],
)
def test_values_without_a_json_form_are_rejected(tmp_path: Path, values: pa.Array, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        list(encode_rows(table_of(tmp_path, x=values)))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        pytest.param("JFK", b"JFK", id="a text"),
        pytest.param(7, b"7", id="an integer"),
        pytest.param(7.0, b"7", id="a number that is an integer"),
        pytest.param(True, b"true", id="a boolean"),
        pytest.param(datetime(2024, 1, 2, 3), b"2024-01-02T03:00:00", id="a datetime"),
        pytest.param(None, None, id="null"),
        pytest.param(float("nan"), None, id="not a number"),
    ],
)
def test_keys_are_encoded_as_labels(value: Any, key: bytes | None) -> None:
    assert record_key(value) == key


def test_dropped_columns_are_not_sent_even_the_key(tmp_path: Path) -> None:
    rows = list(encode_rows(table_of(tmp_path, size=[1], outcome=["a"], code=["k"]), "code", {"outcome", "code"}))
    assert [(row.key, json.loads(row.value)) for row in rows] == [(b"k", {"size": 1})]
    with pytest.raises(ConfigError, match="--drop sise: is no column; did you mean size"):
        list(encode_rows(table_of(tmp_path, size=[1]), drop=["sise"]))


def test_only_the_columns_of_a_request_are_sent(tmp_path: Path, make_schema: Any) -> None:
    before = {"kind": "numeric", "nullable": True, "history": {"of": "outcome", "lag": "24h"}}
    columns = {"moment": {"kind": "datetime"}, "before": before}
    schema = make_schema("regression", columns=columns, key=[])
    table = table_of(
        tmp_path, moment=[datetime(2024, 1, day) for day in (1, 2, 3)], outcome=[1.0, 2.0, 3.0], stranger=[1, 2, 3]
    )
    requests = to_request_table(table.model_copy(update={"limit": 2}), schema, tmp_path / "requests.parquet")
    assert [json.loads(row.value).keys() for row in encode_rows(requests)] == [{"moment", "before"}] * 2
    assert [json.loads(row.value)["before"] for row in encode_rows(requests)] == [None, 1.0]


def test_a_table_without_a_required_column_is_rejected(tmp_path: Path, make_schema: Any) -> None:
    schema = make_schema("regression", columns={"moment": {"kind": "datetime"}}, key=[])
    with pytest.raises(DataError, match="has no column moment; did you mean momant"):
        to_request_table(
            table_of(tmp_path, momant=[datetime(2024, 1, 1)], outcome=[1.0]), schema, tmp_path / "a.parquet"
        )


def test_an_unknown_key_column_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--key sise: is no column; did you mean size"):
        list(encode_rows(table_of(tmp_path, size=[1]), "sise"))


def test_the_event_of_a_row_is_deterministic() -> None:
    one, again = to_event_headers(b'{"a":1}', 5, "rows.csv"), to_event_headers(b'{"a":1}', 5, "rows.csv")
    assert one == again
    assert dict(one)["ce_id"] != dict(to_event_headers(b'{"a":2}', 5, "rows.csv"))["ce_id"]
    assert dict(one)["ce_id"] != dict(to_event_headers(b'{"a":1}', 6, "rows.csv"))["ce_id"]


# With a broker


def produce(broker: Any, topic: str, table: Reader, *, stop: Event | None = None, **more: Any) -> Any:
    """Send the rows of a table to a topic."""
    return produce_rows(
        KafkaClientFactory(broker.bootstrap), table, topic=topic, stop=stop or Event(), report=lambda *_: None, **more
    )


@pytest.mark.kafka
def test_rows_are_sent_in_order_with_their_keys(broker: Any, tmp_path: Path) -> None:
    (topic,) = create_topics(broker, "in")
    table = table_of(tmp_path, n=[*range(5000)], group=["a", "b", None, "d"] * 1250)
    produced = produce(broker, topic, table, key="group")
    assert (produced.records, produced.is_complete) == (5000, True)
    found = read_committed(broker, topic)
    assert sorted(json.loads(one.value)["n"] for one in found) == [*range(5000)]
    for group, key in (("a", b"a"), ("d", b"d"), (None, None)):
        rows = [(one.partition, json.loads(one.value)["n"]) for one in found if one.key == key]
        assert {json.loads(one.value)["group"] for one in found if one.key == key} == {group}
        assert len(rows) == 1250
        if key:
            assert rows == sorted(rows)
            assert len({partition for partition, _ in rows}) == 1


@pytest.mark.kafka
def test_the_rate_is_limited(broker: Any, tmp_path: Path) -> None:
    (topic,) = create_topics(broker, "in")
    produce(broker, topic, table_of(tmp_path, n=[*range(40)]), rate=40.0)
    times = sorted(record.timestamp for record in read_committed(broker, topic))
    assert 700 <= times[-1] - times[0] <= 3000  # milliseconds; the first waits until the client knows the topic
    assert max(Counter(time // 250 for time in times).values()) < 25


@pytest.mark.kafka
def test_a_stopped_run_returns_the_number_of_sent_records(broker: Any, tmp_path: Path) -> None:
    (topic,) = create_topics(broker, "in")

    class Deadline(Event):
        def is_set(self) -> bool:
            return monotonic() > started + 0.5

    started, stop = monotonic(), Deadline()
    produced = produce(broker, topic, table_of(tmp_path, n=[*range(5000)]), stop=stop, rate=100.0)
    assert not produced.is_complete
    assert 0 < produced.records < 5000
    assert len(read_committed(broker, topic)) == produced.records


@pytest.mark.kafka
def test_a_rejected_record_is_reported(broker: Any, tmp_path: Path) -> None:
    (topic,) = create_topics(broker, "small", config={"max.message.bytes": 2000})
    texts = ["a"] * 100
    texts[70] = "b" * 5000
    with pytest.raises(DataError, match=f"{topic}: refuses row 70"):
        produce(broker, topic, table_of(tmp_path, text=texts))


@pytest.mark.kafka
def test_the_command_prints_its_result(broker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (topic,) = create_topics(broker, "in")
    path = tmp_path / "rows.csv"
    path.write_text("n,when\n1,2024-01-02 03:00:00\n2,\n3,\n")
    options = ["--bootstrap-servers", broker.bootstrap, "--topic", topic]
    assert main(["kafka", "produce", str(path), *options, "--rows", "2", "--event", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 2
    records = read_committed(broker, topic)
    assert {json.loads(one.value)["when"] for one in records} == {"2024-01-02T03:00:00", None}
    assert {dict(one.headers)["ce_source"] for one in records} == {b"rows.csv"}


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("table", "topic", "code"),
    [
        pytest.param("rows.csv", "s-none", 5, id="a missing topic"),
        pytest.param("none.csv", "", 4, id="a missing table"),
        pytest.param("empty.csv", "", 4, id="an empty table"),
        pytest.param("rows.xls", "", 2, id="an unknown format"),
    ],
)
def test_missing_inputs_are_errors(broker: Any, tmp_path: Path, table: str, topic: str, code: int) -> None:
    (tmp_path / "rows.csv").write_text("n\n1\n")
    (tmp_path / "empty.csv").write_text("n\n")
    topic = topic or create_topics(broker, "in")[0]
    servers = ["--bootstrap-servers", broker.bootstrap]
    assert main(["kafka", "produce", str(tmp_path / table), *servers, "--topic", topic]) == code
