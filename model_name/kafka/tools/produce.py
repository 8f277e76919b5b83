"""Send the rows of a table as records, for load tests, demonstrations and tests."""

from collections import deque
from collections.abc import Collection, Iterator
from datetime import date, time
from hashlib import blake2b
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import label_text
from model_name.core.schemas.strict_models import FrozenModel, did_you_mean
from model_name.errors import ConfigError, DataError, DependencyError
from model_name.io.datasets import ParquetReader, ParquetWriter, Reader
from model_name.io.progress import ProgressCallback
from model_name.kafka.client import KafkaClientFactory, translate_errors
from model_name.kafka.producers import PRODUCER_BATCH_BYTES, REJECTION_ERRORS, close_producer
from model_name.kafka.records import ATTRIBUTE_PREFIXES, CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE, Headers

CHUNK_ROWS = 2048
MAX_UNACKNOWLEDGED = 5000  # records in flight
DELIVERY_TIMEOUT_SECONDS = 30.0
LINGER_MS = 5  # to fill batches
MIN_PAUSE_SECONDS = 0.001  # shorter pauses are skipped
PROGRESS_INTERVAL_SECONDS = 0.2
EVENT_TYPE = "io.kserve.inference.request"


class ProduceResult(FrozenModel):
    """Result of producing a table.

    Attributes:
        records: Number of acknowledged records.
        seconds: Duration of sending them.
        is_complete: Whether the whole table was sent; false after an early stop.
    """

    records: int
    seconds: float
    is_complete: bool


class EncodedRow(NamedTuple):
    """Key and value of the record of a row."""

    key: bytes | None
    value: bytes


def produce_rows(
    clients: KafkaClientFactory,
    table: Reader,
    *,
    topic: str,
    key: str = "",
    drop: Collection[str] = (),
    rate: float | None = None,
    as_events: bool = False,
    stop: Event,
    report: ProgressCallback,
) -> ProduceResult:
    """Send each row of a table as a JSON object, in order.

    A missing value becomes null, a datetime is formatted by ISO 8601.

    Args:
        clients: Factory of the clients of the cluster.
        table: Reader of the table, which is read in chunks.
        topic: Topic to write to.
        key: Column whose value is also the key of the record.
        drop: Columns to leave out, such as the target, which a request must not contain.
        rate: Records per second; by default as many as possible.
        as_events: Whether each record is an event in binary mode; the id of a row is the same each time it is sent.
        stop: Event that ends sending; records in flight are still acknowledged.
        report: Callback for the progress.

    Raises:
        NotFoundError: The table or the topic does not exist.
        ConfigError: The table has no such column.
        DataError: A value cannot be encoded as JSON, or the topic rejects a record.
        DependencyError: The cluster cannot be reached, or rejects a request; the message counts the sent records.
    """
    clients.partition_counts([topic])
    number = -1
    total, source = table.count() or 0, quote(table.path.rpartition("/")[2])
    producer = RowProducer(clients, topic)
    started = last_report = monotonic()
    is_complete = False
    try:
        with translate_errors(clients.servers):
            for number, row in enumerate(encode_rows(table, key, drop)):
                if rate and (pause := started + number / rate - monotonic()) > MIN_PAUSE_SECONDS:
                    stop.wait(pause)
                if stop.is_set():
                    break
                producer.send(row, to_event_headers(row.value, number, source) if as_events else [])
                if monotonic() - last_report > PROGRESS_INTERVAL_SECONDS:
                    report(number + 1, total, "")
                    last_report = monotonic()
            else:
                is_complete = True
            producer.flush()
        if number < 0:
            raise DataError(f"{table.path}: has no row")
    except DependencyError as err:
        raise DependencyError(f"{err.message}; {producer.acknowledged:,} records were sent", hint=err.hint) from err
    finally:
        producer.close()
    return ProduceResult(records=producer.acknowledged, seconds=monotonic() - started, is_complete=is_complete)


def to_request_table(table: Reader, schema: TableSchema, path: Path) -> Reader:
    """Select the columns that a request may contain: compute the histories, drop the target and unknown columns.

    Reads the whole table, because a history may depend on its first rows.

    Args:
        table: Reader of the table, including the target if a history uses it. Its limit applies to the result.
        schema: Schema of a bundle.
        path: Parquet file to write the selected columns to.

    Raises:
        DataError: A column that a request must contain is missing.
    """
    from model_name.core import dataframes

    frame = dataframes.add_lag_columns(table.model_copy(update={"limit": None}).read(schema), schema)
    for name in schema.inputs:
        if name not in frame.columns:
            raise DataError(f"{table.path}: has no column {name}{did_you_mean(name, list(frame.columns))}")
    ParquetWriter(path=str(path)).write(frame[[name for name in schema.columns if name in frame.columns]])
    return ParquetReader(path=str(path), limit=table.limit)


def encode_rows(table: Reader, key: str = "", drop: Collection[str] = ()) -> Iterator[EncodedRow]:
    """Encode the rows of a table as JSON.

    Raises:
        ConfigError: The key or a dropped column is not in the table.
        DataError: A value cannot be encoded as JSON.
    """
    number = 0
    for batch in table.batches(rows=CHUNK_ROWS):
        for option, names in (("key", [key] if key else []), ("drop", drop)):
            for name in names:
                if name not in batch.schema.names:
                    raise ConfigError(f"--{option} {name}: is no column{did_you_mean(name, batch.schema.names)}")
        for row in to_json_types(batch, table.path).to_pylist():
            encoded_key = record_key(row[key]) if key else None
            for name in drop:
                del row[name]
            try:
                yield EncodedRow(encoded_key, orjson.dumps(row))
            except orjson.JSONEncodeError as err:
                raise DataError(f"{table.path}, row {number}: {err}", hint="leave out the column") from err
            number += 1


def to_json_types(batch: pa.RecordBatch, path: str) -> pa.Table:
    """Convert columns to types that JSON can encode.

    Raises:
        DataError: A number is infinite, which JSON cannot encode.
    """
    table = pa.Table.from_batches([batch])
    for position, field in enumerate(table.schema):
        column = table.column(position)
        if pa.types.is_floating(field.type) and pc.any(pc.is_inf(column)).as_py():
            raise DataError(f"{path}: {field.name} has an infinite value, which JSON cannot spell")
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            column = column.cast(pa.timestamp("us", field.type.tz), safe=False)
        elif pa.types.is_decimal(field.type):
            column = column.cast(pa.float64())
        table = table.set_column(position, field.name, column)
    return table


def record_key(value: Any) -> bytes | None:
    """Encode a value as the key of a record; None if it is missing."""
    if value is None or value != value:  # noqa: PLR0124  NaN
        return None
    return label_text(value.isoformat() if isinstance(value, date | time) else value).encode()


def to_event_headers(value: bytes, number: int, source: str) -> Headers:
    """Build the headers of an event in binary mode; they are the same each time the row of a table is sent."""
    attributes = {
        "specversion": "1.0",
        "id": f"{number}-{blake2b(value, digest_size=8).hexdigest()}",
        "source": source,
        "type": EVENT_TYPE,
    }
    headers = [(ATTRIBUTE_PREFIXES[0] + name, text.encode()) for name, text in attributes.items()]
    return [*headers, (CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode())]


class RowProducer:
    """Sends records with a bounded number of them in flight.

    Attributes:
        topic: Topic to write to.
        acknowledged: Number of acknowledged records.
    """

    def __init__(self, clients: KafkaClientFactory, topic: str) -> None:
        """Create the producer.

        Raises:
            DependencyError: The cluster cannot be reached, or rejects a request.
        """
        self.topic = topic
        self.acknowledged = 0
        self._in_flight: deque[tuple[Any, int]] = deque()  # future and size of each record
        self._producer = clients.create_producer(
            batch_size=PRODUCER_BATCH_BYTES,
            linger_ms=LINGER_MS,
            max_block_ms=10_000,
            delivery_timeout_ms=int(DELIVERY_TIMEOUT_SECONDS * 1000),
        )

    def send(self, row: EncodedRow, headers: Headers) -> None:
        """Send a row, and wait for acknowledgements if too many records are in flight.

        Raises:
            DataError: The topic rejects a record.
            KafkaError: A record was not acknowledged.
        """
        try:
            future = self._producer.send(self.topic, row.value, row.key, headers)
        except REJECTION_ERRORS as err:
            raise self._rejected(len(self._in_flight), err) from err
        self._in_flight.append((future, len(row.value)))
        if len(self._in_flight) > MAX_UNACKNOWLEDGED:
            self._await_oldest()

    def flush(self) -> None:
        """Wait until all records are acknowledged.

        Raises:
            DataError: The topic rejects a record.
            KafkaError: A record was not acknowledged.
        """
        while self._in_flight:  # no `flush` of the client: it fails where a batch is split
            self._await_oldest()

    def close(self) -> None:
        """Close the producer."""
        close_producer(self._producer, 1)

    def _await_oldest(self) -> None:
        try:
            self._in_flight[0][0].get(DELIVERY_TIMEOUT_SECONDS)
        except REJECTION_ERRORS as err:  # the client fails others with it; the largest one certainly is too large
            failed = {position: size for position, (future, size) in enumerate(self._in_flight) if future.failed()}
            raise self._rejected(max(failed, key=failed.__getitem__), err) from err
        self._in_flight.popleft()
        self.acknowledged += 1

    def _rejected(self, position: int, err: Exception) -> DataError:
        """Build the error of a rejected record, by its position among those in flight."""
        return DataError(f"{self.topic}: refuses row {self.acknowledged + position}: {err}")
