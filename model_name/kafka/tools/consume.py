"""Export the records of a topic as JSON lines or as a table of predictions."""

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
from model_name.kafka.tools.topic_reader import OffsetRange, TopicReader

CHUNK_ROWS = 50_000
PROGRESS_INTERVAL_RECORDS = 1000  # between two progress reports
LINES_EXTENSION = ".jsonl"
TABLE_EXTENSIONS = (".csv", ".parquet")
OUTPUTS = ("prediction", "lower", "upper")
COLUMNS = ("source_topic", "source_partition", "source_offset", "row", "key", "semver")

StartPosition = Literal["earliest", "latest"]


class ConsumeResult(FrozenModel):
    """Result of writing records to a file.

    Attributes:
        records: Number of records that were read.
        rows: Number of lines that were written, or of predictions in a table.
        others: Number of records that are not results and therefore not in the table.
        file: Path or URL of the file.
    """

    records: int
    rows: int
    others: int
    file: str


def consume_records(
    clients: KafkaClientFactory,
    topic: str,
    *,
    start: StartPosition = "earliest",
    max_records: int | None = None,
    stop: Event | None = None,
) -> Iterator[ConsumerRecord]:
    """Read the committed records of a topic, in order within each partition.

    Args:
        clients: Factory of the clients of the cluster.
        topic: Topic to read.
        start: Position at which to start.
        max_records: Largest number of records.
        stop: Event until which to wait for more records; without it reading ends at the present end of the topic.

    Raises:
        NotFoundError: The topic does not exist.
        DependencyError: The cluster cannot be reached, or rejects a request.
    """
    with TopicReader(clients) as reader:
        ranges = reader.offset_ranges(reader.partitions(topic))
        if start == "latest":
            ranges = {partition: OffsetRange(offsets.end, offsets.end) for partition, offsets in ranges.items()}
        begins = {partition: offsets.begin for partition, offsets in ranges.items()}
        batches = reader.read(ranges) if stop is None else reader.follow(begins, stop)
        yield from islice((record for batch in batches for record in batch), max_records)


def record_to_json_line(record: ConsumerRecord, *, with_headers: bool = False) -> str:
    """Encode a record as a line of JSON.

    JSON is embedded as it is, other text as a string, and bytes that are not UTF-8 in Base64, in a field whose name
    ends with `_base64`. A header that comes more than once becomes a list.
    """
    fields = {"partition": record.partition, "offset": record.offset, "timestamp": _iso_timestamp(record.timestamp)}
    headers = {"headers": _headers_object(record.headers)} if with_headers else {}
    return orjson.dumps(fields | _text_field("key", record.key) | headers | _value_fields(record.value)).decode()


def to_rows(record: ConsumerRecord) -> Iterator[dict[str, Any]]:
    """Build a table row for each prediction of a result, with the position of its record; none for other records."""
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
        by_label = probabilities[number] if number < len(probabilities) else {}
        yield shared | {"row": number} | named | {f"probability_{label}": p for label, p in by_label.items()}


def write_records(
    records: Iterable[ConsumerRecord], path: str, *, with_headers: bool, report: ProgressCallback
) -> ConsumeResult:
    """Write records to a file atomically: as JSON lines, or as a table of predictions.

    Args:
        records: Records, such as those of `consume_records`.
        path: Path or fsspec URL of the file; its extension selects the format.
        with_headers: Whether JSON lines contain the headers.
        report: Callback for the progress.

    Raises:
        ConfigError: The extension is unknown.
        DataError: The predictions do not fit into one table, because they are of different models.
        StorageError: The file cannot be written.
    """
    check_extension(path)
    counted = CountingIterator(records, report)
    if not path.endswith(TABLE_EXTENSIONS):
        with atomic_write(path) as file:
            lines = (record_to_json_line(record, with_headers=with_headers) for record in counted)
            file.writelines(line.encode() + b"\n" for line in lines)
        return ConsumeResult(records=counted.records, rows=counted.records, others=0, file=path)
    table, others = to_table(counted)
    if path.endswith(".parquet"):
        ParquetWriter(path=path).write(table)
    else:
        with atomic_write(path) as file:
            pacsv.write_csv(table, file)
    return ConsumeResult(records=counted.records, rows=table.num_rows, others=others, file=path)


def check_extension(path: str) -> None:
    """Check that the extension of a file selects a known format.

    Raises:
        ConfigError: The extension is unknown.
    """
    if not path.endswith((LINES_EXTENSION, *TABLE_EXTENSIONS)):
        raise ConfigError(
            f"{path}: ends with neither {', '.join(TABLE_EXTENSIONS)} nor {LINES_EXTENSION}",
            hint="give it its ending",
        )


def to_table(records: Iterable[ConsumerRecord]) -> tuple[pa.Table, int]:
    """Build a table of the predictions of records, and count the records that are not results.

    Raises:
        DataError: The predictions of different models do not fit into one table.
    """
    tables: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    others = 0
    for record in records:
        predictions = [*to_rows(record)]
        others += not predictions
        rows += predictions
        if len(rows) >= CHUNK_ROWS:
            tables.append(_rows_to_table(rows))
            rows = []
    try:
        return pa.concat_tables([*tables, _rows_to_table(rows)], promote_options="permissive"), others
    except (pa.ArrowInvalid, pa.ArrowTypeError) as err:
        hint = "they may be of several models: write lines, FILE.jsonl"
        raise DataError(f"the predictions make no table: {err}", hint=hint) from err


class CountingIterator:
    """Iterator over records that counts them and reports the progress.

    Attributes:
        records: Number of records so far.
    """

    def __init__(self, records: Iterable[ConsumerRecord], report: ProgressCallback) -> None:
        """Wrap the records."""
        self.records = 0
        self._source, self._report = records, report

    def __iter__(self) -> Iterator[ConsumerRecord]:
        """Yield the records."""
        for record in self._source:
            self.records += 1
            if self.records % PROGRESS_INTERVAL_RECORDS == 0:
                self._report(self.records, 0, "")
            yield record


def _rows_to_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = dict.fromkeys(chain(COLUMNS, *rows))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _prediction_body(value: bytes | None) -> dict[str, Any]:
    """Return the V1 body in a value, or in an event in structured mode; an empty one if there is none."""
    try:
        document = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    for body in (document, document.get("data") if isinstance(document, dict) else None):
        if isinstance(body, dict) and isinstance(body.get("predictions"), list):
            probabilities = body.get("probabilities")
            is_valid = isinstance(probabilities, list) and all(isinstance(by_label, dict) for by_label in probabilities)
            return body if is_valid else {"predictions": body["predictions"]}
    return {}


def _value_fields(value: bytes | None) -> dict[str, Any]:
    try:
        return {"value": orjson.Fragment(orjson.dumps(orjson.loads(value or b"")))}
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # orjson parses deeper nesting than it encodes
        return _text_field("value", value)


def _text_field(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode()}


def _headers_object(headers: Sequence[tuple[str, bytes | None]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = {}
    for name, value in headers:
        for field, text in _text_field(name, value).items():
            values.setdefault(field, []).append(text)
    return {name: texts[0] if len(texts) == 1 else texts for name, texts in values.items()}


def _iso_timestamp(timestamp: int) -> str | int:
    """Format a timestamp by ISO 8601; one outside the range of the calendar stays a number."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return timestamp
