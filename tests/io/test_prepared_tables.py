"""Prepared tables: which marks are trusted; a trusted table is read like a validated one."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import model_name
from model_name.core.dataframes import add_lag_columns, check_frame
from model_name.core.schemas import TableSchema
from model_name.errors import DataError, NotFoundError, StorageError
from model_name.io.datasets import CsvReader, ParquetReader, ParquetWriter
from model_name.io.prepared_tables import MARK_KEY, read_prepared, schema_fingerprint, write_prepared
from tests.support import tables

LAG = {"kind": "numeric", "nullable": True, "history": {"of": "size", "by": ["region"], "lag": "24h"}}
TARGETS = {
    "numbers": ({"task": "regression"}, lambda rows: np.linspace(-1, 1, rows)),
    "whole numbers": ({"task": "regression"}, np.arange),
    "texts": ({"task": "binary", "classes": ["no", "YES"]}, lambda rows: np.resize(["no", "YES"], rows)),
    "booleans": ({"task": "binary", "classes": [False, True]}, lambda rows: np.arange(rows) % 2 == 0),
    "integers": ({"task": "multiclass", "classes": [7, 8, 9]}, lambda rows: np.arange(rows) % 3 + 7),
}


def make_schema(task="regression", target=None, **columns):
    document = tables.order_schema(task)
    document["target"] |= target or {}
    document["columns"] |= columns
    return TableSchema.model_validate(document)


def validated(frame, schema):
    return check_frame(add_lag_columns(frame, schema), schema).frame


def read_validated(path, schema):
    """Read a table and validate it, as for a table without a mark."""
    return validated(ParquetReader(path=str(path)).read(schema), schema)


@pytest.fixture
def schema():
    return make_schema(size_24h=LAG)


@pytest.fixture
def path(tmp_path, schema):
    return write_prepared(str(tmp_path / "deep" / "t.parquet"), validated(tables.order_table(), schema), schema)


@pytest.mark.parametrize("name", TARGETS)
def test_a_trusted_table_is_read_like_a_validated_one(tmp_path, name):
    # Given a table with every kind of column, values of every kind missing, and categories that are not in the schema
    target, values = TARGETS[name]
    empty = {
        "no_number": {"kind": "numeric", "nullable": True},
        "no_text": {"kind": "category", "nullable": True},
        "no_moment": {"kind": "datetime", "nullable": True},
    }
    frame = tables.order_table().assign(amount=values(600), no_number=np.nan, no_text=None, no_moment=pd.NaT)
    frame.loc[5, "region"] = "moon"
    frame["is_open"] = frame["is_open"].astype(object)
    frame.loc[3, ["region", "is_open"]] = None
    nullable = {name: tables.order_schema()["columns"][name] | {"nullable": True} for name in ("region", "is_open")}
    document = {"name": "amount", **target}
    schema = TableSchema.model_validate(
        tables.order_schema()
        | {"target": document, "columns": tables.order_schema()["columns"] | nullable | empty | {"size_24h": LAG}}
    )
    prepared = validated(frame, schema)
    # When it is written with its mark and read
    path = write_prepared(str(tmp_path / "t.parquet"), prepared, schema)
    result = read_prepared(ParquetReader(path=path), schema)
    # Then it equals the validated frame, including the types of its values
    expected = read_validated(path, schema)
    pd.testing.assert_frame_equal(result, expected, check_exact=True)
    pd.testing.assert_frame_equal(result, prepared.reset_index(drop=True), check_exact=True)
    for column in result:
        assert list(map(type, result[column])) == list(map(type, expected[column])), column


def test_a_table_behind_a_url_is_trusted(schema):
    prepared = validated(tables.order_table(), schema)
    path = write_prepared("memory://prepared/t.parquet", prepared, schema)
    pd.testing.assert_frame_equal(read_prepared(ParquetReader(path=path), schema), prepared)


def test_a_table_without_a_mark_is_not_trusted(tmp_path, schema):
    path = ParquetWriter(path=str(tmp_path / "t.parquet")).write(validated(tables.order_table(), schema))
    assert read_prepared(ParquetReader(path=path), schema) is None


@pytest.mark.parametrize("columns", [{"size": {"kind": "numeric", "nullable": True, "max": 99}}, {"size_24h": None}])
def test_the_mark_of_another_schema_is_not_trusted(path, schema, columns):
    document = tables.order_schema()
    document["columns"] = {
        name: column for name, column in (document["columns"] | {"size_24h": LAG} | columns).items() if column
    }
    assert read_prepared(ParquetReader(path=path), TableSchema.model_validate(document)) is None


def test_the_mark_of_another_release_is_not_trusted(path, schema, monkeypatch):
    monkeypatch.setattr(model_name, "__version__", "99.0.0")
    assert read_prepared(ParquetReader(path=path), schema) is None


def test_a_mark_that_cannot_be_read_is_not_trusted(path, schema):
    rewrite(path, pq.read_table(path), mark=b"{}")
    assert read_prepared(ParquetReader(path=path), schema) is None


def rewrite(path, table, mark=None):
    """Replace a prepared table as a tool does that keeps the metadata of the footer."""
    metadata = pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({MARK_KEY: mark or metadata[MARK_KEY.encode()]})


def changed_value(table):
    values = table["size"].to_numpy().copy()
    values[17] += 1
    return table.set_column(table.schema.get_field_index("size"), "size", pa.array(values, from_pandas=True))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(changed_value, id="a value"),
        pytest.param(lambda table: table.take(list(range(599, -1, -1))), id="the order of the rows"),
        pytest.param(lambda table: table.slice(1), id="one row fewer"),
        pytest.param(lambda table: pa.concat_tables([table, table.slice(0, 3)]), id="more rows"),
        pytest.param(lambda table: table.rename_columns(["kode", *table.column_names[1:]]), id="a name"),
        pytest.param(lambda table: table.append_column("more", table["size"]), id="another column"),
    ],
)
def test_rows_that_were_changed_under_a_kept_mark_are_not_trusted(path, schema, change):
    rewrite(path, change(pq.read_table(path)))
    assert MARK_KEY.encode() in pq.read_metadata(path).metadata
    assert read_prepared(ParquetReader(path=path), schema) is None


def test_a_table_that_pandas_rewrote_is_not_trusted(path, schema):
    pd.read_parquet(path).to_parquet(path, index=False)
    assert read_prepared(ParquetReader(path=path), schema) is None


def test_a_part_of_a_table_and_other_formats_are_not_trusted(path, schema):
    assert read_prepared(ParquetReader(path=path, limit=600), schema) is None
    assert read_prepared(CsvReader(path=path), schema) is None


def test_a_file_that_is_missing_or_damaged_is_reported_as_by_a_reader(path, schema, tmp_path):
    with pytest.raises(NotFoundError, match="there is no such file"):
        read_prepared(ParquetReader(path=f"{path}x"), schema)
    (tmp_path / "t.parquet").write_text("no Parquet")
    with pytest.raises(DataError, match="is not a table that ParquetReader can read"):
        read_prepared(ParquetReader(path=str(tmp_path / "t.parquet")), schema)


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path, schema):
    frame = validated(tables.order_table(), schema)
    frame["code"] = [1, "a"] * 300
    with pytest.raises(DataError, match="cannot be written as Parquet"):
        write_prepared(str(tmp_path / "t.parquet"), frame, schema)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        write_prepared(str(tmp_path / "file" / "t.parquet"), validated(tables.order_table(), schema), schema)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_the_fingerprint_changes_with_the_schema(schema):
    assert schema_fingerprint(schema) == schema_fingerprint(TableSchema.model_validate(schema.model_dump()))
    assert schema_fingerprint(schema) != schema_fingerprint(schema.model_copy(update={"description": "other"}))
