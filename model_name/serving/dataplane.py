"""The data plane: raw columns of a request are validated, transformed to features, scored and decided on."""

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_name.core.features import Matrix
from model_name.core.schemas import Outputs, TableSchema
from model_name.core.schemas.columns import Columns
from model_name.core.schemas.decoding import RawValues, decode_column
from model_name.core.schemas.fast_validation import FastValidator
from model_name.core.schemas.row_validation import RowValidator, TypedRow
from model_name.core.schemas.validation import ValidationIssues
from model_name.errors import DataError
from model_name.serving.bundle import Manifest

CHUNK_ROWS = 2048  # of a forward pass; larger ones need more memory, which ONNX Runtime keeps, and are no faster

Rows = Sequence[Mapping[str, Any] | Sequence[Any]]
"""Rows as objects, or as arrays in the order of the inputs."""
RawColumns = Mapping[str, RawValues]
"""Raw values by column."""
T = TypeVar("T")


class InferenceBackend(Protocol):
    """A served model: the graph of a bundle, or a fitted model in this process."""

    @property
    def directory(self) -> Path:
        """Directory of the model."""

    @property
    def manifest(self) -> Manifest:
        """Manifest of the model."""

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """Score n x d features.

        Returns:
            n x 1 predictions of a regression, or n x k probabilities of the classes.
        """


class EncodedRows(NamedTuple):
    """A few validated rows.

    Attributes:
        typed_rows: Typed values by row.
        matrix: Features of the rows.
    """

    typed_rows: list[TypedRow]
    matrix: Matrix


class DataPlane:
    """Predicts from columns or rows with one bundle, whatever the protocol of the request.

    Attributes:
        bundle: Model that scores.
        schema: Schema of the table.
        features: Features of the model.
        decision: Calibration, threshold and intervals that turn scores into outputs.
        inputs: Names of the columns that a request must have, in the order of the schema.
        names: Set of the same names.
        kinds: Kinds of all columns by name.
        text_columns: Names of the columns whose values may be texts.
        empty_string_columns: Names of the inputs that have the empty text as a category.
    """

    def __init__(self, bundle: InferenceBackend) -> None:
        """Prepare the validation and the features of a bundle."""
        self.bundle = bundle
        self.schema: TableSchema = bundle.manifest.table
        self.features = bundle.manifest.features
        self.decision = bundle.manifest.decision
        self.inputs = tuple(self.schema.inputs)
        self.names = frozenset(self.inputs)
        self.kinds = {name: column.kind for name, column in self.schema.columns.items()}
        self.text_columns = frozenset(name for name, kind in self.kinds.items() if kind not in ("numeric", "boolean"))
        self.empty_string_columns = {name for name in self.inputs if "" in self.features.categories(name)}
        self._fast_validator = FastValidator(self.schema)
        self._row_validator = RowValidator(self.schema)
        self._cache: dict[Callable[[DataPlane], Any], Any] = {}

    def cached(self, factory: Callable[["DataPlane"], T]) -> T:
        """Return what a factory derives from this data plane, such as a decoder of its columns.

        The factory is called the first time; threads that race may call it more than once.
        """
        try:
            return self._cache[factory]  # type: ignore[no-any-return]  # the value is what this factory returned
        except KeyError:
            self._cache[factory] = derived = factory(self)
            return derived

    def predict(self, table: RawColumns, *, interval: float | None = None) -> Outputs:
        """Predict for columns.

        Args:
            table: Raw values by column.
            interval: Level of the prediction intervals; None for predictions without intervals.

        Raises:
            DataError: A value is invalid, which the message names by column and row, or the model has no intervals of
                this level.
        """
        return self.predict_matrix(self.matrix(table), interval=interval)

    def predict_rows(self, rows: Rows, *, interval: float | None = None) -> Outputs:
        """Predict for rows.

        Args:
            rows: Rows as objects, or as arrays in the order of the inputs.
            interval: Level of the prediction intervals; None for predictions without intervals.

        Raises:
            DataError: A row or a value is invalid, which the message names by column and row, or the model has no
                intervals of this level.
        """
        return self.predict(rows_to_columns(rows, self.inputs), interval=interval)

    def matrix(self, table: RawColumns) -> Matrix:
        """Validate raw columns and transform them to features.

        Raises:
            DataError: A value is invalid; the message names column, row and reason.
        """
        return self.featurize(self.check(table))

    def check(self, table: RawColumns) -> Columns:
        """Validate raw columns and convert them to typed ones.

        Raises:
            DataError: A value is invalid; the message names column, row and reason.
        """
        columns = self._fast_validator.validate(table)
        return self.schema.check_request(table) if columns is None else columns

    def extra_columns(self, table: RawColumns) -> Columns:
        """Decode the columns of the schema that a request has beside the inputs, such as a row key.

        Values that are invalid become missing.
        """
        if len(table) == len(self.inputs):
            return {}
        columns = self.schema.columns
        return {
            name: decode_column(name, columns[name], values, ValidationIssues())
            for name, values in table.items()
            if name in columns and name not in self.names
        }

    def featurize(self, columns: Columns) -> Matrix:
        """Transform typed columns to features.

        Raises:
            DataError: A feature of a finite number is infinite in float32; the message names column and row.
        """
        with np.errstate(over="ignore"):
            matrix = self.features.transform(columns)
        # The schema rejects infinity, so these numbers were finite; the graph would return a wrong prediction for them.
        if np.isinf(matrix).any():
            row, position = np.argwhere(np.isinf(matrix))[0]
            name = self.features.columns[position].source
            place = f"{name}, row {row}" if len(matrix) > 1 else name
            raise DataError(f"{place}: {columns[name][row]} is too large for float32")
        return matrix

    def try_encode_rows(self, rows: Sequence[Sequence[Any]]) -> EncodedRows | None:
        """Validate a few rows and transform them to features, or return None.

        The fast path of `check` and `featurize`.

        Args:
            rows: Rows as arrays in the order of the inputs; None is returned for other rows.
        """
        typed_rows = self._row_validator.validate(rows)
        if typed_rows is None:
            return None
        with np.errstate(over="ignore"):
            matrix = self.features.transform_rows(typed_rows)
        return None if np.isinf(matrix).any() else EncodedRows(typed_rows, matrix)

    def predict_matrix(self, matrix: Matrix, *, interval: float | None = None) -> Outputs:
        """Score features and decide on the scores.

        Raises:
            DataError: The model has no prediction intervals of this level.
        """
        return self.decision.apply(self.scores(matrix), self.schema.classes, interval)

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """Score features in chunks of `CHUNK_ROWS` rows.

        Returns:
            n x 1 predictions of a regression, or n x k probabilities of the classes.
        """
        if not len(matrix):  # a batch of which every row was dropped
            return np.empty((0, max(1, len(self.schema.classes))))
        matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        parts = [matrix[start : start + CHUNK_ROWS] for start in range(0, len(matrix), CHUNK_ROWS)]
        scores = [self.bundle.scores(part) for part in parts]
        return scores[0] if len(scores) == 1 else np.concatenate(scores)

    def warm_up(self) -> Outputs:
        """Predict the example of the bundle, so that the first request does not pay for lazy initialization."""
        return self.predict_rows([self.bundle.manifest.example])


def rows_to_columns(rows: Rows, names: Sequence[str]) -> dict[str, list[Any]]:
    """Transpose rows to columns.

    Args:
        rows: Objects with the names as keys, or arrays of values in their order.
        names: Names of the inputs.

    Raises:
        DataError: `rows` is empty, or a row lacks a column, has an extra one, or is neither an object nor an array.
    """
    if not rows:
        raise DataError("the request holds no row")
    if (columns := try_transpose(rows, names)) is not None:
        return columns
    objects = [_as_object(row, number, names, len(rows)) for number, row in enumerate(rows)]
    known = objects[0].keys()
    for number, row in enumerate(objects):
        if row.keys() != known:
            name = min(row.keys() ^ known)
            raise DataError(f"{name}: {'is only in' if name in row else 'column is missing in'} row {number}")
    return {name: [row[name] for row in objects] for name in known}


def try_transpose(rows: Rows, names: Sequence[str]) -> dict[str, list[Any]] | None:
    """Transpose rows that are all objects with exactly the inputs, or all arrays of that length, or return None.

    The fast path of `rows_to_columns`.
    """
    kinds = {*map(type, rows)}
    if kinds not in ({dict}, {list}) or {*map(len, rows)} != {len(names)}:
        return None
    is_short = len(rows) <= CHUNK_ROWS  # `zip(*rows)` is faster, and holds the interpreter until its end
    if kinds == {list}:
        if is_short:
            return dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
        return {name: [*map(itemgetter(position), rows)] for position, name in enumerate(names)}
    if is_short and len(rows) > 1 and (columns := _transpose_objects(rows)) is not None:
        return {name: columns[name] for name in names} if columns.keys() == {*names} else None
    try:
        return {name: [*map(itemgetter(name), rows)] for name in names}
    except KeyError:
        return None


def _transpose_objects(rows: Sequence[Any]) -> dict[str, list[Any]] | None:
    """Transpose objects whose keys all have the same order, as a single client writes them, or return None."""
    first = [*rows[0]]
    if not all(map(first.__eq__, map(list, rows))):
        return None
    return dict(zip(first, map(list, zip(*map(dict.values, rows), strict=True)), strict=True))


def _as_object(row: Any, number: int, names: Sequence[str], count: int) -> Mapping[str, Any]:
    """Convert a row to an object.

    Raises:
        DataError: The row is neither an object nor an array with one value per input.
    """
    if type(row) is dict or isinstance(row, Mapping):
        return row
    where = f"row {number}" if count > 1 else "the row"
    if not isinstance(row, Sequence) or isinstance(row, str | bytes):
        raise DataError(f"{where} is neither an object nor an array")
    if len(row) != len(names):
        raise DataError(f"{where} has {len(row)} values, the model has {len(names)} inputs", hint=", ".join(names))
    return dict(zip(names, row, strict=True))
