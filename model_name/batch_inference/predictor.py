"""Predict chunks of a table by the same data plane as the server."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from model_name.batch_inference.arrow_columns import ARROW_TYPES, label_type, to_arrow, to_numpy
from model_name.batch_inference.chunks import RowChunk
from model_name.core.schemas import TableSchema
from model_name.core.schemas.columns import Columns, and_more
from model_name.core.schemas.validation import CheckReport
from model_name.errors import ConfigError, DataError
from model_name.serving.dataplane import DataPlane

ROW_COLUMN = "row"  # column of row numbers in the output, if no column is kept


class BatchPredictor:
    """Predict chunks of a table. Thread-safe.

    Attributes:
        plane: Data plane of the bundle.
    """

    def __init__(
        self,
        plane: DataPlane,
        schema: TableSchema,
        *,
        path: str,
        keep: Sequence[str] = (),
        interval: float | None = None,
    ) -> None:
        """Create a predictor.

        Args:
            plane: Data plane of the bundle.
            schema: Schema of the table.
            path: Path of the table, for error messages.
            keep: Columns of the table to copy to the output; the key by default, or else the row number.
            interval: Level of the prediction intervals; None for none.

        Raises:
            ConfigError: A column to keep does not exist or has the name of an output, or the bundle has no prediction
                intervals of this level.
        """
        self.plane = plane
        self._interval = interval
        self._schema = schema
        self._path = path
        self._kept = tuple(keep) or schema.key
        self._input_names = [*dict.fromkeys([*schema.inputs, *self._kept])]
        output_names = self._output_types
        for name in self._kept:
            if name not in schema.columns:
                raise ConfigError(f"job.keep: {name} is not a column of the schema {schema.name}")
            if name in output_names:
                raise ConfigError(f"job.keep: {name} is also the name of an output", hint="set job.keep without it")

    @cached_property
    def output_schema(self) -> pa.Schema:
        """Arrow schema of the output; fixed in advance, because a part without rows has no values to infer it from."""
        kept = {name: ARROW_TYPES[self._schema.columns[name].kind] for name in self._kept} or {ROW_COLUMN: pa.int64()}
        return pa.schema(kept | self._output_types)

    @cached_property
    def _output_types(self) -> dict[str, pa.DataType]:
        no_rows = np.empty((0, len(self.plane.features.columns)), dtype=np.float32)
        try:
            names = self.plane.predict_matrix(no_rows, interval=self._interval).columns
        except DataError as err:
            raise ConfigError(f"job.interval: {err.message}", hint=err.hint) from err
        types = dict.fromkeys(names, pa.float64())
        return types | ({"prediction": label_type(self._schema.classes)} if self._schema.classes else {})

    def predict(self, chunk: RowChunk) -> tuple[pa.Table, CheckReport]:
        """Validate a chunk and predict its rows.

        Returns:
            Output rows, and the report of the validation.

        Raises:
            DataError: A value does not fit the schema; the message names column, row of the table and reason.
        """
        try:
            ignored = self._extra_columns(chunk.batch.schema.names)
            present = [name for name in self._input_names if name in chunk.batch.schema.names]
            raw = {name: to_numpy(chunk.batch.column(name)) for name in present}
            typed = self._schema.decode(raw, names=self._input_names, first_row=chunk.first_row)
            checked, keep, report = self._schema.check_columns(typed, may_drop=True, first_row=chunk.first_row)
        except DataError as err:
            raise DataError(f"{self._path}: {err.message}", hint=err.hint) from err
        report.ignored = ignored
        rows = np.arange(chunk.first_row, chunk.first_row + chunk.batch.num_rows)
        if not keep.all():
            checked, rows = {name: values[keep] for name, values in checked.items()}, rows[keep]
        return self._predict_columns(checked, rows), report

    def _predict_columns(self, columns: Columns, rows: NDArray[np.int_]) -> pa.Table:
        kept: dict[str, Any] = {name: columns[name] for name in self._kept} or {ROW_COLUMN: rows}
        matrix = self.plane.features.transform(columns)
        values = kept | self.plane.predict_matrix(matrix, interval=self._interval).columns
        arrays = [to_arrow(values[field.name], field.type) for field in self.output_schema]
        return pa.table(arrays, schema=self.output_schema)

    def _extra_columns(self, names: list[str]) -> tuple[str, ...]:
        """Return the columns that are not in the schema, if the schema allows them."""
        duplicates = [name for name in names if names.count(name) > 1]
        if duplicates:
            raise DataError(f"{duplicates[0]}: the table has this column twice")
        extra = tuple(name for name in names if name not in self._schema.columns and name != self._schema.target.name)
        if extra and self._schema.extra == "refuse":
            raise DataError(
                f"{extra[0]}: is not a column of the schema {self._schema.name}{and_more(extra[1:])}",
                hint="add it to the schema, or set `extra: drop` there",
            )
        return extra
