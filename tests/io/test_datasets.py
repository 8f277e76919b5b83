import contextlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_name.core import dataframes
from model_name.core.schemas import TableSchema
from model_name.errors import ConfigError, DataError, NotFoundError, StorageError
from model_name.io.datasets import CsvReader, ParquetReader, ParquetWriter, reader_for

ROWS = 25


@pytest.fixture
def table():
    return pd.DataFrame({"n": range(ROWS), "x": np.arange(ROWS) / 4, "g": ["a", "b", None, "d", "e"] * 5})


@pytest.fixture(params=["local", "memory"])
def root(request, workplace):
    """Return the prefix of paths: the working directory, or a URL."""
    if request.param == "local":
        return f"{workplace}/"
    return f"memory://{workplace.name}-{os.urandom(4).hex()}/"


def write(path, table):
    if path.endswith(".parquet"):
        ParquetWriter(path=path).write(table)
        return path
    with fsspec.open(path, "wt", compression="infer", newline="") as file:
        table.to_csv(file, index=False, sep="\t" if path.endswith(".tsv") else ",")
    return path


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.csv.gz", "t.tsv", "folder/on/the/way/t.parquet"])
def test_a_written_table_is_read_back(root, table, name):
    if name.startswith("folder"):
        assert not Path("folder").exists()
    reader = reader_for(write(f"{root}{name}", table))
    pd.testing.assert_frame_equal(reader.read(), table)
    assert reader.count() == (ROWS if name.endswith("parquet") else None)


@settings(max_examples=40)
@given(rows=st.integers(1, 40), limit=st.none() | st.integers(1, 50), size=st.integers(1, 45), group=st.integers(1, 45))
def test_batches_are_the_table_up_to_the_limit(tmp_path_factory, rows, limit, size, group):
    # given a table in row groups of some size
    path = tmp_path_factory.mktemp("t") / "t"
    table = pa.table({"n": range(rows), "g": [str(row) for row in range(rows)]})
    pq.write_table(table, f"{path}.parquet", row_group_size=group)
    table.to_pandas().to_csv(f"{path}.csv", index=False)
    expected = table.to_pandas().head(limit if limit else rows)
    for reader in (reader_for(f"{path}.parquet", limit), CsvReader(path=f"{path}.csv", limit=limit)):
        # when it is read in batches
        batches = list(reader.batches(rows=size))
        # then no batch is empty or too large, and together they are the first rows
        assert all(0 < batch.num_rows <= size for batch in batches)
        assert pa.Table.from_batches(batches)["n"].to_pylist() == expected["n"].tolist()
        # and so are those of a read of the whole file
        assert reader.read()["n"].tolist() == expected["n"].tolist()
    assert reader_for(f"{path}.parquet", limit).count() == len(expected)


def test_a_limit_stops_reading_the_file(workplace):
    # given a file that is damaged after its first row group
    table = pa.table({"n": np.zeros(200_000)})
    pq.write_table(table, "t.parquet", row_group_size=100_000, use_dictionary=False, compression="snappy")
    second = pq.ParquetFile("t.parquet").metadata.row_group(1).column(0)
    raw = bytearray(Path("t.parquet").read_bytes())
    start = second.data_page_offset
    raw[start : start + second.total_compressed_size] = os.urandom(second.total_compressed_size)
    Path("t.parquet").write_bytes(raw)
    # then the first rows can be read, and the whole file cannot
    assert len(ParquetReader(path="t.parquet", limit=10).read()) == 10
    assert next(ParquetReader(path="t.parquet").batches(rows=10)).num_rows == 10
    with pytest.raises(DataError, match=r"t.parquet: is not a table that ParquetReader can read"):
        ParquetReader(path="t.parquet").read()
    with pytest.raises(DataError, match=r"t.parquet: is not a table that ParquetReader can read"):
        list(ParquetReader(path="t.parquet").batches())


def test_only_a_named_pandas_index_becomes_a_column(workplace, table):
    # given files that pandas writes for a filtered table, and for one with a named index
    table[table["n"] > 3].to_parquet("filtered.parquet")
    table.set_index("n").to_parquet("named.parquet")
    # then a table and its batches have the same columns
    for name in ("filtered.parquet", "named.parquet"):
        reader = ParquetReader(path=name)
        assert sorted(reader.read().columns) == sorted(next(reader.batches()).schema.names) == ["g", "n", "x"]
        assert list(reader.read().index[:2]) == [0, 1]


def test_the_schema_gives_the_types_of_a_text_format(workplace, make_schema, make_table, task):
    # given the same table as Parquet and as CSV
    table, schema = make_table(task), make_schema(task)
    write(f"{workplace}/t.parquet", table)
    write(f"{workplace}/t.csv", table)
    # when both are read and checked, then they are the same table
    read = [dataframes.check_frame(reader_for(f"t.{end}").read(schema), schema).frame for end in ("parquet", "csv")]
    pd.testing.assert_frame_equal(*read)
    # and their first rows are the same
    some = [dataframes.check_frame(reader_for(f"t.{end}", 50).read(schema), schema).frame for end in ("parquet", "csv")]
    pd.testing.assert_frame_equal(*some)


def test_a_column_that_begins_with_integers_is_read_in_batches_as_float(workplace):
    # given a CSV whose target has its first fraction after the first block
    text = "x,y\n" + "1,1\n" * 400_000 + "1,1.5\n"
    Path("t.csv").write_text(text)
    schema = TableSchema.model_validate(
        {"name": "t", "target": {"name": "y", "task": "regression"}, "columns": {"x": {"kind": "numeric"}}}
    )
    batches = list(CsvReader(path="t.csv").batches(schema))
    assert sum(batch.num_rows for batch in batches) == 400_001
    assert batches[-1].column("y")[-1].as_py() == 1.5


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        pytest.param("nope.parquet", NotFoundError, "nope.parquet: there is no such file", id="a missing file"),
        pytest.param("memory://nope.csv", NotFoundError, "there is no such file", id="a missing URL"),
        pytest.param("nope://a/t.csv", DataError, "cannot be opened: Protocol not known", id="an unknown protocol"),
        pytest.param("folder.parquet", DataError, "folder.parquet: cannot be opened", id="a folder"),
        pytest.param("words.parquet", DataError, "is not a table that ParquetReader can read", id="no Parquet"),
        pytest.param("empty.parquet", DataError, "is not a table that ParquetReader can read", id="an empty Parquet"),
        pytest.param("empty.csv", DataError, "is not a table that CsvReader can read", id="an empty CSV"),
        pytest.param("ragged.csv", DataError, "is not a table that CsvReader can read", id="ragged lines"),
        pytest.param("latin.csv", DataError, "is not a table that CsvReader can read", id="not UTF-8"),
        pytest.param("words.csv.gz", DataError, "is not a table that CsvReader can read", id="not compressed"),
        pytest.param("cut.csv.gz", DataError, "is not a table that CsvReader can read", id="a truncated file"),
    ],
)
@pytest.mark.parametrize("limit", [None, 3])
def test_a_file_that_is_not_a_table_is_named(workplace, path, error, reason, limit, make_schema):
    Path("folder.parquet").mkdir()
    Path("words.parquet").write_text("words " * 100)
    Path("empty.parquet").touch()
    Path("empty.csv").touch()
    Path("ragged.csv").write_text("a,b\n1\n1,2,3\n")
    Path("latin.csv").write_bytes("group\né\n".encode("latin-1"))
    Path("words.csv.gz").write_text("a,b\n1,2\n")
    write(f"{workplace}/whole.csv.gz", noise(5_000).to_pandas())
    content = Path("whole.csv.gz").read_bytes()
    Path("cut.csv.gz").write_bytes(content[: len(content) // 2])
    schema = make_schema("regression") if path == "latin.csv" else None
    with pytest.raises(error) as caught:
        reader_for(path, limit).read(schema)
    assert reason in caught.value.message
    with pytest.raises(error):
        list(reader_for(path, limit).batches(schema))


@pytest.mark.parametrize("limit", [None, 3])
def test_a_header_without_rows_is_an_empty_table(workplace, limit):
    Path("t.csv").write_text("a,b\n")
    reader = CsvReader(path="t.csv", limit=limit)
    assert len(reader.read()) == 0
    assert list(reader.batches()) == []


def test_the_extension_selects_the_reader():
    assert reader_for("a.pq") == ParquetReader(path="a.pq")
    assert reader_for("a.tsv", 5) == CsvReader(path="a.tsv", limit=5, delimiter="\t")
    with pytest.raises(ConfigError, match=r"a.xlsx: is neither .parquet, .csv nor .tsv"):
        reader_for("a.xlsx")


@pytest.mark.parametrize("path", ["t.parquet", "memory://t.parquet", "s3://bucket/t.parquet"])
def test_lineage_is_recorded_for_any_url(table, path):
    result = reader_for(path).lineage("train", table.drop(columns="g"), "x")
    assert (result.name, result.targets) == ("train", "x")
    assert result.profile == {"num_rows": ROWS, "num_elements": 2 * ROWS}


def test_writing_replaces_the_whole_file(root, table):
    writer = ParquetWriter(path=f"{root}t.parquet")
    assert writer.write(table) == writer.path
    writer.write(pa.table({"a": [1]}))
    assert ParquetReader(path=writer.path).read().to_dict("list") == {"a": [1]}
    filesystem, folder = fsspec.core.url_to_fs(root)
    assert [Path(name).name for name in filesystem.ls(folder, detail=False)] == ["t.parquet"]


def test_a_table_that_parquet_cannot_store_is_refused(workplace):
    with pytest.raises(DataError, match=r"t.parquet: the table cannot be written as Parquet"):
        ParquetWriter(path="t.parquet").write(pd.DataFrame({"a": [1, "x", object()]}))
    assert list(workplace.iterdir()) == []


def test_an_unwritable_path_is_named(workplace, table):
    Path("file").touch()
    with pytest.raises(StorageError, match=r"file/t.parquet: cannot be written: (Not a directory|File exists)"):
        ParquetWriter(path="file/t.parquet").write(table)


@contextlib.contextmanager
def small_disk(folder):
    """Mount a disk of 1 MiB; skip the test without the permission."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no mount allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def noise(rows=500_000):
    return pa.table({"x": np.random.default_rng(0).random(rows)})


def test_a_full_disk_is_reported_and_leaves_no_file(workplace):
    with small_disk(workplace / "disk") as disk:
        # given a table on a disk without space for a larger one
        writer = ParquetWriter(path=f"{disk}/t.parquet")
        writer.write(pa.table({"x": [1.0]}))
        # when the larger one is written
        with pytest.raises(StorageError, match="the disk is full; nothing was left half-written") as caught:
            writer.write(noise())
        # then the old file is intact, and the only one
        assert caught.value.exit_code == 5
        assert [file.name for file in disk.iterdir()] == ["t.parquet"]
        assert ParquetReader(path=writer.path).read()["x"].tolist() == [1.0]


def test_a_file_size_limit_is_reported_and_leaves_no_file(workplace):
    # given a process that may not write files of more than 100 kB
    code = """
import numpy as np, pyarrow as pa, signal
from model_name.errors import StorageError
from model_name.io.datasets import ParquetWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    ParquetWriter(path="t.parquet").write(pa.table({"x": np.random.default_rng(0).random(500_000)}))
except StorageError as err:
    print(err.message)
"""
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # noqa: E731
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    finished = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=limit, capture_output=True, text=True, check=False, env=environment
    )
    # then the error is reported, and no file is left
    assert finished.stdout == "t.parquet: cannot be written: File too large\n", finished.stderr
    assert list(workplace.iterdir()) == []
