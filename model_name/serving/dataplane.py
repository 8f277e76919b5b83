"""The one way from a request to an answer: check against the schema, features, graph, outputs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_name.core.features import Matrix
from model_name.core.schemas import Outputs, TableSchema
from model_name.errors import DataError
from model_name.serving.bundle import Bundle

FEATURES = "features"
SCORES = "scores"

Rows = Sequence[Mapping[str, Any] | Sequence[Any]]


class DataPlane:
    """Answers requests from a bundle."""

    def __init__(self, bundle: Bundle) -> None:
        """Serve a bundle."""
        self.bundle = bundle
        self.schema: TableSchema = bundle.manifest.table
        self.features = bundle.manifest.features
        self.decision = bundle.manifest.decision

    def predict(self, table: Mapping[str, Sequence[Any] | NDArray[Any]], *, interval: float | None = None) -> Outputs:
        """Answer a request that came by column.

        Args:
            table: The values by column.
            interval: The level of the prediction intervals, if they are asked for.

        Raises:
            DataError: Naming column, row and reason; or there are no intervals of this level.
        """
        return self.run(self.matrix(table), interval=interval)

    def predict_rows(self, rows: Rows, *, interval: float | None = None) -> Outputs:
        """Answer a request that came by row, as objects or as arrays in the order of the inputs.

        Raises:
            DataError: As of `predict`.
        """
        return self.predict(by_column(rows, list(self.schema.inputs)), interval=interval)

    def matrix(self, table: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Matrix:
        """The features of a request.

        Raises:
            DataError: Naming column, row and reason.
        """
        columns = self.schema.check_request(table)
        with np.errstate(over="ignore"):
            matrix = self.features.transform(columns)
        # The schema lets no infinity pass: these were finite, and a graph would answer something for them.
        too_large = np.argwhere(np.isinf(matrix))
        if len(too_large):
            row, position = too_large[0]
            name = self.features.columns[position].source
            place = f"{name}, row {row}" if len(matrix) > 1 else name
            raise DataError(f"{place}: {columns[name][row]} is too large for float32")
        return matrix

    def run(self, matrix: Matrix, *, interval: float | None = None) -> Outputs:
        """The forward pass, and what is decided on its scores.

        Raises:
            DataError: There are no prediction intervals of this level.
        """
        return self.decision.outputs(self.scores(matrix), self.schema.classes, interval)

    def scores(self, matrix: Matrix) -> NDArray[Any]:
        """What the graph answers: n x 1 predictions of a regression, n x k probabilities otherwise."""
        if not len(matrix):  # a batch of which every row was dropped
            return np.empty((0, max(1, len(self.schema.classes))))
        (scores,) = self.bundle.session.run([SCORES], {FEATURES: np.ascontiguousarray(matrix, dtype=np.float32)})
        return np.asarray(scores)

    def warm_up(self) -> Outputs:
        """Answer the bundle's own example, so that the first client does not wait for it."""
        return self.predict_rows([self.bundle.manifest.example])


def by_column(rows: Rows, names: Sequence[str]) -> dict[str, list[Any]]:
    """Turn rows into columns.

    Args:
        rows: Objects with the names as keys, or arrays of values in their order.
        names: The inputs.

    Raises:
        DataError: There is no row, or one of them misses a column, has one too many, or is neither.
    """
    if not rows:
        raise DataError("the request holds no row")
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        where = f"row {number}" if len(rows) > 1 else "the row"
        if isinstance(row, Mapping):
            values = row
        elif isinstance(row, Sequence) and not isinstance(row, str | bytes):
            if len(row) != len(names):
                raise DataError(
                    f"{where} has {len(row)} values, the model has {len(names)} inputs", hint=", ".join(names)
                )
            values = dict(zip(names, row, strict=True))
        else:
            raise DataError(f"{where} is neither an object nor an array")
        if number == 0:
            columns = {name: [] for name in values}
        if values.keys() != columns.keys():
            odd = min(values.keys() ^ columns.keys())
            raise DataError(f"{odd}: {'is only in' if odd in values else 'column is missing in'} {where}")
        for name, value in values.items():
            columns[name].append(value)
    return columns
