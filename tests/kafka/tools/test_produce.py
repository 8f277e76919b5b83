"""Rows as records."""

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
from model_name.kafka.client import Connection
from model_name.kafka.tools.produce import event_of, key_of, produce, requests_of, rows_of
from model_name.scripts import main
from tests.support.kafka_topics import fresh, read_all


def table_of(folder: Path, **columns: Any) -> Reader:
    path = folder / "rows of all.parquet"
    pq.write_table(pa.table(columns), path)
    return reader_for(str(path))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        pytest.param(pa.array([1.5, None, float("nan")]), "[1.5,null,null]", id="what is missing is null"),
        pytest.param(pa.array([2**62, None]), f"[{2**62},null]", id="an integer is exact"),
        pytest.param(pa.array([True, None]), "[true,null]", id="a boolean"),
        pytest.param(pa.array(["a", None, ""]), '["a",null,""]', id="a text"),
        pytest.param(pa.array(["a", "b", "a"]).dictionary_encode(), '["a","b","a"]', id="a category"),
        pytest.param(
            pa.array([datetime(2024, 1, 2, 3, 4, 5), None], pa.timestamp("ns")),
            '["2024-01-02T03:04:05",null]',
            id="a moment",
        ),
        pytest.param(
            pa.array([datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)], pa.timestamp("ns", "UTC")),
            '["2024-01-02T03:04:05+00:00"]',
            id="a moment in a zone",
        ),
        pytest.param(pa.array([date(2024, 1, 2)]), '["2024-01-02"]', id="a day"),
        pytest.param(pa.array([Decimal("1.25")]), "[1.25]", id="a decimal"),
    ],
)
def test_a_value_is_spelled_as_json(tmp_path: Path, values: pa.Array, text: str) -> None:
    rows = [json.loads(row.value) for row in rows_of(table_of(tmp_path, x=values))]
    assert json.dumps([row["x"] for row in rows], separators=(",", ":")) == text


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param(pa.array([1.0, float("inf")]), "x has an infinite value", id="infinity"),
        pytest.param(pa.array([b"a"]), "row 0: Type is not JSON serializable: bytes", id="bytes"),
    ],
)
def test_what_json_cannot_say_is_refused(tmp_path: Path, values: pa.Array, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        list(rows_of(table_of(tmp_path, x=values)))


@pytest.mark.parametrize(
    ("value", "key"),
    [
        pytest.param("JFK", b"JFK", id="a text"),
        pytest.param(7, b"7", id="an integer"),
        pytest.param(7.0, b"7", id="a number that is an integer"),
        pytest.param(True, b"true", id="a boolean"),
        pytest.param(datetime(2024, 1, 2, 3), b"2024-01-02T03:00:00", id="a moment"),
        pytest.param(None, None, id="nothing"),
        pytest.param(float("nan"), None, id="not a number"),
    ],
)
def test_a_key_is_spelled_as_elsewhere(value: Any, key: bytes | None) -> None:
    assert key_of(value) == key


def test_a_column_that_is_dropped_is_not_sent_even_where_it_is_the_key(tmp_path: Path) -> None:
    rows = list(rows_of(table_of(tmp_path, size=[1], outcome=["a"], code=["k"]), "code", {"outcome", "code"}))
    assert [(row.key, json.loads(row.value)) for row in rows] == [(b"k", {"size": 1})]
    with pytest.raises(ConfigError, match="--drop sise: is no column; did you mean size"):
        list(rows_of(table_of(tmp_path, size=[1]), drop=["sise"]))


def test_a_table_is_sent_as_a_bundle_takes_it(tmp_path: Path, make_schema: Any) -> None:
    before = {"kind": "numeric", "nullable": True, "history": {"of": "outcome", "lag": "24h"}}
    columns = {"moment": {"kind": "datetime"}, "before": before}
    schema = make_schema("regression", columns=columns, key=[])
    table = table_of(
        tmp_path, moment=[datetime(2024, 1, day) for day in (1, 2, 3)], outcome=[1.0, 2.0, 3.0], stranger=[1, 2, 3]
    )
    asked = requests_of(table.model_copy(update={"limit": 2}), schema, tmp_path / "asked.parquet")
    assert [json.loads(row.value).keys() for row in rows_of(asked)] == [{"moment", "before"}] * 2
    assert [json.loads(row.value)["before"] for row in rows_of(asked)] == [None, 1.0]


def test_a_table_without_what_a_bundle_takes_is_refused(tmp_path: Path, make_schema: Any) -> None:
    schema = make_schema("regression", columns={"moment": {"kind": "datetime"}}, key=[])
    with pytest.raises(DataError, match="has no column moment; did you mean momant"):
        requests_of(table_of(tmp_path, momant=[datetime(2024, 1, 1)], outcome=[1.0]), schema, tmp_path / "a.parquet")


def test_a_column_that_is_not_there_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--key sise: is no column; did you mean size"):
        list(rows_of(table_of(tmp_path, size=[1]), "sise"))


def test_an_event_of_the_same_row_is_the_same_event() -> None:
    one, again = event_of(b'{"a":1}', 5, "rows.csv"), event_of(b'{"a":1}', 5, "rows.csv")
    assert one == again
    assert dict(one)["ce_id"] != dict(event_of(b'{"a":2}', 5, "rows.csv"))["ce_id"]
    assert dict(one)["ce_id"] != dict(event_of(b'{"a":1}', 6, "rows.csv"))["ce_id"]


# To a broker


def send(broker: Any, topic: str, table: Reader, *, stop: Event | None = None, **more: Any) -> Any:
    return produce(
        Connection(broker.bootstrap), table, topic=topic, stop=stop or Event(), report=lambda *_: None, **more
    )


@pytest.mark.kafka
def test_each_row_is_a_record_in_its_order_with_its_key(broker: Any, tmp_path: Path) -> None:
    (topic,) = fresh(broker, "in")
    table = table_of(tmp_path, n=[*range(5000)], group=["a", "b", None, "d"] * 1250)
    produced = send(broker, topic, table, key="group")
    assert (produced.records, produced.is_complete) == (5000, True)
    found = read_all(broker, topic)
    assert sorted(json.loads(one.value)["n"] for one in found) == [*range(5000)]
    for group, key in (("a", b"a"), ("d", b"d"), (None, None)):
        rows = [(one.partition, json.loads(one.value)["n"]) for one in found if one.key == key]
        assert {json.loads(one.value)["group"] for one in found if one.key == key} == {group}
        assert len(rows) == 1250
        if key:
            assert rows == sorted(rows)
            assert len({partition for partition, _ in rows}) == 1


@pytest.mark.kafka
def test_the_rate_is_kept(broker: Any, tmp_path: Path) -> None:
    (topic,) = fresh(broker, "in")
    send(broker, topic, table_of(tmp_path, n=[*range(40)]), rate=40.0)
    times = sorted(record.timestamp for record in read_all(broker, topic))
    assert 700 <= times[-1] - times[0] <= 3000  # milliseconds; the first waits until the client knows the topic
    assert max(Counter(time // 250 for time in times).values()) < 25


@pytest.mark.kafka
def test_one_that_is_told_to_stop_says_what_it_has_sent(broker: Any, tmp_path: Path) -> None:
    (topic,) = fresh(broker, "in")

    class Until(Event):
        def is_set(self) -> bool:
            return monotonic() > begun + 0.5

    begun, stop = monotonic(), Until()
    produced = send(broker, topic, table_of(tmp_path, n=[*range(5000)]), stop=stop, rate=100.0)
    assert not produced.is_complete
    assert 0 < produced.records < 5000
    assert len(read_all(broker, topic)) == produced.records


@pytest.mark.kafka
def test_a_record_that_the_topic_refuses_is_named(broker: Any, tmp_path: Path) -> None:
    (topic,) = fresh(broker, "small", config={"max.message.bytes": 2000})
    texts = ["a"] * 100
    texts[70] = "b" * 5000
    with pytest.raises(DataError, match=f"{topic}: refuses row 70"):
        send(broker, topic, table_of(tmp_path, text=texts))


@pytest.mark.kafka
def test_the_command_tells_what_it_did(broker: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (topic,) = fresh(broker, "in")
    path = tmp_path / "rows.csv"
    path.write_text("n,when\n1,2024-01-02 03:00:00\n2,\n3,\n")
    options = ["--bootstrap-servers", broker.bootstrap, "--topic", topic]
    assert main(["kafka", "produce", str(path), *options, "--rows", "2", "--event", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["records"] == 2
    records = read_all(broker, topic)
    assert {json.loads(one.value)["when"] for one in records} == {"2024-01-02T03:00:00", None}
    assert {dict(one.headers)["ce_source"] for one in records} == {b"rows.csv"}


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("table", "topic", "code"),
    [
        pytest.param("rows.csv", "s-none", 5, id="a topic that is not there"),
        pytest.param("none.csv", "", 4, id="a table that is not there"),
        pytest.param("empty.csv", "", 4, id="a table without rows"),
        pytest.param("rows.xls", "", 2, id="no table"),
    ],
)
def test_what_is_not_there_is_told(broker: Any, tmp_path: Path, table: str, topic: str, code: int) -> None:
    (tmp_path / "rows.csv").write_text("n\n1\n")
    (tmp_path / "empty.csv").write_text("n\n")
    topic = topic or fresh(broker, "in")[0]
    servers = ["--bootstrap-servers", broker.bootstrap]
    assert main(["kafka", "produce", str(tmp_path / table), *servers, "--topic", topic]) == code
