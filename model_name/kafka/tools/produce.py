"""The rows of a table as records, for a load, a demonstration or a test."""

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
from model_name.kafka.records import CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE, ATTRIBUTE_PREFIXES, Headers
from model_name.kafka.producers import PRODUCER_BATCH_BYTES, REJECTION_ERRORS, close_producer

CHUNK_ROWS = 2048
MAX_UNACKNOWLEDGED = 5000  # records that the broker has not confirmed yet
DELIVERY_TIMEOUT_SECONDS = 30.0
LINGER_MS = 5  # for others to travel along
MIN_PAUSE_SECONDS = 0.001  # below which it is not worth to wait
PROGRESS_INTERVAL_SECONDS = 0.2
EVENT_TYPE = "io.kserve.inference.request"


class ProduceResult(FrozenModel):
    """What was sent.

    Attributes:
        records: That the brokers have.
        seconds: That it took.
        is_complete: Whether that is the whole table; not when it was told to stop.
    """

    records: int
    seconds: float
    is_complete: bool


class EncodedRow(NamedTuple):
    """A row, as a record holds it."""

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
    """Send each row of a table as a JSON object, in its order.

    A missing value is null, a moment is spelled by ISO 8601.

    Args:
        clients: To the cluster.
        table: It is read piece by piece.
        topic: Where to.
        key: The column whose value is the record's key as well.
        drop: Columns that are not sent, such as the target, which a request must not carry.
        rate: Records per second; as fast as it goes by default.
        as_events: Whether each is an event in binary mode; its id is the same whenever it is sent.
        stop: Ends it; what has been sent until then is waited for.
        report: Where to say how far it is.

    Raises:
        NotFoundError: There is no such table or topic.
        ConfigError: There is no such column.
        DataError: A value has no place in JSON, or the topic refuses a record.
        DependencyError: The cluster cannot be reached, or refuses; it says how many were sent.
    """
    clients.partition_counts([topic])
    number = -1
    total, source = table.count() or 0, quote(table.path.rpartition("/")[2])
    sender = RowProducer(clients, topic)
    started = reported = monotonic()
    is_complete = False
    try:
        with translate_errors(clients.servers):
            for number, row in enumerate(encode_rows(table, key, drop)):
                if rate and (pause := started + number / rate - monotonic()) > MIN_PAUSE_SECONDS:
                    stop.wait(pause)
                if stop.is_set():
                    break
                sender.send(row, to_event_headers(row.value, number, source) if as_events else [])
                if monotonic() - reported > PROGRESS_INTERVAL_SECONDS:
                    report(number + 1, total, "")
                    reported = monotonic()
            else:
                is_complete = True
            sender.flush()
        if number < 0:
            raise DataError(f"{table.path}: has no row")
    except DependencyError as err:
        raise DependencyError(f"{err.message}; {sender.confirmed:,} records were sent", hint=err.hint) from err
    finally:
        sender.close()
    return ProduceResult(records=sender.confirmed, seconds=monotonic() - started, is_complete=is_complete)


def to_request_table(table: Reader, schema: TableSchema, path: Path) -> Reader:
    """A table with the columns that a request may carry: histories are looked up, the target and strangers left out.

    Reads the whole table, because a history may reach back to its beginning.

    Args:
        table: With the target where there are histories of it; its limit counts in the end.
        schema: Of a bundle.
        path: The Parquet file to write.

    Raises:
        DataError: A column that a request must have is not there.
    """
    from model_name.core import dataframes

    frame = dataframes.add_lag_columns(table.model_copy(update={"limit": None}).read(schema), schema)
    for name in schema.inputs:
        if name not in frame.columns:
            raise DataError(f"{table.path}: has no column {name}{did_you_mean(name, list(frame.columns))}")
    ParquetWriter(path=str(path)).write(frame[[name for name in schema.columns if name in frame.columns]])
    return ParquetReader(path=str(path), limit=table.limit)


def encode_rows(table: Reader, key: str = "", drop: Collection[str] = ()) -> Iterator[EncodedRow]:
    """The rows of a table in JSON.

    Raises:
        ConfigError: There is no such column as the key, or as one to drop.
        DataError: A value has no place in JSON.
    """
    number = 0
    for batch in table.batches(rows=CHUNK_ROWS):
        for option, names in (("key", [key] if key else []), ("drop", drop)):
            for name in names:
                if name not in batch.schema.names:
                    raise ConfigError(f"--{option} {name}: is no column{did_you_mean(name, batch.schema.names)}")
        for row in to_json_types(batch, table.path).to_pylist():
            found = record_key(row[key]) if key else None
            for name in drop:
                del row[name]
            try:
                yield EncodedRow(found, orjson.dumps(row))
            except orjson.JSONEncodeError as err:
                raise DataError(f"{table.path}, row {number}: {err}", hint="leave out the column") from err
            number += 1


def to_json_types(batch: pa.RecordBatch, path: str) -> pa.Table:
    """The same rows, in types that Python and JSON have.

    Raises:
        DataError: A number is infinite, for which JSON has no word.
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
    """A value as the key of a record; none where it is missing."""
    if value is None or value != value:  # noqa: PLR0124  NaN
        return None
    return label_text(value.isoformat() if isinstance(value, date | time) else value).encode()


def to_event_headers(value: bytes, number: int, source: str) -> Headers:
    """The attributes of an event in binary mode: of the same row of the same table they are the same."""
    attributes = {
        "specversion": "1.0",
        "id": f"{number}-{blake2b(value, digest_size=8).hexdigest()}",
        "source": source,
        "type": EVENT_TYPE,
    }
    headers = [(ATTRIBUTE_PREFIXES[0] + name, text.encode()) for name, text in attributes.items()]
    return [*headers, (CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode())]


class RowProducer:
    """Sends records, and waits where the brokers fall behind.

    Attributes:
        confirmed: Records that the brokers have.
    """

    def __init__(self, clients: KafkaClientFactory, topic: str) -> None:
        """Connect.

        Raises:
            DependencyError: The cluster cannot be reached, or refuses.
        """
        self.topic = topic
        self.confirmed = 0
        self._waiting: deque[tuple[Any, int]] = deque()  # what becomes of a record, and its size
        self._producer = clients.create_producer(
            batch_size=PRODUCER_BATCH_BYTES,
            linger_ms=LINGER_MS,
            max_block_ms=10_000,
            delivery_timeout_ms=int(DELIVERY_TIMEOUT_SECONDS * 1000),
        )

    def send(self, row: EncodedRow, headers: Headers) -> None:
        """Send one.

        Raises:
            DataError: The topic refuses one of those that were sent.
            KafkaError: One of them did not arrive.
        """
        try:
            future = self._producer.send(self.topic, row.value, row.key, headers)
        except REJECTION_ERRORS as err:
            raise self._refused(len(self._waiting), err) from err
        self._waiting.append((future, len(row.value)))
        if len(self._waiting) > MAX_UNACKNOWLEDGED:
            self._confirm()

    def flush(self) -> None:
        """Wait until the brokers have all.

        Raises:
            DataError: The topic refuses one of them.
            KafkaError: One of them did not arrive.
        """
        while self._waiting:  # and no flush of the client's, which fails where a batch is sent in two halves
            self._confirm()

    def close_producer(self) -> None:
        """Let go of the clients."""
        close_producer(self._producer, 1)

    def _confirm(self) -> None:
        try:
            self._waiting[0][0].get(DELIVERY_TIMEOUT_SECONDS)
        except REJECTION_ERRORS as err:  # others fail with it; the largest is one that deserves it
            failed = {position: size for position, (future, size) in enumerate(self._waiting) if future.failed()}
            raise self._refused(max(failed, key=failed.__getitem__), err) from err
        self._waiting.popleft()
        self.confirmed += 1

    def _refused(self, behind: int, err: Exception) -> DataError:
        """What to say of a record, by how many are before it that are not confirmed."""
        return DataError(f"{self.topic}: refuses row {self.confirmed + behind}: {err}")
