"""One request of any protocol, and how a batch of them is answered at once.

A request reads its own bytes and writes its own answer, so that a batch knows of no protocol, and no byte is read or
written on the event loop.
"""

from abc import ABC, abstractmethod
from asyncio import BaseTransport
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from time import time
from typing import Any, ClassVar

import numpy as np

from model_name.core.schemas import Outputs
from model_name.core.schemas.columns import Columns
from model_name.core.schemas.decoding import RawValues
from model_name.errors import DataError, ModelNameError
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane, RawColumns, rows_to_columns
from model_name.serving.limits import Limits

FREE_CHUNK_ROWS = 4096

Payload = Any
"""What a protocol sends back: the bytes of a body, or a message of gRPC."""


@dataclass(frozen=True, slots=True)
class DecodedRequest:
    """What a request asks.

    Attributes:
        rows: The rows, where it came by row.
        table: The values by column, where it came by column.
        interval: The level of the prediction intervals, if they are asked for.
    """

    rows: Sequence[Any] | None = None
    table: RawColumns | None = None
    interval: float | None = None

    def columns(self, names: Sequence[str]) -> RawColumns:
        """The values by column; `names` is the order of the values of a row that is an array.

        Raises:
            DataError: The rows make no table.
        """
        return self.table if self.table is not None else rows_to_columns(self.rows or (), names)


class InferenceRequest(ABC):
    """One request.

    Attributes:
        protocol: Its name in metrics and in the prediction log.
        turns: Of the event loop, in which others may come that can be computed with it; a moment when it is idle.
        id: What it is called in the prediction log, and in the answer where the protocol has a place for it.
        size: Of its body, in bytes.
        received: When it came, in seconds since 1970.
        connection: Of the client, where it may go away unnoticed: the transport of HTTP.
    """

    protocol: ClassVar[str]
    gather_yields: ClassVar[int] = 2

    def __init__(self, id: str, size: int) -> None:  # noqa: A002  the protocols' word for it
        """Note when it came."""
        self.id = id
        self.size = size
        self.received_at = time()
        self.connection: BaseTransport | None = None

    @property
    def is_disconnected(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.connection is not None and self.connection.is_closing()

    @abstractmethod
    def decode(self, plane: DataPlane, limits: Limits) -> DecodedRequest:
        """What it asks.

        Raises:
            DataError: It is malformed.
        """

    @abstractmethod
    def encode(self, outputs: Outputs, manifest: Manifest) -> Payload:
        """The answer.

        Raises:
            DataError: It asks for an output that there is not.
        """


@dataclass(slots=True)
class BatchResult:
    """What became of a batch.

    Attributes:
        responses: One a request, in their order: the answer, or why there is none.
        groups: What was predicted together, for the prediction log.
    """

    responses: list[Payload | ModelNameError]
    groups: list["PredictedGroup"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PredictedGroup:
    """Requests of which all rows were predicted together.

    Attributes:
        requests: Whose rows they are.
        rows: Which rows each has.
        columns: The checked columns, and others of the schema that came with them.
        outputs: The answer to all rows.
    """

    requests: Sequence[InferenceRequest]
    rows: Sequence[slice]
    columns: Columns
    outputs: Outputs

    def select(self, number: int) -> "PredictedGroup":
        """One of its requests by itself."""
        part = self.rows[number]
        columns = {name: values[part] for name, values in self.columns.items()}
        return PredictedGroup([self.requests[number]], [slice(0, part.stop - part.start)], columns, self.outputs.take(part))


def infer_batch(plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> BatchResult:
    """Answer a batch. One that cannot be answered does not keep the others from their answers."""
    batch = InferenceBatch(plane, requests, limits)
    by_level: dict[float | None, list[int]] = {}
    for position, question in batch.decode().items():
        by_level.setdefault(question.interval, []).append(position)
    for level, positions in by_level.items():
        batch.predict(positions, level)
    batch.release()
    return batch.answered


class InferenceBatch:
    """Requests on their way to their answers."""

    def __init__(self, plane: DataPlane, requests: Sequence[InferenceRequest], limits: Limits) -> None:
        """Begin without any."""
        self.plane = plane
        self.requests = requests
        self.limits = limits
        self.decoded: dict[int, DecodedRequest] = {}
        self.answered = BatchResult([None] * len(requests))

    def decode(self) -> Mapping[int, DecodedRequest]:
        """What is asked, by the position of the request; those that cannot be read are refused."""
        for position, request in enumerate(self.requests):
            try:
                self.decoded[position] = request.decode(self.plane, self.limits)
            except ModelNameError as err:
                self.answered.responses[position] = err
        return self.decoded

    def predict(self, positions: Sequence[int], level: float | None) -> None:
        """Answer the requests at some positions together; where one of them is bad, by halves until it is alone."""
        plane = self.plane
        try:
            table, rows = _concatenate([self.decoded[position] for position in positions], plane)
            texts = {name: values for name, values in table.items() if name in plane.text_columns}
            self.limits.check_texts(texts, max(self.requests[position].size for position in positions))
            columns = plane.check(table)
            outputs = plane.predict_matrix(plane.featurize(columns), interval=level)
        except ModelNameError as err:
            if len(positions) == 1:
                self.answered.responses[positions[0]] = err
                return
            middle = len(positions) // 2
            self.predict(positions[:middle], level)
            self.predict(positions[middle:], level)
            return
        columns |= plane.extra_columns(table)
        if len(positions) == 1:
            _free_in_chunks(table.values())
        self.encode(positions, PredictedGroup([self.requests[position] for position in positions], rows, columns, outputs))

    def encode(self, positions: Sequence[int], group: PredictedGroup) -> None:
        """Write the answers; who gets none is not in the log either."""
        responses, manifest = self.answered.responses, self.plane.bundle.manifest
        answered = []
        for number, (position, part) in enumerate(zip(positions, group.rows, strict=True)):
            try:
                responses[position] = self.requests[position].encode(group.outputs.take(part), manifest)
                answered.append(number)
            except DataError as err:
                responses[position] = err
        is_whole = len(answered) == len(positions)
        self.answered.groups += [group] if is_whole else [group.select(number) for number in answered]

    def release(self) -> None:
        """Free what was read."""
        for position, question in self.decoded.items():
            if self.requests[position].size > FREE_CHUNK_ROWS:  # no value takes less than a byte
                _free_in_chunks([question.rows, *(question.table or {}).values()])


def _concatenate(decoded: Sequence[DecodedRequest], plane: DataPlane) -> tuple[RawColumns, list[slice]]:
    """The rows of several requests as one table, and which of them are whose.

    Raises:
        DataError: The rows of one of them make no table.
    """
    if all(question.rows is not None for question in decoded):
        rows = [question.rows or () for question in decoded]
        return rows_to_columns(list(chain.from_iterable(rows)) if len(rows) > 1 else rows[0], plane.inputs), _row_slices(rows)
    tables = [question.columns(plane.inputs) for question in decoded]
    for table in tables:
        if table.keys() != plane.names:
            plane.schema.check_names(table)
    lengths = [len(next(iter(table.values()), ())) for table in tables]
    if len(tables) == 1:
        return tables[0], [slice(0, lengths[0])]
    for table, length in zip(tables, lengths, strict=True):
        if not plane.names <= table.keys() or any(len(values) != length for values in table.values()):
            raise DataError("a tensor of one request is missing or differs in length")  # each alone is told which
    if all(table.keys() == plane.names for table in tables):
        joined = {name: _concatenate_column([table[name] for table in tables]) for name in plane.inputs}
        return joined, _row_slices(list(map(range, lengths)))
    names = dict.fromkeys(chain.from_iterable(tables))
    joined = {
        name: [*chain.from_iterable(_column_or_nulls(table.get(name), n) for table, n in zip(tables, lengths, strict=True))]
        for name in names
    }
    return joined, _row_slices(list(map(range, lengths)))


def _concatenate_column(many: Sequence[RawValues]) -> RawValues:
    """The values of one column of several requests."""
    first = many[0]
    if isinstance(first, np.ndarray) and all(isinstance(one, np.ndarray) and one.dtype == first.dtype for one in many):
        return np.concatenate(many)
    return [*chain.from_iterable(map(_to_list, many))]


def _free_in_chunks(many: Iterable[Any]) -> None:
    """Free long lists piece by piece: all at once would hold the interpreter for a tenth of a second."""
    for values in many:
        if isinstance(values, list) and len(values) > FREE_CHUNK_ROWS:
            while values:
                del values[-FREE_CHUNK_ROWS:]


def _column_or_nulls(values: RawValues | None, length: int) -> Sequence[Any]:
    """The values of one column as Python has them; none where a request leaves out a column that it may."""
    return [None] * length if values is None else _to_list(values)


def _to_list(values: RawValues) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _row_slices(rows: Sequence[Sequence[Any]]) -> list[slice]:
    ends = accumulate(map(len, rows))
    return [slice(end - len(part), end) for end, part in zip(ends, rows, strict=True)]
