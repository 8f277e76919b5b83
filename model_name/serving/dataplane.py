"""The one way from a request to an answer: check against the schema, features, graph, outputs."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_name.core.features.transforms import Matrix
from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.columns import Columns, ValidationIssues, decode_column
from model_name.core.schemas.fast_validation import FastValidator, RawValues
from model_name.errors import DataError
from model_name.serving.bundle import Manifest
from model_name.serving.protocols.fast_json import FastV1Decoder

CHUNK_ROWS = 2048  # of a forward pass; more only needs more memory, which ONNX Runtime keeps

Rows = Sequence[Mapping[str, Any] | Sequence[Any]]
RawColumns = Mapping[str, RawValues]
"""Raw values by column."""


class InferenceBackend(Protocol):
    """What is served: the graph of a bundle, or a model in this process."""

    @property
    def directory(self) -> Path:
        """Where it lies."""

    @property
    def manifest(self) -> Manifest:
        """All that is known about it."""

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """The scores of n x d features: n predictions of a regression, n x k probabilities otherwise."""


class DataPlane:
    """Answers requests from a bundle.

    Attributes:
        bundle: The bundle.
        inputs: The columns that a request must carry, in their order.
        names: The same as a set.
        kinds: Of all columns.
        texts: The columns whose values may be texts.
        blanks: The inputs of which the empty text is a category.
        usual: Reads what most clients of V1 send.
    """

    def __init__(self, bundle: InferenceBackend) -> None:
        """Serve a bundle."""
        self.bundle = bundle
        self.schema: TableSchema = bundle.manifest.table
        self.features = bundle.manifest.features
        self.decision = bundle.manifest.decision
        self.inputs = tuple(self.schema.inputs)
        self.names = frozenset(self.inputs)
        self.kinds = {name: column.kind for name, column in self.schema.columns.items()}
        self.texts = frozenset(name for name, kind in self.kinds.items() if kind not in ("numeric", "boolean"))
        self.empty_string_columns = {name for name in self.inputs if "" in self.features.categories(name)}
        self.usual = FastV1Decoder({name: self.kinds[name] for name in self.inputs})
        self._acceptance = FastValidator(self.schema)

    def predict(self, table: RawColumns, *, interval: float | None = None) -> Outputs:
        """Answer a request that came by column.

        Args:
            table: The values by column.
            interval: The level of the prediction intervals, if they are asked for.

        Raises:
            DataError: Naming column, row and reason; or there are no intervals of this level.
        """
        return self.predict_matrix(self.matrix(table), interval=interval)

    def predict_rows(self, rows: Rows, *, interval: float | None = None) -> Outputs:
        """Answer a request that came by row, as objects or as arrays in the order of the inputs.

        Raises:
            DataError: As of `predict`.
        """
        return self.predict(rows_to_columns(rows, self.inputs), interval=interval)

    def matrix(self, table: RawColumns) -> Matrix:
        """The features of a request.

        Raises:
            DataError: Naming column, row and reason.
        """
        return self.featurize(self.check(table))

    def check(self, table: RawColumns) -> Columns:
        """The typed columns of a request.

        Raises:
            DataError: Naming column, row and reason.
        """
        columns = self._acceptance.validate(table)
        return self.schema.check_request(table) if columns is None else columns

    def extra_columns(self, table: RawColumns) -> Columns:
        """The columns that a request carries beside the inputs, as far as they can be read: what names a row, say."""
        if len(table) == len(self.inputs):
            return {}
        columns = self.schema.columns
        return {
            name: decode_column(name, columns[name], values, ValidationIssues())
            for name, values in table.items()
            if name in columns and name not in self.names
        }

    def featurize(self, columns: Columns) -> Matrix:
        """The features of typed columns.

        Raises:
            DataError: A number is too large for a feature.
        """
        with np.errstate(over="ignore"):
            matrix = self.features.transform(columns)
        # The schema lets no infinity pass: these were finite, and a graph would answer something for them.
        if np.isinf(matrix).any():
            row, position = np.argwhere(np.isinf(matrix))[0]
            name = self.features.columns[position].source
            place = f"{name}, row {row}" if len(matrix) > 1 else name
            raise DataError(f"{place}: {columns[name][row]} is too large for float32")
        return matrix

    def predict_matrix(self, matrix: Matrix, *, interval: float | None = None) -> Outputs:
        """The forward pass, and what is decided on its scores.

        Raises:
            DataError: There are no prediction intervals of this level.
        """
        return self.decision.apply(self.scores(matrix), self.schema.classes, interval)

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """What the graph answers: n x 1 predictions of a regression, n x k probabilities otherwise."""
        if not len(matrix):  # a batch of which every row was dropped
            return np.empty((0, max(1, len(self.schema.classes))))
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        parts = [matrix[start : start + CHUNK_ROWS] for start in range(0, len(matrix), CHUNK_ROWS)]
        scores = [self.bundle.scores(part) for part in parts]
        return scores[0] if len(scores) == 1 else np.concatenate(scores)

    def warm_up(self) -> Outputs:
        """Answer the bundle's own example, so that the first client does not wait for it."""
        return self.predict_rows([self.bundle.manifest.example])


def rows_to_columns(rows: Rows, names: Sequence[str]) -> dict[str, list[Any]]:
    """Turn rows into columns.

    Args:
        rows: Objects with the names as keys, or arrays of values in their order.
        names: The inputs.

    Raises:
        DataError: There is no row, or one of them misses a column, has one too many, or is neither.
    """
    if not rows:
        raise DataError("the request holds no row")
    if (columns := _uniform_rows_to_columns(rows, names)) is not None:
        return columns
    objects = [_as_object(row, number, names, len(rows)) for number, row in enumerate(rows)]
    known = objects[0].keys()
    for number, row in enumerate(objects):
        if row.keys() != known:
            odd = min(row.keys() ^ known)
            raise DataError(f"{odd}: {'is only in' if odd in row else 'column is missing in'} row {number}")
    return {name: [row[name] for row in objects] for name in known}


def _uniform_rows_to_columns(rows: Rows, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """The columns of rows that are all objects with the inputs and nothing else, or all arrays of as many values."""
    kinds = {*map(type, rows)}
    if kinds not in ({dict}, {list}) or {*map(len, rows)} != {len(names)}:
        return None
    if kinds == {list}:
        return {name: [*map(itemgetter(position), rows)] for position, name in enumerate(names)}
    if 1 < len(rows) <= CHUNK_ROWS and (columns := _transpose_objects(rows)) is not None:  # more would hold the interpreter
        return {name: columns[name] for name in names} if columns.keys() == {*names} else None
    try:
        return {name: [*map(itemgetter(name), rows)] for name in names}
    except KeyError:
        return None


def _transpose_objects(rows: Sequence[Any]) -> dict[str, list[Any]] | None:
    """Objects by column, if their names come in one order, as one client writes them."""
    first = [*rows[0]]
    if not all(map(first.__eq__, map(list, rows))):
        return None
    return dict(zip(first, map(list, zip(*map(dict.values, rows), strict=True)), strict=True))


def _as_object(row: Any, number: int, names: Sequence[str], count: int) -> Mapping[str, Any]:
    """One row with its names.

    Raises:
        DataError: It is neither an object nor an array of as many values as there are inputs.
    """
    if type(row) is dict or isinstance(row, Mapping):
        return row
    where = f"row {number}" if count > 1 else "the row"
    if not isinstance(row, Sequence) or isinstance(row, str | bytes):
        raise DataError(f"{where} is neither an object nor an array")
    if len(row) != len(names):
        raise DataError(f"{where} has {len(row)} values, the model has {len(names)} inputs", hint=", ".join(names))
    return dict(zip(names, row, strict=True))
