"""One request of any protocol, and how a batch of them is answered at once.

A request reads its own bytes and writes its own answer, so that a batch knows of no protocol, and no byte is read or
written on the event loop.
"""

from abc import ABC, abstractmethod
from asyncio import BaseTransport
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain
from time import time
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from model_name.core.columns import Columns
from model_name.core.schemas import Outputs
from model_name.errors import DataError, ModelNameError
from model_name.serving.bundle import Manifest
from model_name.serving.dataplane import DataPlane, Table, by_column
from model_name.serving.limits import Limits

Reply = Any
"""What a protocol sends back: the bytes of a body, or a message of gRPC."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a request asks.

    Attributes:
        rows: The rows, where it came by row.
        table: The values by column, where it came by column.
        interval: The level of the prediction intervals, if they are asked for.
    """

    rows: Sequence[Any] | None = None
    table: Table | None = None
    interval: float | None = None

    def columns(self, names: Sequence[str]) -> Table:
        """The values by column; `names` is the order of the values of a row that is an array.

        Raises:
            DataError: The rows make no table.
        """
        return self.table if self.table is not None else by_column(self.rows or (), names)


class Request(ABC):
    """One request.

    Attributes:
        protocol: Its name in metrics and in the prediction log.
        id: What it is called in the prediction log, and in the answer where the protocol has a place for it.
        size: Of its body, in bytes.
        received: When it came, in seconds since 1970.
        connection: Of the client, where it may go away unnoticed: the transport of HTTP.
    """

    protocol: ClassVar[str]

    def __init__(self, id: str, size: int) -> None:  # noqa: A002  the protocols' word for it
        """Note when it came."""
        self.id = id
        self.size = size
        self.received = time()
        self.connection: BaseTransport | None = None

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.connection is not None and self.connection.is_closing()

    @abstractmethod
    def read(self, plane: DataPlane, limits: Limits) -> Question:
        """What it asks.

        Raises:
            DataError: It is malformed.
        """

    @abstractmethod
    def write(self, outputs: Outputs, manifest: Manifest) -> Reply:
        """The answer.

        Raises:
            DataError: It asks for an output that there is not.
        """


@dataclass(slots=True)
class Answered:
    """What became of a batch.

    Attributes:
        replies: One a request, in their order: the answer, or why there is none.
        groups: What was predicted together, for the prediction log.
    """

    replies: list[Reply | ModelNameError]
    groups: list["Group"] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Group:
    """Requests of which all rows were predicted together.

    Attributes:
        requests: Whose rows they are.
        rows: Which rows each has.
        columns: The checked columns, and others of the schema that came with them.
        outputs: The answer to all rows.
    """

    requests: Sequence[Request]
    rows: Sequence[slice]
    columns: Columns
    outputs: Outputs


def answer(plane: DataPlane, requests: Sequence[Request], limits: Limits) -> Answered:
    """Answer a batch. One that cannot be answered does not keep the others from their answers."""
    answered = Answered([None] * len(requests))
    questions: dict[int, Question] = {}
    for position, request in enumerate(requests):
        try:
            questions[position] = request.read(plane, limits)
        except ModelNameError as err:
            answered.replies[position] = err
    by_level: dict[float | None, list[int]] = {}
    for position, question in questions.items():
        by_level.setdefault(question.interval, []).append(position)
    for level, positions in by_level.items():
        _answer_some(plane, requests, questions, positions, level, limits, answered)
    return answered


def _answer_some(
    plane: DataPlane,
    requests: Sequence[Request],
    questions: Mapping[int, Question],
    positions: Sequence[int],
    level: float | None,
    limits: Limits,
    answered: Answered,
) -> None:
    """Answer the requests at some positions together, or each alone where one of them is bad."""
    try:
        table, rows = _joined([questions[position] for position in positions], plane)
        limits.check_texts(table, max(requests[position].size for position in positions))
        columns = plane.check(table)
        outputs = plane.run(plane.features_of(columns), interval=level)
    except ModelNameError as err:
        if len(positions) == 1:
            answered.replies[positions[0]] = err
            return
        for position in positions:
            _answer_some(plane, requests, questions, [position], level, limits, answered)
        return
    manifest = plane.bundle.manifest
    is_refused = False
    for position, part in zip(positions, rows, strict=True):
        try:
            answered.replies[position] = requests[position].write(outputs.take(part), manifest)
        except DataError as err:
            answered.replies[position] = err
            is_refused = True
    columns |= plane.others(table)
    if not is_refused:
        answered.groups.append(Group([requests[position] for position in positions], rows, columns, outputs))
        return
    for position, part in zip(positions, rows, strict=True):  # who got no answer is not in the log
        if not isinstance(answered.replies[position], ModelNameError):
            own = {name: values[part] for name, values in columns.items()}
            whole = slice(0, part.stop - part.start)
            answered.groups.append(Group([requests[position]], [whole], own, outputs.take(part)))


def _joined(questions: Sequence[Question], plane: DataPlane) -> tuple[Table, list[slice]]:
    """The rows of several requests as one table, and which of them are whose.

    Raises:
        DataError: The rows of one of them make no table.
    """
    if all(question.rows is not None for question in questions):
        rows = [question.rows or () for question in questions]
        return by_column(list(chain.from_iterable(rows)) if len(rows) > 1 else rows[0], plane.inputs), _parts(rows)
    tables = [question.columns(plane.inputs) for question in questions]
    for table in tables:
        if table.keys() != plane.names:
            plane.schema.check_names(table)
    lengths = [len(next(iter(table.values()), ())) for table in tables]
    if len(tables) == 1:
        return tables[0], [slice(0, lengths[0])]
    for table, length in zip(tables, lengths, strict=True):
        if any(len(values) != length for values in table.values()):
            raise DataError("the tensors of one request differ in length")  # each alone is told which
    if all(table.keys() == plane.names for table in tables):
        by_name = ((name, [_plain(table[name]) for table in tables]) for name in plane.inputs)
        return {name: [*chain.from_iterable(values)] for name, values in by_name}, _parts(list(map(range, lengths)))
    names = dict.fromkeys(chain.from_iterable(tables))
    joined = {
        name: [*chain.from_iterable(_values(table.get(name), n) for table, n in zip(tables, lengths, strict=True))]
        for name in names
    }
    return joined, _parts(list(map(range, lengths)))


def _values(values: Sequence[Any] | NDArray[Any] | None, length: int) -> Sequence[Any]:
    """The values of one column as Python has them; none where a request leaves out a column that it may."""
    return [None] * length if values is None else _plain(values)


def _plain(values: Sequence[Any] | NDArray[Any]) -> Sequence[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _parts(rows: Sequence[Sequence[Any]]) -> list[slice]:
    ends = accumulate(map(len, rows))
    return [slice(end - len(part), end) for end, part in zip(ends, rows, strict=True)]
