"""The records of a topic for people and for tables."""

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from threading import Event
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.csv as pacsv

from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError, DataError
from model_name.io.datasets import ParquetWriter
from model_name.io.progress import ProgressCallback
from model_name.io.storage import atomic_write
from model_name.kafka.client import KafkaClientFactory
from model_name.kafka.records import RESULT_SOURCE_HEADERS, SEMVER_HEADER, ConsumerRecord, parse_source
from model_name.kafka.tools.topic_reader import TopicReader

CHUNK_ROWS = 50_000
PROGRESS_INTERVAL_RECORDS = 1000  # records between two words of how far it is
LINES_EXTENSION = ".jsonl"
TABLE_EXTENSIONS = (".csv", ".parquet")
OUTPUTS = ("prediction", "lower", "upper")
COLUMNS = ("source_topic", "source_partition", "source_offset", "row", "key", "semver")

StartPosition = Literal["earliest", "latest"]


class ConsumeResult(FrozenModel):
    """What was written.

    Attributes:
        records: That were read.
        rows: That were written: lines, or in a table predictions.
        others: Records that have no place in a table, because they are no results.
        file: Where it lies.
    """

    records: int
    rows: int
    others: int
    file: str


def consume_records(
    connection: KafkaClientFactory, topic: str, *, start: StartPosition = "earliest", most: int | None = None, stop: Event | None = None
) -> Iterator[ConsumerRecord]:
    """The committed records of a topic, in order within each partition.

    Args:
        connection: To the cluster.
        topic: Of the records.
        start: Where to begin.
        most: How many at most.
        stop: Where it is given, records are waited for until it is set; else those are all that are there now.

    Raises:
        NotFoundError: There is no such topic.
        DependencyError: The cluster cannot be reached, or refuses.
    """
    with TopicReader(connection) as reader:
        spans = reader.spans(reader.partitions(topic))
        if start == "latest":
            spans = {one: span._replace(begin=span.end) for one, span in spans.items()}
        begins = {one: span.begin for one, span in spans.items()}
        batches = reader.read(spans) if stop is None else reader.follow(begins, stop)
        yield from islice((record for batch in batches for record in batch), most)


def record_to_json_line(record: ConsumerRecord, *, with_headers: bool = False) -> str:
    """A record as a line of JSON.

    JSON stands as it is, other text as a text, and bytes that are no UTF-8 in Base64 under a name that says so. A
    header that comes more than once has a list.
    """
    place = {"partition": record.partition, "offset": record.offset, "timestamp": _iso_timestamp(record.timestamp)}
    headers = {"headers": _headers_object(record.headers)} if with_headers else {}
    return orjson.dumps(place | _text_field("key", record.key) | headers | _value_fields(record.value)).decode()


def to_rows(record: ConsumerRecord) -> Iterator[dict[str, Any]]:
    """A row for each prediction of a result, with where its record lies; none for what is no result."""
    body = _prediction_body(record.value)
    source = parse_source(record.headers, RESULT_SOURCE_HEADERS) or (None, None, None)
    semver = dict(record.headers).get(SEMVER_HEADER)
    shared = {
        **dict(zip(COLUMNS, source, strict=False)),
        "key": next(iter(_text_field("key", record.key).values())),
        "semver": None if semver is None else semver.decode(errors="replace"),
    }
    probabilities = body.get("probabilities", [])
    for number, prediction in enumerate(body.get("predictions", [])):
        outputs = prediction if isinstance(prediction, dict) else {"prediction": prediction}
        named = {name: outputs[name] for name in OUTPUTS if name in outputs}
        of = probabilities[number] if number < len(probabilities) else {}
        yield shared | {"row": number} | named | {f"probability_{label}": p for label, p in of.items()}


def write(records: Iterable[ConsumerRecord], path: str, *, with_headers: bool, report: ProgressCallback) -> ConsumeResult:
    """Write records to a file, which is there when all of them are: lines of JSON, or a table of predictions.

    Args:
        records: Such as `consume_records` reads.
        path: It, or any fsspec URL; its ending says which of them.
        with_headers: Whether lines hold the headers.
        report: Where to say how far it is.

    Raises:
        ConfigError: The ending is of neither.
        DataError: Predictions of different models make no table.
        StorageError: It cannot be written.
    """
    check_extension(path)
    counted = CountingIterator(records, report)
    if not path.endswith(TABLE_EXTENSIONS):
        with atomic_write(path) as file:
            file.writelines(record_to_json_line(record, with_headers=with_headers).encode() + b"\n" for record in counted)
        return ConsumeResult(records=counted.records, rows=counted.records, others=0, file=path)
    table, others = to_table(counted)
    if path.endswith(".parquet"):
        ParquetWriter(path=path).write(table)
    else:
        with atomic_write(path) as file:
            pacsv.write_csv(table, file)
    return ConsumeResult(records=counted.records, rows=table.num_rows, others=others, file=path)


def check_extension(path: str) -> None:
    """Refuse a file of an unknown kind, before anything is read for it.

    Raises:
        ConfigError: It is.
    """
    if not path.endswith((LINES_EXTENSION, *TABLE_EXTENSIONS)):
        raise ConfigError(f"{path}: ends with neither {', '.join(TABLE_EXTENSIONS)} nor {LINES_EXTENSION}", hint="give it its ending")


def to_table(records: Iterable[ConsumerRecord]) -> tuple[pa.Table, int]:
    """The predictions of records as a table, and how many of the records are no results.

    Raises:
        DataError: They are of different models and make no table.
    """
    tables: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    others = 0
    for record in records:
        found = [*to_rows(record)]
        others += not found
        rows += found
        if len(rows) >= CHUNK_ROWS:
            tables.append(_rows_to_table(rows))
            rows = []
    try:
        return pa.concat_tables([*tables, _rows_to_table(rows)], promote_options="permissive"), others
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        hint = "they may be of several models: write lines, FILE.jsonl"
        raise DataError(f"the predictions make no table: {err}", hint=hint) from err


class CountingIterator:
    """Records as they come, counted.

    Attributes:
        records: That have come.
    """

    def __init__(self, records: Iterable[ConsumerRecord], report: ProgressCallback) -> None:
        """Begin with none."""
        self.records = 0
        self._source, self._report = records, report

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """Each in turn."""
        for record in self._source:
            self.records += 1
            if self.records % PROGRESS_INTERVAL_RECORDS == 0:
                self._report(self.records, 0, "")
            yield record


def _rows_to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = dict.fromkeys(chain(COLUMNS, *rows))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _prediction_body(value: bytes | None) -> dict[str, Any]:
    """The body of V1 that a value is, or that an event in structured mode holds; an empty one where there is none."""
    try:
        found = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    for body in (found, found.get("data") if isinstance(found, dict) else None):
        if isinstance(body, dict) and isinstance(body.get("predictions"), list):
            probabilities = body.get("probabilities")
            is_whole = isinstance(probabilities, list) and all(isinstance(of, dict) for of in probabilities)
            return body if is_whole else {"predictions": body["predictions"]}
    return {}


def _value_fields(value: bytes | None) -> dict[str, Any]:
    try:
        return {"value": orjson.Fragment(orjson.dumps(orjson.loads(value or b"")))}
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # what is nested too deep can be read but not written
        return _text_field("value", value)


def _text_field(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode()}


def _headers_object(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for name, value in headers:
        for spelled, text in _text_field(name, value).items():
            found.setdefault(spelled, []).append(text)
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in found.items()}


def _iso_timestamp(timestamp: int) -> str | int:
    """A time in ISO 8601; one that no calendar has, as the number that the producer gave."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return timestamp
