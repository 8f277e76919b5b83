"""Tables, read whole or in batches and written whole, local or behind any fsspec URL."""

import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pydantic import Field

from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError, DataError, ModelNameError, NotFoundError
from model_name.io.storage import OPEN_ERRORS, atomic_write, open_file

if TYPE_CHECKING:
    from mlflow.data.pandas_dataset import PandasDataset

BATCH_ROWS = 65_536

Batch = TypeVar("Batch", pa.Table, pa.RecordBatch)
UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # how pandas names an unnamed index that it writes

# A datetime stays text here and is read by the schema's decoder, which knows zones.
CSV_TYPES = {
    "numeric": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text-id": pa.string(),
    "datetime": pa.string(),
}


class Reader(FrozenModel, ABC):
    """Reads a table.

    Attributes:
        path: A file or a URL.
        limit: The most rows to read; the rest of the file is not touched.
    """

    KIND: str
    path: str
    limit: int | None = Field(None, gt=0)

    def read(self, schema: TableSchema | None = None) -> pd.DataFrame:
        """The whole table, or its first `limit` rows.

        Args:
            schema: Tells a text format the types of its columns.

        Raises:
            NotFoundError: There is no such file.
            DataError: It is not a table of this format.
        """
        with self._opened() as file, self._decoded():
            return self._read(file, schema)

    def batches(self, schema: TableSchema | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """The same in batches of at most so many rows; memory holds one at a time.

        Raises:
            NotFoundError: There is no such file.
            DataError: It is not a table of this format.
        """
        left = self.limit
        with self._opened() as file, self._decoded():
            for batch in self._batches(file, schema, rows if left is None else min(rows, left)):
                for start in range(0, batch.num_rows, rows):
                    part = batch.slice(start, rows if left is None else min(rows, left))
                    if part.num_rows:
                        yield part
                    if left is not None and (left := left - part.num_rows) <= 0:
                        return

    @abstractmethod
    def count(self) -> int | None:
        """How many rows there are, where that is known without reading them."""

    def lineage(self, name: str, data: pd.DataFrame, targets: str | None = None) -> "PandasDataset":
        """What MLflow records of a table that was read from here."""
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.exceptions import MlflowException

        try:
            return from_pandas(data, source=self.path, name=name, targets=targets)
        except MlflowException:  # it knows fewer kinds of URLs than fsspec
            return from_pandas(data, name=name, targets=targets)

    def _read(self, file: IO[bytes], schema: TableSchema | None) -> pd.DataFrame:
        batches = list(self._batches(file, schema, BATCH_ROWS if self.limit is None else min(BATCH_ROWS, self.limit)))
        table = pa.Table.from_batches(batches).slice(0, self.limit) if batches else pa.table({})
        return table.to_pandas(ignore_metadata=True)

    @abstractmethod
    def _batches(self, file: IO[bytes], schema: TableSchema | None, rows: int) -> Iterator[pa.RecordBatch]: ...

    @contextmanager
    def _opened(self) -> Generator[IO[bytes]]:
        try:
            file = open_file(self.path, compression="infer")
        except ModelNameError:  # a preemption is an OSError as well
            raise
        except FileNotFoundError as err:
            raise NotFoundError(f"{self.path}: there is no such file", hint="check the path of the table") from err
        except OPEN_ERRORS as err:
            raise DataError(f"{self.path}: cannot be opened: {err}") from err
        with file:
            yield file

    @contextmanager
    def _decoded(self) -> Generator[None]:
        try:
            yield
        except ModelNameError:
            raise
        except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as err:
            raise DataError(f"{self.path}: is not a table that {self.KIND} can read: {err}") from err


class ParquetReader(Reader):
    """Reads Apache Parquet."""

    KIND: Literal["ParquetReader"] = "ParquetReader"

    def count(self) -> int | None:
        """From the file's footer."""
        with self._opened() as file, self._decoded():
            rows = pq.ParquetFile(file).metadata.num_rows
        return rows if self.limit is None else min(rows, self.limit)

    def _batches(self, file: IO[bytes], schema: TableSchema | None, rows: int) -> Iterator[pa.RecordBatch]:
        source = pq.ParquetFile(file)
        left = self.limit
        for batch in source.iter_batches(batch_size=rows, columns=_column_names(source)):
            yield batch
            if left is not None and (left := left - batch.num_rows) <= 0:
                return

    def _read(self, file: IO[bytes], schema: TableSchema | None) -> pd.DataFrame:
        if self.limit is not None:
            return super()._read(file, schema)
        source = pq.ParquetFile(file)
        # A named index is a column like the others, here as in a batch.
        return source.read(columns=_column_names(source)).to_pandas(ignore_metadata=True)


class CsvReader(Reader):
    """Reads comma-separated values with a header.

    Attributes:
        delimiter: What stands between two values.
    """

    KIND: Literal["CsvReader"] = "CsvReader"
    delimiter: str = Field(",", min_length=1, max_length=1)

    def count(self) -> int | None:
        """Not known without reading."""
        return None

    def _batches(self, file: IO[bytes], schema: TableSchema | None, rows: int) -> Iterator[pa.RecordBatch]:
        left = self.limit
        for batch in pacsv.open_csv(file, **self._options(schema)):
            yield empty_strings_to_null(batch)
            if left is not None and (left := left - batch.num_rows) <= 0:
                return

    def _read(self, file: IO[bytes], schema: TableSchema | None) -> pd.DataFrame:
        if self.limit is not None:
            return super()._read(file, schema)
        table = pacsv.read_csv(file, **self._options(schema))
        return empty_strings_to_null(table).to_pandas()

    def _options(self, schema: TableSchema | None) -> dict[str, Any]:
        types = {name: CSV_TYPES[column.kind] for name, column in schema.columns.items()} if schema else {}
        if schema and schema.target.task == "regression":
            types[schema.target.name] = pa.float64()
        return {
            "parse_options": pacsv.ParseOptions(delimiter=self.delimiter),
            "convert_options": pacsv.ConvertOptions(column_types=types),
        }


def empty_strings_to_null(table: Batch) -> Batch:
    """An empty text of a CSV file is a missing value; "NA" in a column of texts is a text, e.g. Namibia."""
    for position, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            texts = table.column(position)
            present = pc.if_else(pc.equal(texts, pa.scalar("")), pa.scalar(None, column.type), texts)
            table = table.set_column(position, column.name, present)
    return table


def _column_names(source: pq.ParquetFile) -> list[str]:
    return [name for name in source.schema_arrow.names if not UNNAMED_INDEX.fullmatch(name)]


ReaderKind = Annotated[ParquetReader | CsvReader, Field(discriminator="KIND")]


def reader_for(path: str, limit: int | None = None) -> Reader:
    """The reader that fits the ending of a path.

    Raises:
        ConfigError: No reader does.
    """
    if path.endswith((".parquet", ".pq")):
        return ParquetReader(path=path, limit=limit)
    if path.endswith((".csv", ".csv.gz", ".tsv")):
        return CsvReader(path=path, limit=limit, delimiter="\t" if path.endswith(".tsv") else ",")
    raise ConfigError(
        f"{path}: is neither .parquet, .csv nor .tsv",
        hint="a table is one Parquet, CSV or TSV file: convert it, or give it its ending",
    )


class ParquetWriter(FrozenModel):
    """Writes Apache Parquet; a reader sees the old file or the whole new one, never a half.

    Attributes:
        path: A file or a URL; folders on the way are made.
    """

    KIND: Literal["ParquetWriter"] = "ParquetWriter"
    path: str

    def write(self, data: pd.DataFrame | pa.Table) -> str:
        """Write a table and return its path.

        Raises:
            StorageError: The disk is full, or the place cannot be written.
            DataError: A column cannot be put into Parquet.
        """
        try:
            table = data if isinstance(data, pa.Table) else pa.Table.from_pandas(data, preserve_index=False)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as err:
            raise DataError(f"{self.path}: the table cannot be written as Parquet: {err}") from err
        with atomic_write(self.path) as file:
            pq.write_table(table, file, compression="zstd")
        return self.path
