"""Readers and writers of tables, local or behind any fsspec URL."""

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
from typing_extensions import override

from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel
from model_name.errors import ConfigError, DataError, ModelNameError, NotFoundError
from model_name.io.storage import OPEN_ERRORS, atomic_write, open_file

if TYPE_CHECKING:
    from mlflow.data.pandas_dataset import PandasDataset

BATCH_ROWS = 65_536

TableOrBatch = TypeVar("TableOrBatch", pa.Table, pa.RecordBatch)
UNNAMED_INDEX = re.compile(r"__index_level_\d+__")  # name of an unnamed pandas index in a file

# A datetime stays text: the schema's decoder parses it, because it handles time zones.
CSV_TYPES = {
    "numeric": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text-id": pa.string(),
    "datetime": pa.string(),
}


class Reader(FrozenModel, ABC):
    """Reader of a table.

    Attributes:
        path: Path or URL of the file.
        limit: Maximum number of rows; the rest of the file is not read.
    """

    KIND: str
    path: str
    limit: int | None = Field(None, gt=0)

    def read(self, schema: TableSchema | None = None) -> pd.DataFrame:
        """Read the whole table, or its first `limit` rows.

        Args:
            schema: Schema that determines the column types of a text format.

        Raises:
            NotFoundError: The file does not exist.
            DataError: The file is not a table of this format.
        """
        with self.open() as file, self.translate_decode_errors():
            return self._read(file, schema)

    def batches(self, schema: TableSchema | None = None, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
        """Read the table in batches of at most `rows` rows; memory holds one batch at a time.

        Raises:
            NotFoundError: The file does not exist.
            DataError: The file is not a table of this format.
        """
        remaining = self.limit
        with self.open() as file, self.translate_decode_errors():
            for batch in self._iter_batches(file, schema, rows if remaining is None else min(rows, remaining)):
                for start in range(0, batch.num_rows, rows):
                    part = batch.slice(start, rows if remaining is None else min(rows, remaining))
                    if part.num_rows:
                        yield part
                    if remaining is not None and (remaining := remaining - part.num_rows) <= 0:
                        return

    @abstractmethod
    def count(self) -> int | None:
        """Return the number of rows if it is known without reading them, else None."""

    def lineage(self, name: str, data: pd.DataFrame, targets: str | None = None) -> "PandasDataset":
        """Return the MLflow dataset that records this table as an input of a run."""
        from mlflow.data.pandas_dataset import from_pandas
        from mlflow.exceptions import MlflowException

        try:
            return from_pandas(data, source=self.path, name=name, targets=targets)
        except MlflowException:  # MLflow supports fewer URL schemes than fsspec
            return from_pandas(data, name=name, targets=targets)

    def _read(self, file: IO[bytes], schema: TableSchema | None) -> pd.DataFrame:
        batches = list(
            self._iter_batches(file, schema, BATCH_ROWS if self.limit is None else min(BATCH_ROWS, self.limit))
        )
        table = pa.Table.from_batches(batches).slice(0, self.limit) if batches else pa.table({})
        return table.to_pandas(ignore_metadata=True)

    @abstractmethod
    def _iter_batches(self, file: IO[bytes], schema: TableSchema | None, rows: int) -> Iterator[pa.RecordBatch]: ...

    @contextmanager
    def open(self) -> Generator[IO[bytes]]:
        """Open the file.

        Raises:
            NotFoundError: The file does not exist.
            DataError: The file cannot be opened.
        """
        try:
            file = open_file(self.path, compression="infer")
        except ModelNameError:  # PreemptedError, which a signal raises, is an OSError as well
            raise
        except FileNotFoundError as err:
            raise NotFoundError(f"{self.path}: there is no such file", hint="check the path of the table") from err
        except OPEN_ERRORS as err:
            raise DataError(f"{self.path}: cannot be opened: {err}") from err
        with file:
            yield file

    @contextmanager
    def translate_decode_errors(self) -> Generator[None]:
        """Turn errors of reading and decoding in the block into a `DataError`.

        Raises:
            DataError: The file is not a table of this format.
        """
        try:
            yield
        except ModelNameError:
            raise
        except (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeDecodeError) as err:
            raise DataError(f"{self.path}: is not a table that {self.KIND} can read: {err}") from err


class ParquetReader(Reader):
    """Reader of Apache Parquet."""

    KIND: Literal["ParquetReader"] = "ParquetReader"

    @override
    def count(self) -> int | None:
        with self.open() as file, self.translate_decode_errors():
            rows = pq.ParquetFile(file).metadata.num_rows
        return rows if self.limit is None else min(rows, self.limit)

    @override
    def _iter_batches(self, file: IO[bytes], schema: TableSchema | None, rows: int) -> Iterator[pa.RecordBatch]:
        source = pq.ParquetFile(file)
        remaining = self.limit
        for batch in source.iter_batches(batch_size=rows, columns=_column_names(source)):
            yield batch
            if remaining is not None and (remaining := remaining - batch.num_rows) <= 0:
                return

    @override
    def _read(self, file: IO[bytes], schema: TableSchema | None) -> pd.DataFrame:
        if self.limit is not None:
            return super()._read(file, schema)
        source = pq.ParquetFile(file)
        # A named index becomes a column, as it does in a batch.
        return source.read(columns=_column_names(source)).to_pandas(ignore_metadata=True)


class CsvReader(Reader):
    """Reader of comma-separated values with a header.

    Attributes:
        delimiter: Character between two values.
    """

    KIND: Literal["CsvReader"] = "CsvReader"
    delimiter: str = Field(",", min_length=1, max_length=1)

    @override
    def count(self) -> int | None:
        return None

    @override
    def _iter_batches(self, file: IO[bytes], schema: TableSchema | None, rows: int) -> Iterator[pa.RecordBatch]:
        remaining = self.limit
        for batch in pacsv.open_csv(file, **self._options(schema)):
            yield empty_strings_to_null(batch)
            if remaining is not None and (remaining := remaining - batch.num_rows) <= 0:
                return

    @override
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


def empty_strings_to_null(table: TableOrBatch) -> TableOrBatch:
    """Turn empty strings into nulls; "NA" stays a string, because it can be a value, e.g. Namibia."""
    for position, column in enumerate(table.schema):
        if pa.types.is_string(column.type):
            texts = table.column(position)
            values = pc.if_else(pc.equal(texts, pa.scalar("")), pa.scalar(None, column.type), texts)
            table = table.set_column(position, column.name, values)
    return table


def _column_names(source: pq.ParquetFile) -> list[str]:
    return [name for name in source.schema_arrow.names if not UNNAMED_INDEX.fullmatch(name)]


ReaderKind = Annotated[ParquetReader | CsvReader, Field(discriminator="KIND")]


def reader_for(path: str, limit: int | None = None) -> Reader:
    """Return the reader for the extension of a path.

    Raises:
        ConfigError: No reader supports the extension.
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
    """Writer of Apache Parquet. The file is replaced atomically: readers see the old file or the complete new one.

    Attributes:
        path: Path or URL of the file; missing parent folders are created.
    """

    KIND: Literal["ParquetWriter"] = "ParquetWriter"
    path: str

    def write(self, data: pd.DataFrame | pa.Table) -> str:
        """Write a table and return its path.

        Raises:
            StorageError: The disk is full, or the file cannot be written.
            DataError: A column cannot be stored as Parquet.
        """
        table = data if isinstance(data, pa.Table) else to_arrow(data, self.path)
        with atomic_write(self.path) as file:
            pq.write_table(table, file, compression="zstd")
        return self.path


def to_arrow(frame: pd.DataFrame, path: str) -> pa.Table:
    """Convert a frame, without its index, into an Arrow table that Parquet can store.

    Args:
        frame: Rows to convert.
        path: Path of the file to write, for the error message.

    Raises:
        DataError: A column holds values of several types, or of a type that Arrow does not have.
    """
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as err:
        raise DataError(f"{path}: the table cannot be written as Parquet: {err}") from err
