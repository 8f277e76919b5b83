"""Blocks of logged rows: small batches are copied into a block when they are logged, large ones are divided later.

A block holds its rows as one array or list per column. The copy takes microseconds, while the values are still in the
cache of the processor; to keep the arrays of each batch, and to concatenate and free them later, takes several times as
long and as much memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter, itemgetter
from struct import Struct
from struct import error as StructError  # noqa: N812  of a class
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import Columns, MatrixColumns
from model_name.core.schemas.row_validation import TypedRow, as_columns
from model_name.serving.bundle import Manifest

MAX_BLOCK_ROWS = 2048  # formatted at a time, in some milliseconds
MAX_BATCH_SHARE = 0.25  # of the rows of a block: copying more would delay other requests
MAX_BLOCK_BYTES = 2**20  # of the values of a block: wide tables have fewer rows in a block
VALUE_BYTES = 8
REQUEST_BYTES = 250  # of the id, the time and the references of a request

get_size = attrgetter("size")

Values = list[Any] | NDArray[Any]
"""Values of a column: texts, labels and datetimes in a list, numbers in an array."""
RequestRecord = tuple[str, str, str, float]
"""Id, id of the trace, protocol, and time in Unix seconds of a request."""


class LoggedRequest(Protocol):
    """Properties of a request that are logged.

    Attributes:
        id: Id that the client or the server gave to the request.
        trace_id: Id of the trace; empty if the request is not traced.
        protocol: Label of the protocol, such as `v1`, `v2`, `grpc` or `cloudevents`.
        received_at: Time at which the request was received, in Unix seconds.
        pending_since: The same on the monotonic clock.
        size: Size of the body in bytes, which bounds the memory of the texts.
    """

    @property
    def id(self) -> str: ...  # noqa: D102  described above
    @property
    def trace_id(self) -> str: ...  # noqa: D102
    @property
    def protocol(self) -> str: ...  # noqa: D102
    @property
    def received_at(self) -> float: ...  # noqa: D102
    @property
    def pending_since(self) -> float: ...  # noqa: D102
    @property
    def size(self) -> int: ...  # noqa: D102


class LoggedBatch(NamedTuple):
    """Requests that were predicted together.

    Attributes:
        manifest: Manifest of the bundle that predicted.
        requests: Requests of the batch.
        rows: Rows of each request in the inputs and outputs; each request has at least one.
        inputs: Validated, typed inputs of all rows, by column, or by row if there are few.
        outputs: Outputs of all rows.
        finished_at: Time at which the responses were ready, on the monotonic clock.
    """

    manifest: Manifest
    requests: Sequence[LoggedRequest]
    rows: Sequence[slice]
    inputs: Columns | Sequence[TypedRow]
    outputs: Outputs
    finished_at: float

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return [*self.inputs] if isinstance(self.inputs, dict) else [*self.inputs[0]]

    @property
    def layout(self) -> tuple[Any, ...]:
        """Properties that batches must share to be in one block: version, columns and outputs."""
        outputs = self.outputs
        return (id(self.manifest), *self.names, outputs.lower is None, outputs.probabilities is None)


@dataclass(frozen=True, slots=True)
class BlockRequests:
    """Requests of a block.

    Attributes:
        records: Id, id of the trace, protocol, and time in Unix seconds of each request.
        latencies: Times from there until the responses were ready, in seconds.
        weights: Inverses of the probabilities with which the requests were sampled.
        first_rows: Numbers of the first row in the block within the request; above 0 only if it began in another block.
        row_counts: Numbers of rows in the block.
    """

    records: Sequence[RequestRecord]
    latencies: NDArray[np.float64]
    weights: NDArray[np.float64]
    first_rows: NDArray[np.int_]
    row_counts: NDArray[np.int_]

    def select(self, is_selected: NDArray[np.bool_]) -> "BlockRequests":
        """Select some of the requests."""
        return BlockRequests(
            [self.records[position] for position in np.flatnonzero(is_selected).tolist()],
            self.latencies[is_selected],
            self.weights[is_selected],
            self.first_rows[is_selected],
            self.row_counts[is_selected],
        )


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one version with the same columns and outputs.

    Attributes:
        manifest: Manifest of the bundle that predicted.
        requests: Properties of the requests.
        inputs: Values by column.
        outputs: Values by output: `prediction`, and what there is of `lower`, `upper` and `probabilities`; these are a
            matrix with a column per label.
        classes: Labels of a classification.
        rows: Number of rows.
    """

    manifest: Manifest
    requests: BlockRequests
    inputs: Mapping[str, Values]
    outputs: Mapping[str, Values]
    classes: Sequence[Any]
    rows: int

    @property
    def capacity(self) -> int:
        """Number of rows that a block of these columns can have."""
        return block_capacity(len(self.inputs))

    def select(self, is_selected: NDArray[np.bool_]) -> "Block":
        """Create a block of some of the requests.

        Args:
            is_selected: Whether a request is selected, for each request.
        """
        rows = np.flatnonzero(np.repeat(is_selected, self.requests.row_counts))

        def take(values: Values) -> Values:
            return [values[row] for row in rows.tolist()] if isinstance(values, list) else values[rows]

        return Block(
            self.manifest,
            self.requests.select(is_selected),
            {name: take(values) for name, values in self.inputs.items()},
            {name: take(values) for name, values in self.outputs.items()},
            self.classes,
            len(rows),
        )


class BlockBuilder:
    """A block to which small batches are appended. Not thread-safe.

    Attributes:
        rows: Number of rows.
        capacity: Maximum number of rows.
        max_batch_rows: Maximum number of rows of a batch.
        memory_bytes: Estimate of the memory, rather too high than too low.
        started_at: Time of the first rows, on the monotonic clock.
    """

    def __init__(self, batch: LoggedBatch, started_at: float) -> None:
        """Reserve memory for rows of the layout of a batch."""
        inputs, outputs = batch.inputs, list_outputs(batch.outputs)
        self._names = batch.names
        self.rows = 0
        self.started_at = started_at
        self.capacity = block_capacity(len(self._names))
        self.max_batch_rows = max_batch_rows(len(self._names))
        self.memory_bytes = VALUE_BYTES * (len(self._names) + len(outputs)) * self.capacity
        self._manifest = batch.manifest
        self._classes = batch.outputs.classes
        self._error: ValueError | None = None
        self._requests: list[RequestRecord] = []
        self._pending_since: list[float] = []
        self._row_counts: list[int] = []
        self._batches: list[tuple[int, float, float]] = []  # number of requests, end and weight
        # The numbers of a row are in one place, so that they can be copied at once from a row or from many.
        self._matrix_names = list_numbers(inputs)
        self._matrix = np.empty((self.capacity, len(self._matrix_names)))
        self._other_names = [name for name in self._names if name not in self._matrix_names]
        self._inputs: dict[str, Values] = dict(zip(self._matrix_names, self._matrix.T, strict=True))
        self._inputs |= {
            name: make_target(inputs[name], self.capacity) if isinstance(inputs, dict) else []
            for name in self._other_names
        }
        self._outputs = {name: make_target(values, self.capacity) for name, values in outputs.items()}
        self._output_names = [*self._outputs]
        self._has_texts = any(isinstance(target, list) for target in self._inputs.values())
        self._row_struct = Struct(f"{len(self._matrix_names)}d")
        self._get_numbers = itemgetter(*self._matrix_names) if len(self._matrix_names) > 1 else None

    def fits(self, batch: LoggedBatch, rows: int) -> bool:
        """Report whether some rows of a batch can be appended: there is room, and they have the layout of the block."""
        outputs = batch.outputs
        return (
            rows <= self.max_batch_rows
            and self.rows + rows <= self.capacity
            and batch.manifest is self._manifest
            and batch.names == self._names
            and (outputs.lower is None) != ("lower" in self._outputs)
            and (outputs.probabilities is None) != ("probabilities" in self._outputs)
        )

    def append(self, batch: LoggedBatch, requests: Sequence[int] | None, weight: float) -> None:
        """Copy rows of a batch of the same layout.

        Args:
            batch: Batch that fits.
            requests: Positions of the sampled requests; None for all.
            weight: Inverse of the probability with which they were sampled.
        """
        sampled, spans, index = batch.requests, batch.rows, None
        if requests is not None:
            sampled, spans = [sampled[request] for request in requests], [spans[request] for request in requests]
            index = np.array([*chain.from_iterable(range(rows.start, rows.stop) for rows in spans)])
        count = len(sampled)
        self._requests += [(each.id, each.trace_id, each.protocol, each.received_at) for each in sampled]
        self._pending_since += [each.pending_since for each in sampled]
        self._batches.append((count, batch.finished_at, weight))
        rows = len(batch.outputs.prediction) if index is None else len(index)
        # Every request has a row: if there are as many rows as requests, each has one.
        self._row_counts += [1] * count if count == rows else [part.stop - part.start for part in spans]
        start = self.rows
        self.rows = end = start + rows
        self.memory_bytes += count * REQUEST_BYTES
        if self._has_texts:
            self.memory_bytes += sum(map(get_size, sampled))
        try:
            self._copy(batch, index, start, end)
        except ValueError as err:
            self._error = err

    def trim(self) -> None:
        """Return the memory that is reserved for further rows."""
        self.memory_bytes -= VALUE_BYTES * (len(self._names) + len(self._outputs)) * (self.capacity - self.rows)
        self.capacity = self.rows
        self._matrix = self._matrix[: self.rows].copy()
        self._inputs |= zip(self._matrix_names, self._matrix.T, strict=True)
        self._inputs = {name: trim_values(values, self.rows) for name, values in self._inputs.items()}
        self._outputs = {name: trim_values(values, self.rows) for name, values in self._outputs.items()}

    def build(self) -> Iterator[Block]:
        """Yield the block. Nothing may be appended afterwards.

        Raises:
            ValueError: A column has another number of values than there are rows.
        """
        if self._error is not None:
            raise self._error
        counts, finished_at, weights = zip(*self._batches, strict=True)
        requests = BlockRequests(
            self._requests,
            np.repeat(finished_at, counts) - np.array(self._pending_since),
            np.repeat(weights, counts),
            np.zeros(len(self._requests), dtype=np.int_),
            np.array(self._row_counts),
        )
        matrix = np.ascontiguousarray(self._matrix[: self.rows].T)
        inputs: dict[str, Values] = dict(zip(self._matrix_names, matrix, strict=True))
        inputs |= {name: take_rows(self._inputs[name], self.rows) for name in self._other_names}
        outputs = {name: take_rows(values, self.rows) for name, values in self._outputs.items()}
        yield Block(self._manifest, requests, inputs, outputs, self._classes, self.rows)

    def _copy(self, batch: LoggedBatch, index: NDArray[np.int_] | None, start: int, end: int) -> None:
        """Copy rows of the columns and outputs.

        Raises:
            ValueError: A column has another number of values than there are rows.
        """
        inputs, names = batch.inputs, self._names
        if not isinstance(inputs, dict):
            self._copy_rows(inputs if index is None else [inputs[row] for row in index.tolist()], start)
        else:
            if isinstance(inputs, MatrixColumns) and inputs.names == self._matrix_names:
                matrix = inputs.matrix.T
                self._matrix[start:end] = matrix if index is None else matrix[index]
                names = self._other_names
            for name in names:
                copy_values(inputs[name], index, self._inputs[name], start, end)
        outputs = batch.outputs
        for name in self._output_names:
            copy_values(getattr(outputs, name), index, self._outputs[name], start, end)

    def _copy_rows(self, rows: Sequence[TypedRow], start: int) -> None:
        """Copy inputs by row.

        Raises:
            ValueError: A row lacks a column.
        """
        try:
            if self._get_numbers is not None:
                pack_into, memory = self._row_struct.pack_into, self._matrix.data.cast("B")
                position, size = start * self._row_struct.size, self._row_struct.size
                for row in rows:
                    pack_into(memory, position, *self._get_numbers(row))
                    position += size
            else:
                for name in self._matrix_names:
                    self._matrix[start : start + len(rows), 0] = [row[name] for row in rows]
            for name in self._other_names:
                target = self._inputs[name]
                values = [row[name] for row in rows]
                if isinstance(target, list):
                    target += values
                else:
                    target[start : start + len(rows)] = values
        except (KeyError, StructError) as err:
            raise ValueError("the rows of a batch have different columns") from err


@dataclass(frozen=True, slots=True)
class LargeBatch:
    """A batch that is divided into blocks when it is formatted.

    Attributes:
        batch: Batch with inputs by column, and without the bodies of its requests.
        requests: Positions of the sampled requests; None for all.
        weight: Inverse of the probability with which they were sampled.
        rows: Number of rows of these requests.
        started_at: Time at which it was logged, on the monotonic clock.
    """

    batch: LoggedBatch
    requests: Sequence[int] | None
    weight: float
    rows: int
    started_at: float

    @property
    def memory_bytes(self) -> int:
        """Estimate of the memory of the whole batch, rather too high than too low."""
        batch = self.batch
        values = VALUE_BYTES * (len(batch.inputs) + 1) * len(batch.outputs.prediction)
        bodies: int = sum(map(get_size, batch.requests))
        return values + REQUEST_BYTES * len(batch.requests) + bodies

    def build(self) -> Iterator[Block]:
        """Divide the rows into blocks, in their order.

        Raises:
            ValueError: A column has another number of values than there are rows.
        """
        capacity = block_capacity(len(self.batch.names))
        spans: list[RowSpan] = []
        room = capacity
        for request in range(len(self.batch.rows)) if self.requests is None else self.requests:
            rows = self.batch.rows[request]
            start = rows.start
            while start < rows.stop:
                end = min(start + room, rows.stop)
                spans.append(RowSpan(request, start, end))
                room -= end - start
                start = end
                if not room:
                    yield self._make_block(spans)
                    spans, room = [], capacity
        if spans:
            yield self._make_block(spans)

    def _make_block(self, spans: Sequence["RowSpan"]) -> Block:
        batch = self.batch
        requests = [batch.requests[span.request] for span in spans]
        counts = np.array([span.end - span.start for span in spans])
        block_requests = BlockRequests(
            [(each.id, each.trace_id, each.protocol, each.received_at) for each in requests],
            batch.finished_at - np.array([each.pending_since for each in requests]),
            np.repeat(self.weight, len(spans)),
            np.array([span.start - batch.rows[span.request].start for span in spans]),
            counts,
        )
        rows = int(counts.sum())
        index: NDArray[np.int_] | slice = slice(spans[0].start, spans[-1].end)
        if spans[-1].end - spans[0].start != rows:
            index = np.concatenate([np.arange(span.start, span.end) for span in spans])

        def take(values: NDArray[Any]) -> Values:
            part = values[index]
            return take_rows(part.tolist() if is_listed(part) else np.ascontiguousarray(part), rows)

        return Block(
            batch.manifest,
            block_requests,
            {name: take(values) for name, values in as_columns(batch.inputs).items()},
            {name: take(values) for name, values in list_outputs(batch.outputs).items()},
            batch.outputs.classes,
            rows,
        )


class RowSpan(NamedTuple):
    """Rows of one request in a block.

    Attributes:
        request: Position of the request in the batch.
        start: Position of the first row in the arrays of the batch.
        end: Position after the last row.
    """

    request: int
    start: int
    end: int


class RequestProperties(NamedTuple):
    """Properties of a request without its body; `LoggedRequest` describes them."""

    id: str
    trace_id: str
    protocol: str
    received_at: float
    pending_since: float
    size: int


def detach_bodies(batch: LoggedBatch) -> LoggedBatch:
    """Replace the requests of a batch by their properties, and inputs by row by columns."""
    get_properties = attrgetter(*RequestProperties._fields)
    requests = [RequestProperties(*get_properties(request)) for request in batch.requests]
    return batch._replace(requests=requests, inputs=as_columns(batch.inputs))


def list_numbers(inputs: Columns | Sequence[TypedRow]) -> list[str]:
    """List the names of the columns of numbers and booleans that can be copied at once."""
    if isinstance(inputs, MatrixColumns):
        return [*inputs.names]
    if isinstance(inputs, dict):
        return [name for name, values in inputs.items() if values.dtype == np.float64]
    return [name for name, value in inputs[0].items() if type(value) is float]


def block_capacity(columns: int) -> int:
    """Compute the maximum number of rows of a block."""
    return max(1, min(MAX_BLOCK_ROWS, MAX_BLOCK_BYTES // (VALUE_BYTES * (columns + 1))))


def max_batch_rows(columns: int) -> int:
    """Compute the number of rows up to which those of a batch are copied into a block."""
    return max(1, int(block_capacity(columns) * MAX_BATCH_SHARE))


def list_outputs(outputs: Outputs) -> dict[str, NDArray[Any]]:
    """List the outputs that there are, by name."""
    arrays = {"prediction": outputs.prediction}
    if outputs.lower is not None:
        arrays["lower"] = outputs.lower
    if outputs.upper is not None:
        arrays["upper"] = outputs.upper
    if outputs.probabilities is not None:
        arrays["probabilities"] = outputs.probabilities
    return arrays


def is_listed(values: NDArray[Any]) -> bool:
    """Report whether a block has the values of an array in a list."""
    return values.dtype.kind in "OM"


def make_target(values: NDArray[Any], capacity: int) -> Values:
    """Reserve memory for the values of a block: a list for texts, labels and datetimes, an array for numbers."""
    return [] if is_listed(values) else np.empty((capacity, *values.shape[1:]), dtype=values.dtype)


def copy_values(values: NDArray[Any], index: NDArray[np.int_] | None, target: Values, start: int, end: int) -> None:
    """Copy values to some rows of a block: those at some positions, or all.

    Raises:
        ValueError: The number of values is not that of the rows.
    """
    if index is not None:
        values = values[index]
    if isinstance(target, list):
        target += values.tolist()
    else:
        target[start:end] = values


def trim_values(values: Values, rows: int) -> Values:
    """Copy the first rows of an array to an array of its own; return a list as it is."""
    return values if isinstance(values, list) else values[:rows].copy()


def take_rows(values: Values, rows: int) -> Values:
    """Take the first rows of a column.

    Raises:
        ValueError: The number of values is too small, or that of a list too large.
    """
    taken = values if isinstance(values, list) else values[:rows]
    if len(taken) != rows:
        raise ValueError(f"{rows} rows have {len(taken)} values")
    return taken
