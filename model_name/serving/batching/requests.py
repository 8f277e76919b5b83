"""Requests of any protocol, and how a batch of them is inferred together.

A request decodes its own body and encodes its own response, so that a batch depends on no protocol, and no body is
decoded or encoded on the event loop unless the whole batch runs there.
"""

from abc import ABC, abstractmethod
from asyncio import BaseTransport
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from time import monotonic, time
from typing import Any, ClassVar, NamedTuple

import numpy as np

from model_name.core.features import Matrix
from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import Columns
from model_name.core.schemas.decoding import RawValues
from model_name.core.schemas.row_validation import TypedRow, as_columns
from model_name.errors import DataError, ModelNameError
from model_name.serving.batching.request_trace import RequestTrace
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane, RawColumns, rows_to_columns
from model_name.serving.limits import Limits
from model_name.serving.runtime.memory import FREE_CHUNK_ROWS, free_in_chunks

MAX_SINGLE_ROWS = 16  # of a batch that is validated and transformed row by row; for more, numpy takes less time

Payload = Any
"""Encoded response, depending on the protocol: bytes of an HTTP body, a serialized message, an event or a record."""


class DecodedRequest(NamedTuple):
    """Content of a request, by row or by column.

    Attributes:
        rows: Rows as objects or as arrays in the order of the inputs; None if the request came by column.
        table: Raw values by column; None if the request came by row.
        interval: Level of the prediction intervals; None if none are requested.
        id: Id that a fast decoder found in the body; empty if there is none.
    """

    rows: Sequence[Any] | None = None
    table: RawColumns | None = None
    interval: float | None = None
    id: str = ""

    def to_columns(self, names: Sequence[str]) -> RawColumns:
        """Convert the content to raw values by column.

        Args:
            names: Names of the inputs, in the order of the values of a row that is an array.

        Raises:
            DataError: A row lacks a column, has an extra one, or is neither an object nor an array.
        """
        return self.table if self.table is not None else rows_to_columns(self.rows or (), names)


class InferenceRequest(ABC):
    """A request of one protocol.

    Attributes:
        protocol: Label of the protocol in the metrics and in the prediction log.
        gather_yields: Number of iterations of the event loop before the batch starts, so that requests that are being
            received join it; an iteration of an idle loop takes microseconds.
        id: Id in the prediction log, and in the response where the protocol has a place for it.
        size: Size of the body in bytes.
        received_at: Time at which the request was received, in Unix seconds, for the log.
        pending_since: The same by `monotonic`, for durations: the clock of the system may jump.
        connection: HTTP transport of the client, which may disconnect unnoticed; None for other protocols.
        trace_id: Id of the trace in the prediction log, in hexadecimal digits; empty if the request is not traced.
        trace: Trace that the batch fills in; None if this server does not trace.
    """

    protocol: ClassVar[str]
    gather_yields: ClassVar[int] = 2
    trace_id: str = ""
    trace: RequestTrace | None = None

    def __init__(self, id: str, size: int) -> None:  # noqa: A002  the protocols' word for it
        """Record the time at which the request was received."""
        self.id = id
        self.size = size
        self.received_at = time()
        self.pending_since = monotonic()
        self.connection: BaseTransport | None = None

    @property
    def is_disconnected(self) -> bool:
        """Whether the client has closed its connection."""
        return self.connection is not None and self.connection.is_closing()

    @abstractmethod
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        """Decode the body: by a fast decoder if the protocol has one and it applies, in full otherwise.

        Raises:
            DataError: The body is malformed or exceeds a limit.
        """

    @abstractmethod
    def encode(self, outputs: Outputs, manifest: Manifest) -> Payload:
        """Encode the response.

        Args:
            outputs: Outputs of the rows of this request.
            manifest: Manifest of the model that predicted them.

        Raises:
            DataError: The request names an output that the model does not have.
        """


@dataclass(slots=True)
class BatchResult:
    """Responses to a batch.

    Attributes:
        responses: Encoded response or error of each request, in the order of the batch.
        groups: Requests whose rows were predicted together, for the prediction log; failed requests are in none.
        decode_seconds: Time for which requests were decoded.
        encode_seconds: Time for which responses were encoded.
    """

    responses: list[Payload | ModelNameError]
    groups: list["PredictedGroup"] = field(default_factory=list)
    decode_seconds: float = 0.0
    encode_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PredictedGroup:
    """Requests of which all rows were predicted together.

    Attributes:
        requests: Requests of the group.
        rows: Rows of each request in the inputs and outputs.
        inputs: Typed inputs of all rows, and other columns of the schema that came with them; by row if there are few.
        outputs: Outputs of all rows.
    """

    requests: Sequence[InferenceRequest]
    rows: Sequence[slice]
    inputs: Columns | Sequence[TypedRow]
    outputs: Outputs

    @property
    def columns(self) -> Columns:
        """Inputs by column; converted at each access if they are by row."""
        return as_columns(self.inputs)

    def select(self, number: int) -> "PredictedGroup":
        """Create a group of a single request, given its position in this group."""
        part = self.rows[number]
        columns = {name: values[part] for name, values in self.columns.items()}
        rows = [slice(0, part.stop - part.start)]
        return PredictedGroup([self.requests[number]], rows, columns, self.outputs.take(part))


def infer_batch(
    plane: DataPlane,
    requests: Sequence[InferenceRequest],
    limits: Limits,
    batch_type: type["InferenceBatch"] | None = None,
) -> BatchResult:
    """Decode, predict and encode a batch. An invalid request gets its error and does not affect the others.

    Args:
        plane: Data plane that predicts.
        requests: Requests of the batch.
        limits: Limits of one request.
        batch_type: Class of the batch; `InferenceBatch` by default.
    """
    batch = (batch_type or InferenceBatch)(plane, requests, limits)
    by_level: dict[float | None, list[int]] = {}
    started = monotonic()
    all_decoded = batch.decode()
    batch.result.decode_seconds = monotonic() - started
    for position, decoded in all_decoded.items():
        by_level.setdefault(decoded.interval, []).append(position)
    for level, positions in by_level.items():
        batch.predict(positions, level)
    batch.release()
    return batch.result


class PreparedRows(NamedTuple):
    """Rows of some requests, ready to be predicted.

    Attributes:
        table: Raw values by column.
        rows: Rows of each request in the table.
        columns: Typed inputs.
        matrix: Features.
    """

    table: RawColumns
    rows: list[slice]
    columns: Columns
    matrix: Matrix


class InferenceBatch:
    """A batch of requests while it is inferred.

    Attributes:
        decoded: Content of each valid request, by its position in the batch.
        result: Responses so far.
    """

    def __init__(self, plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> None:
        """Start without responses."""
        self.plane = plane
        self.requests = requests
        self.limits = limits
        self.decoded: dict[int, DecodedRequest] = {}
        self.result = BatchResult([None] * len(requests))

    def decode(self) -> Mapping[int, DecodedRequest]:
        """Decode each request; one that cannot be decoded gets its error as response."""
        for position, request in enumerate(self.requests):
            try:
                self.decoded[position] = request.decode(self.plane, self.limits)
            except ModelNameError as err:
                self.result.responses[position] = err
        return self.decoded

    def predict(self, positions: Sequence[int], level: float | None) -> None:
        """Predict the requests at some positions together; if some are invalid, predict the others together.

        Each request is validated alone at most once, however many of them are invalid.

        Args:
            positions: Positions of decoded requests in the batch.
            level: Level of their prediction intervals.
        """
        if not self._try_predict(positions, level):
            valid = [position for position in positions if self._is_valid(position)]
            if len(valid) < len(positions) and (not valid or self._try_predict(valid, level)):
                return
            for position in valid:  # the reason is one of all requests, such as the level of the intervals
                self._try_predict([position], level)

    def _try_predict(self, positions: Sequence[int], level: float | None) -> bool:
        """Predict requests together, and return whether they have their responses; a single one always has."""
        plane = self.plane
        if level is None and self._predict_rows(positions):
            return True
        try:
            prepared = self._prepare(positions)
            outputs = plane.predict_matrix(prepared.matrix, interval=level)
        except ModelNameError as err:
            if len(positions) == 1:
                self.result.responses[positions[0]] = err
            return len(positions) == 1
        table = prepared.table
        columns = prepared.columns
        columns.update(plane.extra_columns(table))  # in place, because `|` would return a dict without the matrix
        if len(positions) == 1:
            free_in_chunks(table.values())
        group = PredictedGroup([self.requests[position] for position in positions], prepared.rows, columns, outputs)
        self.encode(positions, group)
        return True

    def _is_valid(self, position: int) -> bool:
        """Validate a request alone; one that is invalid gets its error as response."""
        try:
            self._prepare([position])
        except ModelNameError as err:
            self.result.responses[position] = err
            return False
        return True

    def _prepare(self, positions: Sequence[int]) -> PreparedRows:
        """Validate requests together and transform their columns to features.

        Raises:
            DataError: A request is invalid.
        """
        plane = self.plane
        table, rows = _concatenate([self.decoded[position] for position in positions], plane)
        texts = {name: values for name, values in table.items() if name in plane.text_columns}
        self.limits.check_texts(texts, max(self.requests[position].size for position in positions))
        columns = plane.check(table)
        return PreparedRows(table, rows, columns, plane.featurize(columns))

    def _predict_rows(self, positions: Sequence[int]) -> bool:
        """Predict requests with a few rows in all, row by row; return False if they must be predicted by column.

        The fast path of `predict`.
        """
        rows: list[Sequence[Any]] = []
        for position in positions:
            decoded = self.decoded[position].rows
            if decoded is None or len(rows) + len(decoded) > MAX_SINGLE_ROWS:
                return False
            if self.requests[position].size > self.limits.text_length:  # a text may be too long
                return False
            rows += decoded
        plane = self.plane
        if (encoded := plane.try_encode_rows(rows)) is None:
            return False
        outputs = plane.predict_matrix(encoded.matrix)
        slices = _row_slices([self.decoded[position].rows or () for position in positions])
        requests = [self.requests[position] for position in positions]
        self.encode(positions, PredictedGroup(requests, slices, encoded.typed_rows, outputs))
        return True

    def encode(self, positions: Sequence[int], group: PredictedGroup) -> None:
        """Encode the responses of a group; a request whose response cannot be encoded is left out of the log."""
        started = monotonic()
        responses, manifest = self.result.responses, self.plane.bundle.manifest
        encoded = []
        for number, (position, part) in enumerate(zip(positions, group.rows, strict=True)):
            try:
                responses[position] = self.requests[position].encode(group.outputs.take(part), manifest)
                encoded.append(number)
            except DataError as err:
                responses[position] = err
        is_complete = len(encoded) == len(positions)
        self.result.groups += [group] if is_complete else [group.select(number) for number in encoded]
        self.result.encode_seconds += monotonic() - started

    def release(self) -> None:
        """Free the decoded values of large requests."""
        for position, decoded in self.decoded.items():
            if self.requests[position].size > FREE_CHUNK_ROWS:  # no value takes less than a byte
                free_in_chunks([decoded.rows, *(decoded.table or {}).values()])


def _concatenate(decoded: Sequence[DecodedRequest], plane: DataPlane) -> tuple[RawColumns, list[slice]]:
    """Concatenate the rows of several requests.

    Returns:
        Raw values by column, and the rows of each request in them.

    Raises:
        DataError: The rows of a request cannot be transposed, or a column of it is missing or differs in length.
    """
    if all(request.rows is not None for request in decoded):
        rows = [request.rows or () for request in decoded]
        all_rows = list(chain.from_iterable(rows)) if len(rows) > 1 else rows[0]
        return rows_to_columns(all_rows, plane.inputs), _row_slices(rows)
    tables = [request.to_columns(plane.inputs) for request in decoded]
    for table in tables:
        if table.keys() != plane.names:
            plane.schema.check_names(table)
    lengths = [len(next(iter(table.values()), ())) for table in tables]
    if len(tables) == 1:
        return tables[0], [slice(0, lengths[0])]
    for table, length in zip(tables, lengths, strict=True):
        if not plane.names <= table.keys() or any(len(values) != length for values in table.values()):
            # The requests are predicted again one by one, and the schema then names the column.
            raise DataError("a tensor of one request is missing or differs in length")
    slices = _row_slices(list(map(range, lengths)))
    if all(table.keys() == plane.names for table in tables):
        return {name: _concatenate_column([table[name] for table in tables]) for name in plane.inputs}, slices
    names = dict.fromkeys(chain.from_iterable(tables))
    return {
        name: [
            *chain.from_iterable(
                _column_or_nulls(table.get(name), length) for table, length in zip(tables, lengths, strict=True)
            )
        ]
        for name in names
    }, slices


def _concatenate_column(parts: Sequence[RawValues]) -> RawValues:
    first = parts[0]
    if isinstance(first, np.ndarray) and all(
        isinstance(part, np.ndarray) and part.dtype == first.dtype for part in parts
    ):
        return np.concatenate(parts)
    return [*chain.from_iterable(map(_to_list, parts))]


def _column_or_nulls(values: RawValues | None, length: int) -> Sequence[Any]:
    """Convert a column to Python values; nulls if the request omits an optional column."""
    return [None] * length if values is None else _to_list(values)


def _to_list(values: RawValues) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _row_slices(rows: Sequence[Sequence[Any]]) -> list[slice]:
    """Compute which rows of the concatenated table belong to each request."""
    ends = accumulate(map(len, rows))
    return [slice(end - len(part), end) for end, part in zip(ends, rows, strict=True)]
