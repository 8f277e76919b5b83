"""Formatter of the prediction log: one line of JSON per row."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from hashlib import blake2b
from itertools import chain, repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
import orjson

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import Columns, label_text
from model_name.serving.bundle import Manifest
from model_name.serving.column_structs import define_struct
from model_name.serving.prediction_log.row_selection import RowPositions, RowSelection

MAX_KEY_BYTES = blake2b.MAX_KEY_SIZE
HASH_BYTES = 16
TIMESTAMP_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
ENCODER = msgspec.json.Encoder()
BOOLEAN_VALUES = {0.0: False, 1.0: True}  # any other number is a missing value


class Record(msgspec.Struct, gc=False):
    """One line of the log."""

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


class EncodedLines(NamedTuple):
    """Lines of JSON.

    Attributes:
        text: Lines, each with a line feed.
        rows: Number of lines.
    """

    text: bytes
    rows: int


class RecordFormatter:
    """Formats the predictions of one version.

    Attributes:
        manifest: Manifest of the version.
        omitted_columns: Names of the sensitive columns that are not logged, because there is no key.
    """

    def __init__(self, manifest: Manifest, *, slot: str, key: bytes | None, text_ids: bool) -> None:
        """Select the columns to log and to hash.

        Args:
            manifest: Manifest of the version.
            slot: Blue-green slot of the server.
            key: Key that hashes the values of sensitive columns; None to omit them.
            text_ids: Whether `text-id` columns are logged.
        """
        self.manifest = manifest
        table = {
            name: column for name, column in manifest.table.columns.items() if text_ids or column.kind != "text-id"
        }
        sensitive = {name for name, column in table.items() if column.sensitive}
        self.omitted_columns = () if key else tuple(name for name in table if name in sensitive)
        self._slot = slot
        self._logged = [name for name in table if name not in self.omitted_columns]
        self._booleans = {name for name, column in table.items() if column.kind == "boolean"}
        self._hashed = sensitive
        self._hash = blake2b(key=key or b"", digest_size=HASH_BYTES)
        self._struct_factories: dict[tuple[str, ...], Callable[..., Any]] = {}

    def format_lines(self, chunk: Sequence[RowSelection]) -> dict[str, EncodedLines]:
        """Format rows of one layout.

        Returns:
            Lines by the day on which their request was received (YYYY-MM-DD in UTC).
        """
        requests = [request for selection in chunk for request in selection.requests]
        rows = len(requests)
        times = (np.array([request.received_at for request in requests]) * 1e6).astype("datetime64[us]")
        positions = [selection.positions for selection in chunk]
        inputs = [selection.batch.columns for selection in chunk]
        names = tuple(name for name in self._logged if name in inputs[0])
        input_values = [self._format_column(name, gather_column(name, inputs, positions, rows)) for name in names]
        manifest = self.manifest
        fields = [
            [*map(msgspec.Raw, orjson.dumps(times, option=TIMESTAMP_OPTIONS)[1:-1].split(b","))],
            [request.id for request in requests],
            [number for selection in chunk for number in selection.numbers],
            [request.protocol for request in requests],
            repeat(self._slot),
            repeat(manifest.name),
            repeat(manifest.version),
            repeat(manifest.semver),
            self._to_objects(names, input_values, rows),
            self._format_outputs([selection.batch.outputs for selection in chunk], positions, rows),
            np.round(np.array([request.latency for request in requests]) * 1e3, 3).tolist(),
        ]
        records = [*map(Record, *fields)]
        days = times.astype("datetime64[D]")
        if days.min() == days.max():
            return {str(days[0]): EncodedLines(encode_json_lines(records), rows)}
        by_day = {str(day): [records[row] for row in np.flatnonzero(days == day)] for day in np.unique(days)}
        return {day: EncodedLines(encode_json_lines(part), len(part)) for day, part in by_day.items()}

    def _format_outputs(
        self, outputs: Sequence[Outputs], positions: Sequence[RowPositions], rows: int
    ) -> Iterable[Any]:
        """Create one object per row; the probabilities are an object of their own in it."""
        tables = [part.columns for part in outputs]
        columns = {name: gather_column(name, tables, positions, rows) for name in tables[0]}
        names: list[str] = [name for name in ("prediction", "lower", "upper") if name in columns]
        values: list[Iterable[Any]] = [columns.pop(name) for name in names]
        if columns:
            labels = tuple(label_text(label) for label in outputs[0].classes)
            names.append("probabilities")
            values.append(self._to_objects(labels, list(columns.values()), rows))
        return self._to_objects(tuple(names), values, rows)

    def _to_objects(self, names: tuple[str, ...], columns: Sequence[Iterable[Any]], rows: int) -> Iterable[Any]:
        """Transpose columns to objects.

        Args:
            names: Keys of the objects.
            columns: Values of each key.
            rows: Number of objects.
        """
        if not names:
            return repeat({}, rows)
        factory = self._struct_factories.get(names)
        if factory is None:
            factory = self._struct_factories[names] = make_struct_factory(names)
        return map(factory, *columns)

    def _format_column(self, name: str, values: list[Any]) -> list[Any]:
        """Convert typed values to those in the log: booleans, and hashes of sensitive values."""
        if name in self._booleans:
            values = [*map(BOOLEAN_VALUES.get, values)]
        return [*map(self._hash_value, values)] if name in self._hashed else values

    def _hash_value(self, value: Any) -> str | None:
        """Hash a value; equal values have one hash in every process that has the key."""
        if value is None or value != value:  # noqa: PLR0124  NaN
            return None
        text = value.isoformat() if isinstance(value, datetime) else label_text(value)
        state = self._hash.copy()
        state.update(text.encode(errors="surrogatepass"))
        return state.hexdigest()


def gather_column(name: str, tables: Sequence[Columns], positions: Sequence[RowPositions], rows: int) -> list[Any]:
    """Concatenate the values of one column at some rows of each table.

    Raises:
        ValueError: The number of values is not `rows`.
    """
    columns = [table[name] for table in tables]
    lists = [
        (values if part is None else values[part]).tolist() for values, part in zip(columns, positions, strict=True)
    ]
    values = lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))
    if len(values) != rows:
        raise ValueError(f"{rows} rows have {len(values)} values")
    return values


def make_struct_factory(names: Sequence[str]) -> Callable[..., Any]:
    """Create a function from values to an object with these keys: a struct if msgspec supports the keys, or a dict."""
    struct = define_struct("Values", dict.fromkeys(names, Any)) if len({*names}) == len(names) else None
    return struct or (lambda *values: dict(zip(names, values, strict=True)))


def encode_json_lines(records: Sequence[Any]) -> bytes:
    """Encode each record as a line of JSON; missing and non-finite numbers become null."""
    try:
        return ENCODER.encode_lines(records)
    except UnicodeEncodeError:  # half a surrogate pair: JSON can escape one, UTF-8 cannot encode it
        return ENCODER.encode_lines([replace_lone_surrogates(msgspec.structs.asdict(record)) for record in records])


def replace_lone_surrogates(value: Any) -> Any:
    """Replace what UTF-8 cannot encode in all texts of a value by question marks."""
    if isinstance(value, msgspec.Struct):
        value = msgspec.to_builtins(value)
    if isinstance(value, dict):
        return {name: replace_lone_surrogates(part) for name, part in value.items()}
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
