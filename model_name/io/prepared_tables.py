"""Prepared tables: validated once and written with a validation mark; later steps trust it and do not validate again.

The mark is stored in the footer of the Parquet file. It names the package version, the schema and the content that were
validated. If a tool keeps the footer's metadata but writes other rows, the data pages differ and their hash no longer
matches. The mark guards against mistakes, not against forgery.
"""

import io
from hashlib import sha256
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from loguru import logger
from pydantic import ValidationError
from typing_extensions import override

import model_name
from model_name.core.dataframes import DTYPE_BY_KIND
from model_name.core.schemas import TableSchema
from model_name.core.schemas.strict_models import FrozenModel
from model_name.io.datasets import ParquetReader, Reader, to_arrow
from model_name.io.storage import atomic_write

MARK_KEY = "model_name.validated"


class ValidationMark(FrozenModel):
    """Record of a validation.

    Attributes:
        package: Version of the package that validated the table; other versions may validate differently.
        table_schema: SHA-256 of the schema.
        rows: Number of rows.
        columns: Arrow types by column.
        data_bytes: Number of bytes before the footer: the data pages.
        data_sha256: SHA-256 of these bytes.
    """

    package: str
    table_schema: str
    rows: int
    columns: dict[str, str]
    data_bytes: int
    data_sha256: str


def write_prepared(path: str, frame: pd.DataFrame, schema: TableSchema) -> str:
    """Write a validated table as Parquet with its mark and return the path.

    Raises:
        StorageError: The disk is full, or the file cannot be written.
        DataError: A column cannot be stored as Parquet.
    """
    table = to_arrow(frame, path)
    with atomic_write(path) as file:
        sink = _HashingFile(file)
        with pq.ParquetWriter(pa.PythonFile(sink, mode="w"), table.schema, compression="zstd") as writer:
            writer.write_table(table)
            mark = ValidationMark(
                package=model_name.__version__,
                table_schema=schema_fingerprint(schema),
                rows=table.num_rows,
                columns=_column_types(table.schema),
                data_bytes=sink.size,
                data_sha256=sink.digest.hexdigest(),
            )
            writer.add_key_value_metadata({MARK_KEY: mark.model_dump_json()})
    return path


def read_prepared(reader: Reader, schema: TableSchema) -> pd.DataFrame | None:
    """Read a table whose mark is valid for the schema, with the types that validation gives; otherwise return None.

    Raises:
        NotFoundError: The file does not exist.
        DataError: The file is not Parquet.
    """
    if not isinstance(reader, ParquetReader) or reader.limit is not None:
        return None
    with reader.open() as file, reader.translate_decode_errors():
        footer = pq.ParquetFile(file)
        mark = _parse_mark(footer)
        if mark is None:
            return None
        reason = _find_mismatch(mark, footer, schema)
        if not reason:
            file.seek(0)
            content = file.read()  # read completely, so that a remote file is downloaded once for both hash and rows
            if sha256(memoryview(content)[: mark.data_bytes]).hexdigest() != mark.data_sha256:
                reason = "its rows were changed"
        if reason:
            logger.info("{}: validated by preparation, but {}; validating it again", reader.path, reason)
            return None
        table = pq.read_table(pa.BufferReader(content))
    return _restore_types(table.to_pandas(ignore_metadata=True), schema)


def schema_fingerprint(schema: TableSchema) -> str:
    """Return the SHA-256 of a schema document."""
    return sha256(schema.model_dump_json().encode()).hexdigest()


def _parse_mark(file: pq.ParquetFile) -> ValidationMark | None:
    text = (file.metadata.metadata or {}).get(MARK_KEY.encode())
    try:
        return None if text is None else ValidationMark.model_validate_json(text)
    except ValidationError:  # written by a release with other keys
        return None


def _find_mismatch(mark: ValidationMark, file: pq.ParquetFile, schema: TableSchema) -> str:
    """Return the reason why the mark does not match the footer and the schema; empty if it matches."""
    if mark.package != model_name.__version__:
        return f"by version {mark.package}"
    if mark.table_schema != schema_fingerprint(schema):
        return "with another schema"
    if mark.rows != file.metadata.num_rows or mark.columns != _column_types(file.schema_arrow):
        return "its rows or columns were changed"
    return ""


def _column_types(schema: pa.Schema) -> dict[str, str]:
    return {field.name: str(field.type) for field in schema}


def _restore_types(frame: pd.DataFrame, schema: TableSchema) -> pd.DataFrame:
    """Return the columns in the order and with the types that `check_frame` gives them."""
    types = {name: DTYPE_BY_KIND[column.kind] for name, column in schema.columns.items()}
    typed = frame[list(types)].astype(types)
    target = frame[schema.target.name]
    if not schema.classes:
        return typed.assign(**{schema.target.name: target.astype(np.float64)})
    # Parquet returns numpy values; models compare with the labels of the schema.
    codes, values = pd.factorize(target)
    label_of = {label: label for label in schema.classes}
    labels = np.empty(len(values), dtype=object)
    labels[:] = [label_of[label] for label in values]
    return typed.assign(**{schema.target.name: labels[codes]})


class _HashingFile(io.RawIOBase):
    """Output file that counts and hashes the bytes written to it. Closing it leaves the underlying file open."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self.digest = sha256()
        self.size = 0
        self._file = file

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any) -> int:
        self.digest.update(data)
        self.size += len(data)
        self._file.write(data)
        return len(data)
