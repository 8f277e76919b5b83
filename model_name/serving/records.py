"""What the prediction log says of a row: one line of JSON."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from model_name.core.columns import Columns, label_text
from model_name.core.schemas import Outputs
from model_name.serving.bundle import Manifest

MAX_KEY_BYTES = blake2b.MAX_KEY_SIZE
HASH_BYTES = 16
IN_UTC = orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z
NUL = b"\0"  # which JSON never holds as it is
BLANK = orjson.Fragment(NUL)
BOOLEANS = {0.0: False, 1.0: True}  # what is in neither is missing


class AnsweredRequest(NamedTuple):
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


class AnsweredBatch(NamedTuple):
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
    requests: tuple[AnsweredRequest, ...]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a batch.

    Attributes:
        batch: The whole batch.
        requests: The request of each row.
        numbers: The number of each row within its request.
        positions: The position of each row in the batch.
    """

    batch: AnsweredBatch
    requests: list[AnsweredRequest] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)

    @property
    def shape(self) -> tuple[Any, ...]:
        """What rows have in common that can be formatted together."""
        outputs = self.batch.outputs
        return (id(self.batch.manifest), *self.batch.columns, outputs.lower is None, outputs.probabilities is None)

    @property
    def place(self) -> slice | NDArray[np.int_]:
        """Where they stand in the arrays of the batch."""
        first, end = self.positions[0], self.positions[0] + len(self.positions)
        return slice(first, end) if self.positions == list(range(first, end)) else np.array(self.positions)

    def add(self, request: AnsweredRequest, first: int, end: int) -> None:
        """Add rows of a request, from one number to before another."""
        start = request.rows.start
        if end == first + 1:  # nearly always, and then in a third of the time
            self.requests.append(request)
            self.numbers.append(first)
            self.positions.append(start + first)
        else:
            self.requests.extend([request] * (end - first))
            self.numbers.extend(range(first, end))
            self.positions.extend(range(start + first, start + end))


def pieces(batch: AnsweredBatch, requests: Iterable[AnsweredRequest], size: int) -> Iterator[Rows]:
    """The rows of some requests of a batch: at least `size` at a time, and less than twice as many."""
    piece = Rows(batch)
    for request in requests:
        rows = request.rows.stop - request.rows.start
        first = 0
        while first < rows:
            end = min(first + size, rows)
            piece.add(request, first, end)
            first = end
            if len(piece.numbers) >= size:
                yield piece
                piece = Rows(batch)
    if piece.numbers:
        yield piece


def stretches(parts: Iterable[Rows], size: int) -> Iterator[list[Rows]]:
    """Rows to format together, about `size` of them: ten small batches at once take half the time of one by one."""
    stretch: list[Rows] = []
    rows = 0
    for part in parts:
        if stretch and (rows >= size or part.shape != stretch[0].shape):
            yield stretch
            stretch, rows = [], 0
        stretch.append(part)
        rows += len(part.numbers)
    if stretch:
        yield stretch


class Records:
    """Formats what one version answered.

    The lines are put together from the JSON of whole columns, which takes two thirds of the time of an object a row.

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
        self._templates: dict[tuple[Any, ...], bytes] = {}

    def lines(self, stretch: Sequence[Rows]) -> dict[str, list[bytes]]:
        """The lines of rows of one shape, by the day on which their request came (YYYY-MM-DD, in UTC)."""
        requests = [request for rows in stretch for request in rows.requests]
        moments = (np.array([request.received for request in requests]) * 1e6).astype("datetime64[us]")
        places = [rows.place for rows in stretch]
        inputs = [rows.batch.columns for rows in stretch]
        outputs = [rows.batch.outputs.columns for rows in stretch]
        names = tuple(name for name in self._logged if name in inputs[0])
        tokens = [
            in_json(moments.tolist(), IN_UTC),
            in_json([request.id for request in requests]),
            in_json([number for rows in stretch for number in rows.numbers]),
            in_json([request.protocol for request in requests]),
            *[in_json(self._read(name, gathered(name, inputs, places))) for name in names],
            *[in_json(gathered(name, outputs, places)) for name in outputs[0]],
            in_json([int(request.latency * 1e6) / 1e3 for request in requests]),
        ]
        template = self._template(names, stretch[0].batch.outputs)
        lines = [template % values for values in zip(*tokens, strict=True)]
        days = moments.astype("datetime64[D]")
        if days.min() == days.max():
            return {str(days[0]): lines}
        return {str(day): [lines[row] for row in np.flatnonzero(days == day)] for day in np.unique(days)}

    def _read(self, name: str, values: list[Any]) -> list[Any]:
        """A column as the log holds it."""
        if name in self._booleans:
            values = [*map(BOOLEANS.get, values)]
        return [*map(self._hash_of, values)] if name in self._hashed else values

    def _hash_of(self, value: Any) -> str | None:
        """The same for equal values, in every process that has the key."""
        if value is None or value != value:  # noqa: PLR0124  NaN
            return None
        text = value.isoformat() if isinstance(value, datetime) else label_text(value)
        state = self._hash.copy()
        state.update(text.encode(errors="surrogatepass"))
        return state.hexdigest()

    def _template(self, names: tuple[str, ...], outputs: Outputs) -> bytes:
        """A line with `%s` in place of each value."""
        shape = (names, outputs.lower is None, outputs.probabilities is None)
        if shape not in self._templates:
            answer: dict[str, Any] = {"prediction": BLANK}
            if outputs.lower is not None:
                answer |= {"lower": BLANK, "upper": BLANK}
            if outputs.probabilities is not None:
                answer["probabilities"] = {label_text(label): BLANK for label in outputs.classes}
            record = {
                "time": BLANK,
                "request_id": BLANK,
                "row": BLANK,
                "protocol": BLANK,
                "slot": self._slot,
                "model": self.manifest.name,
                "version": self.manifest.version,
                "semver": self.manifest.semver,
                "inputs": dict.fromkeys(names, BLANK),
                "outputs": answer,
                "latency_ms": BLANK,
            }
            self._templates[shape] = orjson.dumps(record).replace(b"%", b"%%").replace(NUL, b"%s") + b"\n"
        return self._templates[shape]


def gathered(name: str, tables: Sequence[Columns], places: Sequence[slice | NDArray[np.int_]]) -> list[Any]:
    """The values of one column in some rows of each table."""
    lists = [table[name][rows].tolist() for table, rows in zip(tables, places, strict=True)]
    return lists[0] if len(lists) == 1 else list(chain.from_iterable(lists))


def in_json(values: list[Any], option: int = 0) -> list[bytes]:
    """The JSON of each value; null for what is missing or not finite."""
    option |= orjson.OPT_SERIALIZE_NUMPY  # labels
    try:
        tokens = orjson.dumps(values, option=option)[1:-1].split(b",")
    except TypeError:  # half a surrogate pair, which a text of JSON may hold and UTF-8 may not
        values = [value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values]
        tokens = []
    # Without a comma in a text, which is nearly always, this has taken a tenth of the time of one by one.
    return tokens if len(tokens) == len(values) else [orjson.dumps(value, option=option) for value in values]
