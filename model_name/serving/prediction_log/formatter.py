"""What the prediction log says of a row: one line of JSON."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from itertools import chain, pairwise, repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import Columns, label_text
from model_name.serving.bundle import Manifest
from model_name.serving.protocols.fast_json import UNSPEAKABLE

MAX_KEY_BYTES = blake2b.MAX_KEY_SIZE
HASH_BYTES = 16
TIMESTAMP_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
ENCODER = msgspec.json.Encoder()
BOOLEAN_VALUES = {0.0: False, 1.0: True}  # what is in neither is missing


class LoggedRequest(NamedTuple):
    """One request of a batch.

    Attributes:
        id: As the client or the server named it.
        protocol: `v1`, `v2`, `grpc`, `cloudevents`.
        received: When, in Unix seconds.
        latency: Seconds until its answer was ready.
        rows: Its rows in the batch.
    """

    id: str
    protocol: str
    received: float
    latency: float
    rows: slice


class LoggedBatch(NamedTuple):
    """Requests that were answered together.

    Attributes:
        manifest: Of the bundle that answered.
        columns: The checked, typed columns of all rows.
        outputs: The answers to all rows.
        requests: Which rows are whose; together they are all rows.
    """

    manifest: Manifest
    columns: Columns
    outputs: Outputs
    requests: Sequence[LoggedRequest]


ColumnPositions = Sequence[slice | NDArray[np.int_] | None]
"""Where some rows of each batch stand in its arrays; None where they are all."""


class Record(msgspec.Struct, gc=False):
    """What the log says of a row."""

    time: msgspec.Raw
    request_id: str
    row: int
    protocol: str
    slot: str
    model: str
    version: str
    semver: str
    inputs: Any
    outputs: Any
    latency_ms: float


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Some rows of a batch.

    Attributes:
        batch: The whole batch.
        requests: The request of each row.
        numbers: The number of each row within its request.
        positions: The position of each row in the batch.
    """

    batch: LoggedBatch
    requests: list[LoggedRequest] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[Any, ...]:
        """What rows have in common that can be formatted together."""
        outputs = self.batch.outputs
        return (id(self.batch.manifest), *self.batch.columns, outputs.lower is None, outputs.probabilities is None)

    @property
    def place(self) -> slice | NDArray[np.int_] | None:
        """Where they stand in the arrays of the batch; None where they are all of it."""
        first, end = self.positions[0], self.positions[0] + len(self.positions)
        if self.positions != list(range(first, end)):
            return np.array(self.positions)
        return None if end - first == len(self.batch.outputs.prediction) else slice(first, end)

    def add(self, request: LoggedRequest, first: int, end: int) -> None:
        """Add rows of a request, from one number to before another."""
        start = request.rows.start
        self.requests.extend([request] * (end - first))
        self.numbers.extend(range(first, end))
        self.positions.extend(range(start + first, start + end))


def split_rows(batch: LoggedBatch, requests: Iterable[LoggedRequest], size: int) -> Iterator[RowSelection]:
    """The rows of some requests of a batch: at least `size` at a time, and less than twice as many."""
    requests = list(requests)
    count = len(batch.outputs.prediction)
    if 0 < len(requests) == count <= size:  # one row each, nearly always, and then in a fifth of the time
        bounds = [(request.rows.start, request.rows.stop) for request in requests]
        if bounds == [*pairwise(range(count + 1))]:
            yield RowSelection(batch, requests, [0] * count, [*range(count)])
            return
    piece = RowSelection(batch)
    for request in requests:
        rows = request.rows.stop - request.rows.start
        first = 0
        while first < rows:
            end = min(first + size, rows)
            piece.add(request, first, end)
            first = end
            if len(piece.numbers) >= size:
                yield piece
                piece = RowSelection(batch)
    if piece.numbers:
        yield piece


def merge_chunks(parts: Iterable[RowSelection], size: int) -> Iterator[list[RowSelection]]:
    """Rows to format together, about `size` of them: ten small batches at once take half the time of one by one."""
    stretch: list[RowSelection] = []
    rows = 0
    for part in parts:
        if stretch and (rows >= size or part.shape != stretch[0].shape):
            yield stretch
            stretch, rows = [], 0
        stretch.append(part)
        rows += len(part.numbers)
    if stretch:
        yield stretch


class EncodedLines(NamedTuple):
    """Lines of JSON, each with its end.

    Attributes:
        text: All of them.
        rows: How many.
    """

    text: bytes
    rows: int


class RecordFormatter:
    """Formats what one version answered.

    Attributes:
        manifest: Of the version.
        left_out: Sensitive columns that are not logged, for there is no key.
    """

    def __init__(self, manifest: Manifest, *, slot: str, key: bytes | None, text_ids: bool) -> None:
        """Decide what becomes of each column.

        Args:
            manifest: Of the version.
            slot: Of the server.
            key: Hashes the values of sensitive columns.
            text_ids: Whether `text-id` columns are logged.
        """
        self.manifest = manifest
        table = {
            name: column for name, column in manifest.table.columns.items() if text_ids or column.kind != "text-id"
        }
        sensitive = {name for name, column in table.items() if column.sensitive}
        self.left_out = () if key else tuple(name for name in table if name in sensitive)
        self._slot = slot
        self._logged = [name for name in table if name not in self.left_out]
        self._booleans = {name for name, column in table.items() if column.kind == "boolean"}
        self._hashed = sensitive
        self._hash = blake2b(key=key or b"", digest_size=HASH_BYTES)
        self._makers: dict[tuple[str, ...], Callable[..., Any]] = {}

    def lines(self, stretch: Sequence[RowSelection]) -> dict[str, EncodedLines]:
        """The lines of rows of one shape, by the day on which their request came (YYYY-MM-DD, in UTC)."""
        requests = [request for part in stretch for request in part.requests]
        rows = len(requests)
        moments = (np.array([request.received for request in requests]) * 1e6).astype("datetime64[us]")
        places = [part.place for part in stretch]
        inputs = [part.batch.columns for part in stretch]
        names = tuple(name for name in self._logged if name in inputs[0])
        manifest = self.manifest
        columns = [
            [*map(msgspec.Raw, orjson.dumps(moments, option=TIMESTAMP_OPTIONS)[1:-1].split(b","))],
            [request.id for request in requests],
            [number for part in stretch for number in part.numbers],
            [request.protocol for request in requests],
            repeat(self._slot),
            repeat(manifest.name),
            repeat(manifest.version),
            repeat(manifest.semver),
            self._objects(names, [self._read(name, gather_column(name, inputs, places, rows)) for name in names], rows),
            self._answers([part.batch.outputs for part in stretch], places, rows),
            np.round(np.array([request.latency for request in requests]) * 1e3, 3).tolist(),
        ]
        records = [*map(Record, *columns)]
        days = moments.astype("datetime64[D]")
        if days.min() == days.max():
            return {str(days[0]): EncodedLines(encode_json_lines(records), rows)}
        by_day = {str(day): [records[row] for row in np.flatnonzero(days == day)] for day in np.unique(days)}
        return {day: EncodedLines(encode_json_lines(those), len(those)) for day, those in by_day.items()}

    def _answers(self, outputs: Sequence[Outputs], places: ColumnPositions, rows: int) -> Iterable[Any]:
        """What was answered, a record a row."""
        tables = [answer.columns for answer in outputs]
        columns = {name: gather_column(name, tables, places, rows) for name in tables[0]}
        own: list[str] = [name for name in ("prediction", "lower", "upper") if name in columns]
        values: list[Iterable[Any]] = [columns.pop(name) for name in own]
        if columns:
            labels = tuple(label_text(label) for label in outputs[0].classes)
            own.append("probabilities")
            values.append(self._objects(labels, list(columns.values()), rows))
        return self._objects(tuple(own), values, rows)

    def _objects(self, names: tuple[str, ...], columns: Sequence[Iterable[Any]], rows: int) -> Iterable[Any]:
        """Objects with these names, of which each takes one value of each column.

        Args:
            names: Of the values.
            columns: The values of each name.
            rows: How many objects.
        """
        if not names:
            return repeat({}, rows)
        maker = self._makers.get(names)
        if maker is None:
            maker = self._makers[names] = make_struct_factory(names)
        return map(maker, *columns)

    def _read(self, name: str, values: list[Any]) -> list[Any]:
        """A column as the log holds it."""
        if name in self._booleans:
            values = [*map(BOOLEAN_VALUES.get, values)]
        return [*map(self._hash_of, values)] if name in self._hashed else values

    def _hash_of(self, value: Any) -> str | None:
        """The same for equal values, in every process that has the key."""
        if value is None or value != value:  # noqa: PLR0124  NaN
            return None
        text = value.isoformat() if isinstance(value, datetime) else label_text(value)
        state = self._hash.copy()
        state.update(text.encode(errors="surrogatepass"))
        return state.hexdigest()


def gather_column(name: str, tables: Sequence[Columns], places: ColumnPositions, rows: int) -> list[Any]:
    """The values of one column in some rows of each table.

    Raises:
        ValueError: They are not as many as there are rows.
    """
    columns = [table[name] for table in tables]
    lists = [
        (values if place is None else values[place]).tolist() for values, place in zip(columns, places, strict=True)
    ]
    values = lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))
    if len(values) != rows:
        raise ValueError(f"{rows} rows have {len(values)} values")
    return values


def make_struct_factory(names: Sequence[str]) -> Callable[..., Any]:
    """What makes an object with these names of its values: a struct, which is sooner made and written than a dict."""
    if any(map(UNSPEAKABLE.search, names)) or len({*names}) < len(names):
        return lambda *values: dict(zip(names, values, strict=True))
    fields = {f"value_{position}": name for position, name in enumerate(names)}  # names of columns may be any text
    return msgspec.defstruct("Values", [(field, Any) for field in fields], rename=fields, gc=False)


def encode_json_lines(records: Sequence[Any]) -> bytes:
    """The JSON of each record, with the end of its line; null for what is missing or not finite."""
    try:
        return ENCODER.encode_lines(records)
    except UnicodeEncodeError:  # half a surrogate pair, which a text of JSON may hold and UTF-8 may not
        return ENCODER.encode_lines([replace_lone_surrogates(msgspec.structs.asdict(record)) for record in records])


def replace_lone_surrogates(value: Any) -> Any:
    """A value of which UTF-8 can hold every text."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {name: replace_lone_surrogates(part) for name, part in value.items()}
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
